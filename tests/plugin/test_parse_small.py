"""Rows of a small model: what is built for each, in place of which text, and what a wrong row is told.

The model has five rows, so that a test takes milliseconds.
"""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision.models  # noqa: F401  # what a row of a whole network imports takes longer than these tests
from torch import nn
from ultralytics.nn import tasks

from gam_yolo import BLOCKS, UserError, ultralytics_api
from gam_yolo.bottleneck import AttendedBottleneck
from gam_yolo.plugin import parse_model

BASE: list[list[Any]] = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 2, "C2f", [16, True]],
    [-1, 1, "Conv", [24, 3, 2]],
    [[-1, 2], 1, "Concat", [1]],
]


@pytest.fixture(autouse=True)
def nothing_was_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_model, "_warned", set())


def model(*rows: list[Any], at: int = 4, **keys: Any) -> dict[str, Any]:
    """The small model with rows inserted, and a head that reads the last of them."""
    backbone = copy.deepcopy([*BASE[:at], *rows, *BASE[at:]])
    return {"nc": 3, "yaml_file": "small.yaml", "backbone": backbone, "head": [[-1, 1, "Classify", ["nc"]]], **keys}


def parse(config: dict[str, Any], verbose: bool = False) -> tuple[nn.Sequential, list[int]]:
    with torch.device("meta"):
        found: tuple[nn.Sequential, list[int]] = tasks.parse_model(config, 3, verbose)
    return found


def shapes(layer: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in layer.parameters()]


@pytest.mark.parametrize(
    ("row", "at", "built"),
    [
        ([-1, 1, "SE", []], 1, (16,)),
        ([-1, 1, "SE", [4]], 2, (16, 4)),
        ([-1, 1, "SE", [{"reduction": 8, "start": "zero"}]], 3, (24, 8, "zero")),
        ([-1, 1, "SE", ["4"]], 4, (48, 4)),  # after the Concat
        ([1, 1, "SE", []], 4, (16,)),
        ([2, 1, "SE", []], 4, (24,)),
        ([-1, 1, "SE", [4, {"replaces": [1, "SPPF", [48, 5]]}]], 4, (48, 4)),
        ([-1, 1, "GAM", [4, "sigmoid"]], 4, (48, 4, "sigmoid")),
    ],
)
def test_a_block_gets_the_channels_of_what_it_reads(row: list[Any], at: int, built: tuple[Any, ...]) -> None:
    config = model(row, at=at)
    before = copy.deepcopy(config)
    block = parse(config)[0][at]
    assert type(block) is BLOCKS[row[2]]
    with torch.device("meta"):
        assert shapes(block) == shapes(BLOCKS[row[2]](*built))
        assert str(block) == str(BLOCKS[row[2]](*built))
    assert config == before  # the file's rows stay as they were written


def test_a_block_that_reads_another_row_and_is_repeated() -> None:
    layers, kept = parse(model([1, 3, "SE", [4]]))
    assert isinstance(layers[4], nn.Sequential)
    assert [type(part) for part in layers[4]] == [BLOCKS["SE"]] * 3
    assert kept == [1, 2]
    assert layers[4].f == 1
    assert layers[4].i == 4
    if ultralytics_api.numbers(ultralytics_api.version()) >= (8, 3, 40):  # it was the number of one of them
        assert layers[4].np == sum(p.numel() for p in layers[4].parameters())


def test_other_rows_are_what_they_are_without_the_block() -> None:
    plain, blocked = (parse(config)[0] for config in (model(), model([-1, 1, "SE", []], at=4)))
    assert [shapes(layer) for layer in (*blocked[:4], blocked[5])] == [shapes(layer) for layer in plain]
    assert [type(layer) for layer in (*blocked[:4], blocked[5])] == [type(layer) for layer in plain]


def test_a_block_in_the_head_gets_its_channels_too() -> None:
    config = model()
    config["head"] = [[-1, 1, "SE", [4]], [-1, 1, "C2f", [16, True, {"inside": ["SE", 2]}]], *config["head"]]
    layers = parse(config)[0]
    with torch.device("meta"):
        assert shapes(layers[4]) == shapes(BLOCKS["SE"](48, 4))
    assert any(isinstance(m, AttendedBottleneck) for m in layers[5].modules())


def test_texts_that_are_names_of_the_parser_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(nn.Module):
        def __init__(self, channels: int, mode: str = "plain") -> None:
            super().__init__()
            self.channels, self.mode = channels, mode

    from gam_yolo import registry

    monkeypatch.setitem(registry._registered, "Named", Named)
    for mode in ("scale", "width", "nc", "it's"):
        block: Any = parse(model([-1, 1, "Named", [mode]]))[0][4]
        assert (block.channels, block.mode) == (48, mode)


