"""The gates that are read: of every registered block, of Ultralytics' own, and of users' blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import modules

from gam_yolo import BLOCKS, GAM, UserError
from gam_yolo.attention.gates import BY_CHANNEL, BY_POSITION, attention_blocks, read_gates

X = torch.randn(2, 64, 14, 11, generator=torch.Generator().manual_seed(0))


def product(gates: dict[str, Tensor]) -> Tensor:
    out = X
    for gate in gates.values():
        out = out * gate
    return out


@pytest.mark.parametrize("name", [name for name in BLOCKS if BLOCKS[name].__module__.startswith("gam_yolo.")])
def test_the_input_times_the_gates_of_a_block_is_its_output(name: str) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name](64).eval()
    gates, y = read_gates(block, X)
    expected = X + product(gates) if name == "BAM" else product(gates)  # BAM is residual by definition
    torch.testing.assert_close(y, expected)
    with torch.inference_mode():  # what runs in production, with its shortcuts
        torch.testing.assert_close(block(X), y)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("SE", {"channel": (2, 64, 1, 1)}),
        ("CBAM", {"channel": (2, 64, 1, 1), "spatial": (2, 1, 14, 11)}),
        ("CoordAtt", {"rows": (2, 64, 14, 1), "columns": (2, 64, 1, 11)}),
        ("GAM", {"channel": (2, 64, 14, 11), "spatial": (2, 64, 14, 11)}),
        ("EMA", {"gate": (2, 64, 14, 11)}),
    ],
)
def test_gates_are_named_after_what_they_select(name: str, shapes: dict[str, Any]) -> None:
    gates, _ = read_gates(BLOCKS[name](64).eval(), X)
    assert {key: tuple(gate.shape) for key, gate in gates.items()} == shapes


@pytest.mark.parametrize("preset", ["paper", "paper-grouped", "forks", "strips"])
def test_gams_gates_are_what_its_branches_return(preset: str) -> None:
    block = GAM(64, preset=preset, start="zero", residual=True).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    gates, _ = read_gates(block, X)
    with torch.no_grad():
        channel = block.get_submodule("channel")(X).clone()
        spatial = block.get_submodule("spatial")(channel * X)
    torch.testing.assert_close(gates["channel"], channel)
    torch.testing.assert_close(gates["spatial"], spatial)


def test_ultralytics_own_cbam_is_found_and_read() -> None:
    block = modules.CBAM(64).eval()
    assert [*attention_blocks(nn.Sequential(nn.Conv2d(64, 64, 1), block))] == ["1"]
    gates, y = read_gates(block, X)
    assert {key: tuple(gate.shape) for key, gate in gates.items()} == {
        "channel": (2, 64, 1, 1),
        "spatial": (2, 1, 14, 11),
    }
    torch.testing.assert_close(product(gates), y)


class Own(nn.Module):
    """A user's block that says what its gates are, as no product shows them."""

    def __init__(self, gates: Any = None) -> None:
        super().__init__()
        self.given = gates

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,bc->bchw", x, x.mean((2, 3)).sigmoid())

    def gates(self, x: Tensor) -> Any:
        return self.given or {"channel": x.mean((2, 3), keepdim=True).sigmoid()}


def test_a_block_joins_by_a_method_gates() -> None:
    assert [*attention_blocks(nn.Sequential(Own()))] == ["0"]
    gates, y = read_gates(Own(), X)
    torch.testing.assert_close(product(gates), y)


@pytest.mark.parametrize("given", [[1], {"channel": 0.5}, {"channel": torch.rand(1, 63, 1, 1)}])
def test_gates_of_a_wrong_kind_are_reported(given: Any) -> None:
    with pytest.raises(UserError, match=r"Own\.gates\(x\): returned .* Expected a dict"):
        read_gates(Own(given), X)


def test_another_block_is_shown_by_its_output_over_its_input() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x[:, :32] * 2, -x[:, 32:]), 1)

    gates, _ = read_gates(Twice(), X)
    assert set(gates) == {BY_POSITION, BY_CHANNEL}
    torch.testing.assert_close(gates[BY_CHANNEL][:, :, 0, 0], torch.tensor([2.0] * 32 + [1.0] * 32).expand(2, 64))


def test_reading_leaves_no_trace_in_the_block() -> None:
    block = GAM(64).eval()
    before = {key: value.clone() for key, value in block.state_dict().items()}
    read_gates(block, X)
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())
    assert not any(module._forward_hooks for module in block.modules())
