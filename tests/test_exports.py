"""The table of exports is that of its figures, and an export is compared with PyTorch as the table says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import exports
import pytest
from PIL import Image


def test_the_documented_tables_are_those_of_the_figures(root: Path) -> None:
    content = json.loads((root / "docs/results/exports.json").read_text("utf-8"))
    text = (root / "docs/export.md").read_text("utf-8")
    assert exports.tables(content) == text.partition("<!-- exports -->\n")[2].partition("\n<!-- /exports -->")[0]


def test_every_exported_block_gave_the_outputs_of_pytorch(root: Path) -> None:
    """Formats that keep single precision agree to rounding, with every model that they could export."""
    content = json.loads((root / "docs/results/exports.json").read_text("utf-8"))
    exact = ("TorchScript", "ONNX", "ONNX, dynamic", "OpenVINO in float32")
    for name, found in (content["built"] | content["trained"] | content["tuned"]).items():
        for kind in exact:
            if kind in found:
                assert "problem" not in found[kind], (name, kind)
                assert found[kind]["score"] < 1e-4, (name, kind)
                assert found[kind]["box"] < 0.1, (name, kind)
    assert set(content["built"]) == set(exports.BUILT)


def test_tuned_models_detect_have_blocks_that_do_something_and_lose_nothing_by_export(root: Path) -> None:
    """Without both, a difference of 0 would say nothing of the block."""
    tuned = json.loads((root / "docs/results/exports.json").read_text("utf-8"))["tuned"]
    assert set(tuned) == set(exports.TUNED)
    for name, found in tuned.items():
        assert found["PyTorch"]["AP"] > 0.3, name
        assert min(found["PyTorch"]["change"]) > 0.01, name
        for kind in ("TorchScript", "ONNX", "OpenVINO in float32", "NCNN", "MNN", "LiteRT"):
            if (name, kind) == ("ema", "NCNN"):
                assert "problem" in found[kind]  # as docs/export.md says
            else:
                assert found[kind]["AP"] == pytest.approx(found["PyTorch"]["AP"], abs=0.001), (name, kind)


def test_a_part_of_the_images_is_at_equal_distances_by_name(root: Path, tmp_path: Path) -> None:
    del root  # scripts/ is needed
    (tmp_path / "set/images").mkdir(parents=True)
    for number in reversed(range(25)):
        Image.new("RGB", (8, 8)).save(tmp_path / f"set/images/{number:02}.png")
    order = [f"{number:02}" for number in range(25)]
    data = tmp_path / "data.yaml"
    data.write_text(json.dumps({"path": str(tmp_path / "set"), "train": "images", "val": "images", "names": ["thing"]}))
    for images, expected in ((10, order[0:20:2]), (99, order)):
        part = exports.part(argparse.Namespace(data=str(data), images=images), tmp_path)
        chosen = json.loads(Path(part).read_text("utf-8"))
        assert [Path(line).stem for line in (tmp_path / chosen["val"]).read_text().split()] == expected
        assert list(chosen["names"].values() if isinstance(chosen["names"], dict) else chosen["names"]) == ["thing"]


def test_a_reduced_precision_costs_few_points_of_map_and_saves_almost_half_of_the_size(root: Path) -> None:
    content = json.loads((root / "docs/results/exports.json").read_text("utf-8"))
    found = next(iter(content["trained"].values()))
    reduced = {kind: one for kind, one in found.items() if "quantize" in exports.FORMATS[kind] and "problem" not in one}
    assert len(reduced) >= 5
    for kind, one in reduced.items():
        assert abs(one["AP"] - found["PyTorch"]["AP"]) < 0.03, kind
        assert one["bytes"] < 0.6 * found["ONNX"]["bytes"], kind
    assert all(one["ms"] > 1 and one["torch_ms"] > 1 for one in found.values() if "problem" not in one)


def test_an_export_is_measured(root: Path, tmp_path: Path, shared: Path) -> None:
    del root  # scripts/ is needed
    (tmp_path / "images").mkdir()
    for file in sorted((shared / "data/coco/val2017").glob("*.jpg"))[:2]:
        Image.open(file).convert("RGB").save(tmp_path / "images" / file.name)
    data = tmp_path / "data.yaml"
    data.write_text(json.dumps({"path": str(tmp_path), "train": "images", "val": "images", "names": ["thing"]}))
    options = argparse.Namespace(trained=[], weights=str(shared / "weights/yolov8n.pt"), data=str(data))
    plain, gam = (exports.measure(name, "TorchScript", options) for name in ("no block", "GAM inside C2f"))
    assert gam["score"] < 1e-4
    assert gam["bytes"] > plain["bytes"]
    assert gam["ms"] > 0
    assert gam["torch_ms"] > 0
    broken = exports.measure("SE", "TorchScript", argparse.Namespace(**{**vars(options), "data": "missing.yaml"}))
    assert "missing.yaml" in broken["problem"]


def test_a_converter_that_ends_its_process_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, json\n"
        "for name in sys.argv[sys.argv.index('--measure') + 2:]:\n"
        "    os.abort() if name == 'b' else print(json.dumps([name, {'box': 1}]), flush=True)\n"
    )
    monkeypatch.setattr(exports, "__file__", str(script))
    options = argparse.Namespace(trained=[], weights="w.pt", data="d.yaml", tune="", folder="f", images=1)
    found = dict(exports.measured("ONNX", ["a", "b", "c"], options))
    assert found["a"] == found["c"] == {"box": 1}
    assert "ended with status -6" in found["b"]["problem"]