@pytest.mark.parametrize(
    ("inside", "built", "of"),
    [
        ("ECA", (8,), 2),
        (["SE", 4], (8, 4), 2),
        (["SE", {"reduction": 2}], (8, 2), 2),
        (["GAM", 2, "none"], (8, 2, "none"), 2),
    ],
)
def test_a_block_inside_a_row_is_in_each_bottleneck(
    inside: Any, built: tuple[Any, ...], of: int, lines: list[str]
) -> None:
    config = model()
    config["backbone"][1][3].append({"inside": inside})
    plain = parse(model())[0][1]
    row = parse(config, verbose=True)[0][1]
    found = [m for m in row.modules() if isinstance(m, AttendedBottleneck)]
    assert len(found) == of
    name = inside if isinstance(inside, str) else inside[0]
    with torch.device("meta"):
        assert [shapes(m.attention) for m in found] == [shapes(BLOCKS[name](*built))] * of
    added = sum(p.numel() for m in found for p in m.attention.parameters())
    assert row.np == sum(p.numel() for p in row.parameters()) == plain.np + added
    (line,) = [line for line in lines if "inside" in line]
    assert line.split()[:5] == ["1", "inside", str(of), str(added), f"gam_yolo.blocks.{name.lower()}.{name}"]
    parse(config)
    assert len([line for line in lines if "inside" in line]) == 1  # not shown where the parser shows nothing


def test_a_row_that_was_only_replaced_is_built_without_the_record() -> None:
    config = model()
    config["backbone"][2] = [-1, 1, "Conv", [24, 3, 2, {"replaces": [1, "SPPF", [24, 5]]}]]
    assert shapes(parse(config)[0][2]) == shapes(parse(model())[0][2])


ONLY = "AttentionResNet is a whole network. Write it as the only row, [-1, 1, AttentionResNet, [nc]]."


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (model([[-1, 1], 1, "SE", []]), "row 4 [[-1, 1], 1, SE, []]: 'from' is [-1, 1], but SE has one input. "
         "Expected the number of one row, or -1."),
        (model([-1, 1, "SE", [99]]), "row 4 [-1, 1, SE, [99]]: reduction is 99. Expected a whole number from 1 to 48"),
        (model([7, 1, "SE", []]), "row 4 [7, 1, SE, []]: reads row 7, which is not before it."),
        (model([-1, 1, "GAN", []], [-1, 1, "SE", []]), "row 4 [-1, 1, GAN, []]: there is no module named 'GAN'. "
         "Did you mean 'GAM'?"),
        (model([-1, 1, "SEE", []]), "row 4 [-1, 1, SEE, []]: there is no module named 'SEE'. Did you mean 'SE'?"),
        (model([-1, 1, ["SE"], []]), "row 4 [-1, 1, [SE], []]: the module is ['SE']. Expected"),
        (model([-1, 1, ["SE"]]), "row 4 [-1, 1, [SE]]: a row has 4 parts, not 3."),
        (model([-1, "SE", 1, []]), "row 4 [-1, SE, 1, []]: "),
        (model([-1, 1, "SE"]), "row 4 [-1, 1, SE]: a row has 4 parts, not 3."),
        (model([-1, 1], [-1, 1, "SE", []]), "row 4 [-1, 1]: a row has 4 parts, not 2."),
        ({"nc": 3, "backbone": [], "head": [[-1, 2, "AttentionResNet", ["nc"]]]}, ONLY),
        (model([-1, 1, "Flatten", []], [-1, 1, "SE", []]), "row 4 [-1, 1, Flatten, []]: there is no module named"),
        (model([-1, 1, "nn.Flatten", []], [-1, 1, "SE", []], [0, 1, "nn.Identity", []]), None),
        (model([-1, 1, "SE", []], scales={"s": [1, 1, 64]}, scale="n"),
         "small.yaml: the file has no scale 'n'. Expected one of s."),
        (model([-1, 1, "SE", []], nc=0), "small.yaml, key 'nc': is 0."),
        (model([-1, 1, "Conv", [16, {"inside": "SE"}]]),
         "row 4 [-1, 1, Conv, [16, {inside: SE}]]: Conv has no bottleneck to put SE inside. Expected a row such as "
         "C2f, C3 or C3k2."),
        (model([-1, 1, "C2f", [16, {"inside": 3}]]), "row 4 [-1, 1, C2f, [16, {inside: 3}]]: 'inside' is 3. Expected"),
        (model([-1, 1, "C2f", [16, {"inside": []}]]), "'inside' is []. Expected a block, such as GAM, or"),
        (model([-1, 1, "C2f", [16, {"inside": ["SE", 999]}]]),
         "row 4 [-1, 1, C2f, [16, {inside: [SE, 999]}]]: reduction is 999."),
        (model([-1, 1, "C2f", [16, {"inside": "SEE"}]]), "no block is named 'SEE'. Did you mean 'SE'?"),
        (model([-1, 1, "AttentionResNet", ["nc"]]), f"row 4 [-1, 1, AttentionResNet, [nc]]: {ONLY}"),
        ({"nc": 3, "backbone": [[-1, 1, "AttentionResNet", [3]]], "head": []},
         "model YAML, row 0 [-1, 1, AttentionResNet, [3]]: the first argument is not the number of classes. "
         "Write [-1, 1, AttentionResNet, [nc]]."),
        ({"nc": 3, "backbone": [[-1, 1, "AttentionResNet", "nc"]], "head": []}, "the first argument is not"),
        ({"nc": 3, "backbone": [[-1, 2, "AttentionResNet", ["nc"]]], "head": []}, ONLY),
        ({"nc": 3, "backbone": [[-1, 1, "AttentionResNet"]], "head": []}, ONLY),
        ({"nc": 3, "backbone": [[-1, 1, "AttentionResNet", ["nc", "resnet17"]]], "head": []},
         "row 0 [-1, 1, AttentionResNet, [nc, resnet17]]: "),
    ],
)  # fmt: skip
def test_a_wrong_row_is_told_on_one_line(config: dict[str, Any], says: str | None) -> None:
    if says is None:  # a module of torch is no mistake
        config["backbone"].pop()
        config["backbone"][4] = [-1, 1, "nn.Identity", []]
        parse(config)
        return
    with pytest.raises(UserError) as error:
        parse(config)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([[-1, 1, "Conv", [8, 3, 1, 1, 1, 1, 1, 1, 1]]], TypeError),  # with no block in it the model is not ours
        ([[-1, 1, "Conv", []]], IndexError),
    ],
)
def test_errors_of_a_plain_model_stay_ultralytics_own(rows: list[list[Any]], error: type[Exception]) -> None:
    with pytest.raises(error) as found:
        parse(model(*rows))
    assert not isinstance(found.value, UserError)
    with pytest.raises(UserError, match=r"row 4 .* cannot be built \("):
        parse(model(*rows, [-1, 1, "SE", []]))


