"""What code a result comes from: an edit that can change it changes the digest, and nothing else does."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

import gam_yolo
from gam_yolo import UserError, identity, registry
from gam_yolo.discovery import _import_file
from gam_yolo.io import file_sha256

GATE = """
from torch import nn
from gam_yolo import register
from {stem}_math import scale

@register(name="{stem}")
class Gate(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()

    def forward(self, x):
        from {stem}_lazy import shift
        return shift(scale(x))
"""


def model_of(*blocks: str) -> dict[str, object]:
    return {"backbone": [[-1, 1, "Conv", [8]], *([-1, 1, name, []] for name in blocks)], "head": []}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's block `udgate`, with two helpers beside its file, one of them imported in `forward` only."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "udgate.py").write_text(GATE.format(stem="udgate"))
    (tmp_path / "udgate_math.py").write_text("def scale(x):\n    return 2 * x\n")
    (tmp_path / "udgate_lazy.py").write_text("def shift(x):\n    return x + 1\n")
    (tmp_path / "other.py").write_text("a = 1\n")
    _import_file(tmp_path / "udgate.py")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("udgate")]:
        sys.modules.pop(name)
    registry._registered.pop("udgate")


@pytest.mark.parametrize("edited", ["udgate.py", "udgate_math.py", "udgate_lazy.py"])
def test_an_edit_of_a_block_or_of_what_it_imports_changes_its_digest_alone(folder: Path, edited: str) -> None:
    model = model_of("GAM", "udgate")
    before = identity.block_sources(model)
    assert list(before) == ["GAM", "udgate"]
    (folder / "other.py").write_text("a = 2\n")
    assert identity.block_sources(model) == before
    text = (folder / edited).read_text()
    (folder / edited).write_text(text.replace("2 * x", "0 * x").replace("x + 1", "x + 0").replace("shift(s", "0 * (s"))
    assert (folder / edited).read_text() != text
    after = identity.block_sources(model)
    assert after["udgate"] != before["udgate"]
    assert after["GAM"] == before["GAM"]
    assert identity.block_sources(model_of("GAM")) == {"GAM": before["GAM"]}


def test_another_release_of_a_package_that_a_block_imports_changes_its_digest_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of timm, where the block takes a layer from it."""
    (folder / "udgate_math.py").write_text("from udtimm.layers import factor\n\ndef scale(x):\n    return factor * x\n")
    site = folder / "site-packages"
    (site / "udtimm").mkdir(parents=True)
    (site / "udtimm/__init__.py").write_text("")
    (site / "udtimm/layers.py").write_text("factor = 2\n")
    info = site / "ud_timm-1.0.dist-info"
    info.mkdir()
    (info / "top_level.txt").write_text("udtimm\n")
    model = model_of("GAM", "udgate")

    def digests(release: str) -> dict[str, str]:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ud-timm\nVersion: {release}\n")
        identity._distributions.cache_clear()
        importlib.invalidate_caches()
        return identity.block_sources(model)

    absent = identity.block_sources(model)
    sys.path.insert(0, str(site))  # the fixture restores it
    monkeypatch.setattr(identity, "_installed", lambda: frozenset([site]))
    try:
        first, upgraded = digests("1.0"), digests("1.1")
        assert first == digests("1.0")
        assert {name for name in first if first[name] != upgraded[name]} == {"udgate"}
        assert {name for name in first if first[name] != absent[name]} == {"udgate"}
    finally:
        identity._distributions.cache_clear()


@pytest.mark.parametrize("edited", ["udgate.py", "udgate_math.py", "udgate_lazy.py"])
def test_code_that_was_edited_after_its_import_is_not_compared(folder: Path, edited: str) -> None:
    """A notebook would run the old code, and store its predictions as those of the new code, for later processes."""
    weights = [folder / "a.pt", folder / "b.pt"]
    for number, file in enumerate(weights):
        file.write_bytes(bytes([number]))
    with pytest.raises(UserError, match="no ground truth"):
        gam_yolo.compare(weights)
    file = folder / edited
    file.write_text(f"{file.read_text()}\n")
    later = file.stat().st_mtime + 5
    os.utime(file, (later, later))
    with pytest.raises(UserError, match=rf"{edited}: has changed since this process imported it, .* Restart Python"):
        gam_yolo.compare(weights)
    os.utime(file, (later - 10, later - 10))  # as if the process were a new one
    with pytest.raises(UserError, match="no ground truth"):
        gam_yolo.compare(weights)


def test_an_edit_changes_the_digest_of_a_checkpoint_with_the_block_alone(folder: Path) -> None:
    with_block, without = nn.Sequential(registry.get("udgate")(8)), nn.Sequential(nn.Conv2d(3, 8, 1))
    before = [identity.checkpoint_code_digest(model) for model in (with_block, without)]
    (folder / "udgate_math.py").write_text("def scale(x):\n    return 0 * x\n")
    after = [identity.checkpoint_code_digest(model) for model in (with_block, without)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_our_blocks_are_followed_to_their_parts_and_not_to_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def recorded(file: Path) -> str:
        read.append(file.name)
        return file_sha256(file)

    monkeypatch.setattr(identity, "file_sha256", recorded)
    identity.block_sources(model_of("GAM"))
    assert {"gam.py", "parts.py"} <= set(read)
    assert not {"cbam.py", "se.py", "registry.py"} & set(read)


@pytest.mark.parametrize(
    "statement", ["from {}_parts import deep", "from {}_parts.deep import x", "import {}_parts.deep"]
)
def test_an_edit_within_a_users_package_changes_the_digest(folder: Path, statement: str) -> None:
    package = folder / "udgate_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("from . import deeper\nx = 1\n")
    (package / "deeper.py").write_text("y = 1\n")
    (package / "unused.py").write_text("z = 1\n")
    (folder / "udgate_math.py").write_text(f"{statement.format('udgate')}\n")
    importlib.invalidate_caches()
    digests = [identity.block_sources(model_of("udgate"))]
    for file, counts in (("deep", True), ("deeper", True), ("unused", False)):
        (package / f"{file}.py").write_text((package / f"{file}.py").read_text().replace("1", "2"))
        digests.append(identity.block_sources(model_of("udgate")))
        assert (digests[-1] != digests[-2]) is counts, file


def test_a_block_in_the_head_counts() -> None:
    assert list(identity.block_sources({"backbone": [], "head": [[-1, 1, "SE", []]]})) == ["SE"]


def test_a_block_in_an_argument_and_the_network_around_it_count() -> None:
    row = [-1, 1, "AttentionResNet", ["nc", "resnet18", {"block": "CBAM"}]]
    assert list(identity.block_sources({"backbone": [row], "head": []})) == ["CBAM", "AttentionResNet"]


CELLS = {
    "a method": "class Cell(nn.Module):\n    def forward(self, x):\n        return {} * x\n",
    "a default": "class Cell(nn.Module):\n    def forward(self, x, by={}):\n        return by * x\n",
    "a keyword's default": "class Cell(nn.Module):\n    def forward(self, x, *, by={}):\n        return by * x\n",
    "a base class": "class B(nn.Module):\n    def forward(self, x):\n        return {} * x\nclass Cell(B):\n    pass\n",
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_class_without_a_file_is_identified_by_its_methods(cell: str) -> None:
    """As a notebook's cells define them."""
    digests = []
    for factor in (1, 2, 2):
        names: dict[str, type[nn.Module]] = {}
        text = CELLS[cell].format(factor)
        exec(compile(text, "<cell>", "exec"), {"nn": nn, "__name__": "cell_without_file"}, names)  # noqa: S102
        digests.append(identity.checkpoint_code_digest(names["Cell"]()))
    assert digests[1] == digests[2]
    assert digests[0] != digests[1]


def test_a_notebooks_class_counts_with_the_file_of_its_base_class(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = type("Cell", (registry.get("udgate"),), {"__module__": "cell_without_file"})
    monkeypatch.setitem(registry._registered, "Cell", cell)
    before = identity.block_sources(model_of("Cell"))
    assert identity.block_sources(model_of("Cell")) == before
    (folder / "udgate_lazy.py").write_text("def shift(x):\n    return x\n")
    assert identity.block_sources(model_of("Cell")) != before


def test_a_class_of_torch_is_identified_by_the_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registered, "Swish", nn.Softmax2d)
    assert identity.block_sources(model_of("Swish")) == {"Swish": ""}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (f"udgate_fast{EXTENSION_SUFFIXES[0]}", True),  # compiled beside the block
        ("udgate_fast.py", True),  # a file that Python could not read either
        ("site/udgate_fast.py", False),  # an installed package does not change while its version stands still
    ],
)
def test_an_optional_import_counts_once_it_is_found_beside_the_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    (folder / "site").mkdir()
    sys.path.append(str(folder / "site"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder / "site"))
    identity._installed.cache_clear()
    (folder / "udgate_math.py").write_text(
        "def scale(x):\n    try:\n        import udgate_fast\n    except Exception:\n        return x\n"
    )
    digests = []
    for content in (None, b"\0def = 1", b"\0def = 2"):
        if content:
            (folder / name).write_bytes(content)
        importlib.invalidate_caches()
        digests.append(identity.block_sources(model_of("udgate"))["udgate"])
    identity._installed.cache_clear()
    assert len({*digests}) == (3 if counts else 1)


def test_the_environment_holds_versions_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = identity.environment()
    assert all(before[name] for name in ("torch", "torchvision", "ultralytics", "numpy", "opencv", "pillow"))
    info = tmp_path / "albumentations-1.4.99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: albumentations\nVersion: 1.4.99\n")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("LANG_OF_MINE", "1")
    changed = identity.changes(before, identity.environment())
    assert any(line.endswith("and is 1.4.99") and line.startswith("albumentations was ") for line in changed)
    assert "NVIDIA_TF32_OVERRIDE was not set and is 1" in changed
    assert len(changed) == 2


