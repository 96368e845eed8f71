"""A row's arguments: what a block gets, what a wrong row is told, and how a row is shown."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from gam_yolo.arguments import bind, is_placed, is_small, leaves, row_error, source, take, zero_start
from gam_yolo.errors import UserError


class Scale(nn.Module):
    """A user's block with an argument that must be given, and with errors of both kinds."""

    def __init__(self, channels: int, factor: Any, power: Any = 2, mode: str = "plain") -> None:
        super().__init__()
        if isinstance(factor, int) and factor > channels:
            raise UserError(f"factor is {factor}", expected=f"up to {channels}")
        self.power = power
        if mode == "none":
            raise RuntimeError("no mode")


class Started(nn.Module):
    def __init__(self, channels: int, reduction: int = 16, pool: str = "avg", start: str = "plain") -> None:
        super().__init__()
        self.given = channels, reduction, pool, start


@pytest.mark.parametrize(
    ("args", "bound"),
    [
        ([3], [8, 3]),
        (["3"], [8, 3]),
        ([3, {}], [8, 3]),
        ([{"factor": "0.5"}], [8, 0.5]),
        ([3, {"mode": "max"}], [8, 3, 2, "max"]),
        ([{"mode": "max", "factor": 1}], [8, 1, 2, "max"]),
        ([3, 4, "None"], [8, 3, 4, None]),
        ([3, {"replaces": [1, "SPPF", [1024]]}], [8, 3]),
        ([{"power": 5, "replaces": [1, "SPPF", [1024]], "factor": 3}], [8, 3, 5]),
        ([{"key of the user": 1}, 7], [8, {"key of the user": 1}, 7]),
        ([{}, 7], [8, {}, 7]),
        ([3, 4, "max"], [8, 3, 4, "max"]),
    ],
)
def test_a_block_gets_its_channels_and_then_the_rows_arguments(args: list[Any], bound: list[Any]) -> None:
    assert bind("Scale", Scale, 8, args) == bound


