from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics.nn import tasks

from gam_yolo.errors import UserError
from gam_yolo.graph.model import Document
from gam_yolo.graph.shapes import RowError, Shape, measure, module_class, scales

from .samples import TINY


@pytest.mark.parametrize("name", ["yolov8", "rtdetr-l", "yolov9e"])
def test_shapes_are_those_of_the_real_model(models: dict[str, Path], name: str) -> None:
    """The second way: a real model on the CPU, its layers' outputs caught by hooks."""
    document = Document.read(models[name])
    scale = scales(document.config)[0]
    layers, _ = tasks.parse_model({**yaml.safe_load(document.text), "scale": scale}, 3, verbose=False)
    outputs: list[Any] = []
    with torch.no_grad():
        for layer in layers.eval()[:-1]:
            read = [torch.zeros(1, 3, 64, 64) if layer.i == 0 else outputs[j % layer.i] for j in _list(layer.f)]
            outputs.append(layer(read if isinstance(layer.f, list) else read[0]))
    want = [Shape(o.shape[1], 64 / o.shape[2]) if isinstance(o, torch.Tensor) else None for o in outputs]
    assert measure(document.config, name, scale) == [*want, None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_measuring_draws_no_random_numbers_and_leaves_the_config_alone(models: dict[str, Path]) -> None:
    document = Document.read(models["yolov8"])
    torch.manual_seed(0)
    state = torch.get_rng_state()
    measure(document.config, "x", "n")
    assert torch.equal(state, torch.get_rng_state())
    assert document.config == yaml.safe_load(document.text)


@pytest.mark.parametrize(
    "name",
    ["check_requirements", "torch_load", "DetectionModel", "WorldModel", "Path", "nn.init", "nn.nope", "nn.functional"],
)
def test_a_row_can_name_layers_only(name: str) -> None:
    assert module_class(name) is None
    config = yaml.safe_load(TINY.replace("1, Conv, [24, 1, 1]", f"1, {name}, [24]"))
    with pytest.raises(RowError, match=f"there is no module named '{name}'") as error:
        measure(config, "x")
    assert error.value.row == 6


def test_an_activation_is_not_evaluated(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    measure(yaml.safe_load(TINY) | {"activation": f"open({str(trap)!r}, 'w')"}, "x")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("old", "new", "row", "words"),
    [
        ("[[-1, 2], 1, Concat, [1]]", "[[-1, 3], 1, Concat, [1]]", 5, "row 3 .* at stride 32"),
        ("Conv, [24, 1, 1]", "Conv, [24, 1, 1, 5, 5, 5, 5, 5]", 6, "cannot be built"),
        ("Conv, [24, 1, 1]", "GAM, [99]", 6, "reduction is 99"),
        ("Conv, [24, 1, 1]", "GAM, [{gait: none}]", 6, "no argument 'gait'.*Did you mean 'gate'"),
        ("1, Conv, [24, 1, 1]", "100000, Conv, [24, 1, 1]", 6, "repeats is 100000"),
        ("Conv, [24, 1, 1]", "Conv, [1000000000, 1, 1]", 6, "larger than any layer"),
        ("Conv, [24, 1, 1]", "Conv, [24, .nan, 1]", 6, "larger than any layer"),
        ("[-1, 1, Conv, [24, 1, 1]]", "[9, 1, Conv, [24, 1, 1]]", 6, "reads row 9, which is not before it"),
    ],
)
def test_a_row_that_fails_is_named(old: str, new: str, row: int, words: str) -> None:
    with pytest.raises(RowError, match=words) as error:
        measure(yaml.safe_load(TINY.replace(old, new)), "x.yaml")
    assert error.value.row == row
    assert str(error.value).startswith(f"x.yaml, row {row}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bad", [[], "n", {"n": 1}, {"n": [1, 1]}, {"n": [1, "1", 1]}, {"n": [1e9, 1, 1]}, {1: [1, 1, 1]}]
)
def test_scales_that_are_none(bad: Any) -> None:
    if bad == []:
        assert scales({"scales": bad}) == [""]
        return
    with pytest.raises(UserError, match="Expected"):
        scales({"scales": bad})


@pytest.mark.parametrize("channels", [0, "3", 10**9, None])
def test_channels_of_the_image_that_are_none(channels: Any) -> None:
    with pytest.raises(UserError, match="'channels' is"):
        measure(yaml.safe_load(TINY) | {"channels": channels}, "x")