def test_a_plain_file_without_a_section_stays_ultralytics_own_error() -> None:
    with pytest.raises(KeyError, match="head"):
        parse({"nc": 3, "backbone": BASE})


def test_a_whole_network_is_the_only_row() -> None:
    config = {"nc": 3, "backbone": [[-1, 1, "AttentionResNet", ["nc", "resnet18", {"block": "SE"}]]], "head": []}
    (network,) = parse(config)[0]
    assert type(network).__name__ == "AttentionResNet"
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)][-1] == 3
    assert any(type(m) is BLOCKS["SE"] for m in network.modules())


def test_a_module_is_wrapped_once_what_restricted_loading_needs_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = getattr(tasks.parse_model, "__wrapped__", tasks.parse_model)
    for safe_load in (None, False, True):  # older releases do not have the name
        module = ModuleType("tasks")
        vars(module).update(parse_model=stock, **({} if safe_load is None else {"SAFE_LOAD": safe_load}))
        for name in ("gam_yolo.resnet", "gam_yolo.bottleneck"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        parse_model.patch(module)
        assert module.parse_model.__wrapped__ is stock
        assert "gam_yolo.bottleneck" in sys.modules
        assert ("gam_yolo.resnet" in sys.modules) is bool(safe_load)
    with pytest.raises(UserError, match="parse_model"):
        parse_model.patch(ModuleType("tasks"))


def test_an_input_without_channels_is_named() -> None:
    config = model([-1, 1, "SE", []])
    config["backbone"].insert(4, [-1, 1, "Classify", [5]])
    with pytest.raises(UserError, match=r"row 5 \[-1, 1, SE, \[\]\]: "):
        tasks.parse_model(config, 3, False)


def test_a_warning_is_given_once_and_never_while_quiet(lines: list[str]) -> None:
    config = model([-1, 1, "SE", [48]])
    for _ in range(2):
        parse(copy.deepcopy(config))
    warned = [line for line in lines if "[misbound-argument]" in line]
    assert len(warned) == 1
    assert "small.yaml" in warned[0]
    assert "row 4 " in warned[0]


def test_a_channel_count_as_a_ratio_inside_a_row_is_a_warning(lines: list[str]) -> None:
    config = model()
    config["backbone"][1][3] = [128, True, {"inside": ["SE", 64]}]  # its bottlenecks have 64 channels
    parse(config)
    assert [line for line in lines if "row 1 " in line and "[misbound-argument]" in line]


def test_where_the_parser_cannot_be_wrapped_each_block_says_why() -> None:
    class Tasks:
        pass

    parse_model.unavailable(Tasks, "another version")  # type: ignore[arg-type]  # stands for the module
    for name in ("SE", "GAM"):
        cls = getattr(Tasks, name)
        assert issubclass(cls, nn.Module)
        with pytest.raises(UserError, match=f"{name} cannot be placed: another version"):
            cls(64, 4)