EXPECTED = "Expected (factor, power=2, mode='plain')"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], f"Scale: missing a required argument: 'factor'. {EXPECTED}."),
        ([{"powr": 3}], f"Scale has no argument 'powr'. {EXPECTED}. Did you mean 'power'?"),
        ([{"channels": 3}], f"Scale has no argument 'channels'. {EXPECTED}."),
        ([{"factor": 1, "power": 2, "mode": "a"}, 2],
         "Scale's arguments by name, {factor: 1, power: 2, mode: a}, are not the last. Write them last."),
        ([{"factor": 1}, 2], "Scale's arguments by name, {factor: 1}, are not the last. Write them last."),
        ([1, 2, "a", 4], "Scale takes at most 3 arguments, but the row has 4. "
         f"{EXPECTED} without channels, which come from the row's input."),
        ([1, {"factor": 1}], "Scale's argument 'factor' is given by position and by name. Write it once."),
        ([1, 2, {"power": 1}], "Scale's argument 'power' is given by position and by name. Write it once."),
        ([1, 2, "none"], "Scale rejects its arguments (RuntimeError: no mode)."),
        ([9], "factor is 9. Expected up to 8."),
        ([32], "factor is 32. Expected up to 8. Write []: the channels come from the row's input."),
        ([64, 9], "factor is 64. Expected up to 8. Write []: the channels come from the row's input."),
        ([64, 128, 5], "factor is 64. Expected up to 8. Write [5]: the channels come from the row's input."),
        ([64, True], "factor is 64. Expected up to 8. Write [True]: the channels come from the row's input."),
        ([64, 5, {"mode": "max"}],
         "factor is 64. Expected up to 8. Write [5, {mode: max}]: the channels come from the row's input."),
        ([64, 5, {"mode": "none"}],
         "factor is 64. Expected up to 8. Write []: the channels come from the row's input."),
    ],
)  # fmt: skip
def test_a_wrong_row_is_told_what_to_write(args: list[Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        bind("Scale", Scale, 8, args)
    assert str(error.value).rstrip(".") == says.rstrip(".")


def test_the_callers_arguments_stay_as_they_are() -> None:
    args = [3, {"mode": "max", "replaces": [1, "SPPF", [1024]]}]
    bind("Scale", Scale, 8, args)
    assert args == [3, {"mode": "max", "replaces": [1, "SPPF", [1024]]}]


@pytest.mark.parametrize(
    ("block", "args", "row"),
    [
        (Started, [], "Block, [{start: zero}]"),
        (Started, [8], "Block, [{reduction: 8, start: zero}]"),
        (Started, [8, "max", "plain"], "Block, [{reduction: 8, pool: max, start: zero}]"),
        (Started, [8, {"pool": "max"}], "Block, [{reduction: 8, pool: max, start: zero}]"),
        (
            Scale,
            [8],
            "GAM, [{start: zero}], and before these the arguments that the warning about the row names",
        ),
    ],
)
def test_the_row_that_starts_as_the_identity_keeps_the_other_arguments(
    block: type[nn.Module], args: list[Any], row: str
) -> None:
    assert zero_start("Block", block, args) == row


@pytest.mark.parametrize(
    ("row", "placed"),
    [
        ([-1, 3, "C2f", [128, {"inside": "GAM"}]], True),
        ((-1, 1, "GAM", ({"replaces": [1, "SPPF", []]},)), True),
        ([-1, 3, "C2f", [{"inside": "GAM"}, 128]], False),
        ([-1, 1, "GAM", [{"gate": "sigmoid"}]], False),
        ([-1, 1, "GAM", []], False),
        ([-1, 1, "GAM"], False),
        ([-1, 1, "GAM", {"inside": "GAM"}], False),
        ("inside", False),
        (None, False),
    ],
)
def test_rows_that_place_wrote_are_recognized(row: object, placed: bool) -> None:
    assert is_placed(row) is placed


@pytest.mark.parametrize(
    ("args", "rest"),
    [
        ([], ([], None)),
        ([128], ([128], None)),
        ([128, {"gate": 1}], ([128, {"gate": 1}], None)),
        ([128, {"inside": "GAM", "gate": 1}], ([128, {"gate": 1}], "GAM")),
        ([{"inside": "GAM"}], ([], "GAM")),
    ],
)
def test_an_argument_by_name_can_be_taken_out(args: list[Any], rest: tuple[list[Any], Any]) -> None:
    assert take(args, "inside") == rest


def test_values_that_cannot_be_walked_are_not_small() -> None:
    cyclic: list[Any] = [1]
    cyclic.append({"again": cyclic})
    doubled: list[Any] = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    assert not is_small(cyclic)
    assert not is_small(doubled)
    assert not is_small({"a": [0] * 1100})
    assert is_small({"a": [0] * 900, "b": {"c": [None]}})
    assert is_small("x" * 2000)


def test_leaves_are_the_values_of_nested_lists_and_mappings() -> None:
    assert [*leaves({"a": [1, {"b": (2, 3)}], "c": {"d": "e"}})] == [1, (2, 3), "e"]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([-1, 1, "GAM", [16, {"gate": "sigmoid"}]], "[-1, 1, GAM, [16, {gate: sigmoid}]]"),
        ([[-1, 4], 1, "Concat", (1,)], "[[-1, 4], 1, Concat, [1]]"),
        ([-1, 1, "two\n lines", [None, 0.5]], "[-1, 1, two lines, [None, 0.5]]"),
        ("GAM", "GAM"),
        ([-1, 1, "GAM", ["x" * 281]], f"[-1, 1, GAM, [{'x' * 281}]]"),  # 300 characters
    ],
)
def test_an_error_shows_the_row_as_the_file_has_it(row: object, shown: str) -> None:
    error = row_error({"yaml_file": "my.yaml"}, 7, row, "it is wrong", fix="Change it")
    assert str(error) == f"my.yaml, row 7 {shown}: it is wrong. Change it."
    assert error.row == 7


def test_an_error_shortens_a_long_row_and_one_that_holds_itself() -> None:
    cyclic: list[Any] = [-1, 1, "GAM"]
    cyclic.append(cyclic)
    for row in ([-1, 1, "GAM", ["a long text"] * 30], [-1, 1, "GAM", [7] * 5000], cyclic):
        shown = str(row_error({}, 0, row, "it is wrong"))
        assert shown.startswith("model YAML, row 0 [-1, 1, 'GAM', [")
        assert "...]" in shown
        assert len(shown) < 200


def test_a_model_without_a_file_is_called_model_yaml() -> None:
    assert source({"yaml_file": "my.yaml"}) == "my.yaml"
    assert source({"yaml_file": None}) == source({}) == "model YAML"