def test_the_environment_names_each_package_as_an_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in identity.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(identity, "PACKAGES", ("gam-yolo", "no-such-package"))
    assert identity.environment() == {
        "gam_yolo": version("gam-yolo"),
        "no_such_package": "",
        "torch": torch.__version__,
        "opencv": cv2.__version__,
    }


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"b": 2}, ["a was 1 and is not set", "b was not set and is 2"]),
        ({"a": ""}, {"a": 0}, ["a was not set and is 0"]),
        ({"x": {"y": {"z": 1}}}, {"x": {"y": {"z": 2}}}, ["x: y: z was 1 and is 2"]),
        ({"model": {"nc": 1}}, {"model": {"nc": 2}}, ["model"]),
        ({"x": {"y": 1}}, {"x": 3}, ["x"]),
        ({"x": 3}, {"x": [1]}, ["x"]),
        ({"digest": "0" * 40}, {"digest": "1" * 40}, ["digest"]),
        ({"digest": "0" * 30}, {"digest": "1" * 30}, [f"digest was {'0' * 30} and is {'1' * 30}"]),
    ],
)
def test_changes_are_said_in_words(before: dict[str, object], after: dict[str, object], says: list[str]) -> None:
    assert identity.changes(before, after) == says


def test_an_edit_of_ultralytics_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an editable installation, whose version does not change."""
    package = tmp_path / "framework_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "augment.py").write_text("p = 0.5\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "framework_of_mine", raising=False)
    digest = identity._package_digest.__wrapped__
    before = digest("framework_of_mine")
    (package / "augment.py").write_text("p = 0.6\n")
    assert digest("framework_of_mine") != before
