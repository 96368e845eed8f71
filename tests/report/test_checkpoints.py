from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

from gam_yolo import ultralytics_api
from gam_yolo.comparing import compare
from gam_yolo.errors import UserError
from gam_yolo.evaluation import measure, read_coco, read_detections
from gam_yolo.report import cost, run
from gam_yolo.report.detection import DetectorValidation
from gam_yolo.report.predictions import Settings, collect
from gam_yolo.report.result import Comparison
from gam_yolo.report.variants import Variant

from .conftest import DataSet, run_compare

N = 16  # images: enough to see that all is in place


@pytest.fixture(scope="module")
def coco(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A few images of COCO val as a dataset YAML, and their part of the annotation file."""
    folder = tmp_path_factory.mktemp("coco")
    content = json.loads((shared / "data/coco/annotations/instances_val2017.json").read_text())
    images = content["images"][:N]
    kept = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in kept]
    categories = sorted(content["categories"], key=lambda c: c["id"])
    (folder / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    index = {c["id"]: i for i, c in enumerate(categories)}
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for image in images:
        shutil.copy(shared / "data/coco/val2017" / image["file_name"], folder / "images")
        lines = []
        for a in annotations:
            if a["image_id"] == image["id"] and not a["iscrowd"]:
                x, y, w, h = a["bbox"]
                width, height = image["width"], image["height"]
                lines.append(
                    f"{index[a['category_id']]} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
                )
        (folder / "labels" / image["file_name"]).with_suffix(".txt").write_text("".join(lines))
    names = json.dumps([c["name"] for c in categories])
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {names}\n")
    return folder / "data.yaml", folder / "truth.json"


def test_the_report_says_how_far_the_blocks_have_moved_and_where_they_have_not(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of GAM as it starts, and two whose raw gates of row 16 are 1.3 and 1.1 everywhere."""
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    weights = shared / "weights" / "yolov8n.pt"
    paths: dict[str, list[Path]] = {"moved": [], "still": []}
    for name, gates in (("moved", (1.3, 1.1)), ("still", (1.0, 1.01))):
        for gate in gates:
            model = YOLO("yolov8n-gam.yaml").load(weights)
            torch.nn.init.constant_(model.model.model[16].channel[2].bias, gate)
            paths[name].append(tmp_path / f"{name} {gate}.pt")
            model.save(paths[name][-1])
            content = torch.load(paths[name][-1], weights_only=False)
            seed = 0 if name == "moved" else len(paths[name])
            torch.save({**content, "train_args": {**(content.get("train_args") or {}), "seed": seed}}, paths[name][-1])
    found = compare(
        {"plain": weights, **paths}, data=coco[0], imgsz=64, replicates=100, device="cpu", output=tmp_path / "report"
    )
    assert [note.partition(". They")[0] for note in found.notes if "the same seed" in note] == [
        "Warning: 2 checkpoints of moved were trained with the same seed, 0"
    ]
    assert found.variants["plain"].movement == ()
    blocks = found.variants["moved"].movement
    assert [m.block for m in blocks] == ["row 16 (GAM)", "row 20 (GAM)", "row 24 (GAM)"]
    assert (blocks[0].change, blocks[0].low, blocks[0].high) == pytest.approx(
        (0.2, 1.2, 1.2), rel=3e-3
    )  # saved in half precision
    assert blocks[1].change < 5e-4
    notes = [note for note in found.notes if "still the identity" in note]
    assert len(notes) == 1
    still = max(m.change for m in found.variants["still"].movement)
    assert still == pytest.approx(0.005, rel=0.1)
    assert notes[0].startswith(f"The blocks of still change their input by at most {100 * still:.2g} %.")
    assert Comparison.load(tmp_path / "report" / "report.json").variants["moved"].movement == blocks
    page, text = ((tmp_path / "report" / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "| moved | row 16 (GAM) | 20 % | 1.20 to 1.20 |" in text
    assert f"| still | row 16 (GAM) | {100 * still:.2g} %, still the identity | 1.00 to 1.00 |" in text
    assert page.count("still the identity</span>") == 5
    assert "How much the blocks change their input" in page


def test_checkpoints_and_run_folders_are_validated_once(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, gt = coco
    monkeypatch.setattr(cost, "_ROUNDS", 5)
    trained = tmp_path / "runs" / "plain"
    (trained / "weights").mkdir(parents=True)
    shutil.copy(shared / "weights/yolov8n.pt", trained / "weights" / "best.pt")
    (trained / "args.yaml").write_text("seed: 7\n")
    (trained.parent / "log.txt").write_text(
        2 * "WARNING NMS time limit 2.800s exceeded\n"
    )  # as a study's run leaves it
    (trained / "results.csv").write_text(
        "epoch,time,metrics/mAP50(B),metrics/mAP50-95(B)\n1,10,0.3,0.2\n2,20,0.5,0.4\n3,30,0.4,0.3\n"
    )
    arguments = (trained, shared / "weights/yolov5nu.pt", "--data", data, "--gt", gt, "-o", tmp_path / "out")
    options = ("--imgsz", 320, "--replicates", 100, "--device", "cpu")
    assert run_compare(*arguments, *options).exit_code == 0
    first = json.loads((tmp_path / "out/report.json").read_text())
    plain, other = first["variants"]
    assert (plain["name"], other["name"]) == ("plain", "yolov5nu")

    # Its numbers are those of the evaluator on the predictions left in the folder.
    truth = read_coco(gt)
    (stored,) = [p for p in (tmp_path / "out/predictions/plain").iterdir() if not p.name.endswith("protocol.json")]
    expected = measure(truth, read_detections(stored, truth), np.ones((N, 1)))[0, :, 0]
    assert plain["metrics"]["AP"]["value"] == pytest.approx(expected[0])
    assert 0.2 < plain["metrics"]["AP50"]["value"] < 0.9

    run_ = plain["runs"][0]
    assert abs(run_["ultralytics"]["AP50"] - run_["ours"]["AP50"]) < 0.1  # other rules, the same predictions
    assert run_["training"] == {
        "seed": 7,
        "epochs": [1, 2, 3],
        "AP": [0.2, 0.4, 0.3],
        "best": {"epoch": 2, "AP": 0.4, "AP50": 0.5},
        "seconds": 30,
    }
    said = [note for note in first["notes"] if "non-maximum suppression ran out of time 2 times" in note]
    assert [note.startswith(f"During the training of plain ({trained}") for note in said] == [True]
    assert not any(note.startswith("Warning") for note in first["notes"])
    assert first["protocol"]["imgsz"] == 320
    assert plain["cost"]["parameters"] == 3_157_200  # before fusing, as Ultralytics counts it
    assert other["cost"]["parameters"] == 2_654_816
    assert 0 < plain["cost"]["latency_median"] <= plain["cost"]["latency_p95"]
    page = (tmp_path / "out/report.html").read_text()
    for heading in ("Accuracy against cost", "Training", "Ultralytics' own numbers"):
        assert f"<h2>{heading}</h2>" in page

    def fail(*_: object) -> None:
        raise AssertionError("validated again")

    monkeypatch.setattr(DetectorValidation, "validate", fail)
    assert run_compare(*arguments, *options).exit_code == 0
    second = json.loads((tmp_path / "out/report.json").read_text())
    assert second["variants"][0]["metrics"] == first["variants"][0]["metrics"]
    assert second["variants"][0]["runs"] == first["variants"][0]["runs"]
    for changed in (("--imgsz", 256), ("--imgsz", 320, "--batch", 5)):
        with pytest.raises(AssertionError, match="validated again"):
            run_compare(*arguments, *options[2:], *changed)

    # Another kind of device rounds otherwise: what it made counts if no device is asked for, and the report says so.
    protocol = stored.with_suffix(".protocol.json")
    record = json.loads(protocol.read_text())
    assert record["device"] == "cpu"
    protocol.write_text(json.dumps({**record, "device": "cuda"}))
    with pytest.raises(AssertionError, match="validated again"):
        run_compare(*arguments, *options)
    assert run_compare(*arguments, *options[:4]).exit_code == 0
    third = json.loads((tmp_path / "out/report.json").read_text())
    assert third["variants"][0]["metrics"] == first["variants"][0]["metrics"]
    said, before = ([n for n in report["notes"] if "devices of several kinds" in n] for report in (third, first))
    assert (len(said), before) == (1, [])
    assert f"{trained}/weights/best.pt on cuda, " in said[0]


def test_a_detector_that_finds_nothing_scores_nothing(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, gt = coco
    monkeypatch.setattr(cost, "_ROUNDS", 5)
    dead = YOLO(shared / "weights/yolov8n.pt")
    for branch in dead.model.model[-1].cv3:
        branch[-1].bias.data.fill_(-30.0)  # as a training that diverged leaves it: no class is ever likely
    dead.save(tmp_path / "dead.pt")
    arguments = (
        shared / "weights/yolov5nu.pt",
        tmp_path / "dead.pt",
        "--data",
        data,
        "--gt",
        gt,
        "-o",
        tmp_path / "out",
    )
    assert run_compare(*arguments, "--imgsz", 160, "--replicates", 100, "--device", "cpu").exit_code == 0
    _, dead_ = json.loads((tmp_path / "out/report.json").read_text())["variants"]
    assert dead_["metrics"]["AP"]["value"] == 0
    assert (tmp_path / "out/report.html").is_file()


def test_images_of_one_name_in_two_folders_are_kept_apart(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation of checkpoints gives the same figures where the images have names of their own."""
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    content, names = json.loads(coco[1].read_text()), json.dumps([*YOLO(shared / "weights/yolov8n.pt").names.values()])
    figures = []
    for suffixes in (("", ""), ("e", "o")):
        folder, images = tmp_path / f"set{suffixes[0]}", []
        for i, image in enumerate(content["images"]):
            name = f"{('even', 'odd')[i % 2]}/{i // 2:03}{suffixes[i % 2]}.jpg"
            for kind, ending in (("images", ".jpg"), ("labels", ".txt")):
                target = (folder / kind / name).with_suffix(ending)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy((coco[0].parent / kind / image["file_name"]).with_suffix(ending), target)
            images.append({**image, "file_name": name})
        (folder / "truth.json").write_text(json.dumps({**content, "images": images}))
        (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {names}\n")
        found = compare(
            [shared / "weights/yolov8n.pt", shared / "weights/yolov5nu.pt"],
            data=folder / "data.yaml",
            gt=folder / "truth.json",
            imgsz=160,
            batch=1,
            replicates=100,
            device="cpu",
            output=folder / "out",
        )
        figures.append({name: [m.value for m in v.metrics.values()] for name, v in found.variants.items()})
        assert not found.warnings, found.warnings
    assert repr(figures[0]) == repr(figures[1])  # to the bit
    assert figures[0]["yolov8n"][0] > 0.1


def test_a_detector_of_other_classes_is_rejected(shared: Path, data_set: DataSet, tmp_path: Path) -> None:
    a = data_set.predictions("three", 0.5, 1)
    with pytest.raises(UserError, match=r"yolov8n\.pt: detects 'person', which is not one of the 3 classes"):
        run_compare(a, shared / "weights/yolov8n.pt", "--data", data_set.yaml, "-o", tmp_path, "--device", "cpu")


def test_detections_do_not_depend_on_the_clock(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nms = sys.modules[ultralytics_api.get("non_max_suppression").__module__]
    truth = read_coco(coco[1])
    settings = Settings(str(coco[0]), "val", 320, 8, "cpu")

    def predict(name: str) -> list[float]:
        variant = Variant("a", (shared / "weights/yolov8n.pt",))
        ((found,),) = collect([variant], DetectorValidation(truth, settings), tmp_path / name, print).values()
        return [*found.predictions.score.tolist(), found.own["metrics/mAP50(B)"]]

    calm = predict("calm")
    defaults = nms.non_max_suppression.__defaults__
    clock = itertools.count(0, 10)
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: next(clock)))  # ten seconds go by for each image
    assert predict("busy") == calm
    assert next(clock) > 10 * N
    assert nms.non_max_suppression.__defaults__ == defaults  # no setting is changed for good


def test_the_time_limit_is_back_when_the_last_of_several_threads_is_through() -> None:
    function = ultralytics_api.get("non_max_suppression")
    before = function.__defaults__
    first, second = ultralytics_api.unlimited_nms(), ultralytics_api.unlimited_nms()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # not the one that came last, as threads may have it
    assert math.inf in function.__defaults__
    assert len(function.__defaults__) == len(before)
    second.__exit__(None, None, None)
    assert function.__defaults__ == before


def test_an_odd_image_size_is_rounded_as_ultralytics_does(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_ROUNDS", 2)
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    said: list[str] = []
    found = compare(
        weights, data=coco[0], gt=coco[1], imgsz=33, device="cpu", replicates=100, output=tmp_path, progress=said.append
    )
    assert found.protocol.imgsz == 64
    assert "image size 33 is rounded up to 64, a multiple of 32, as Ultralytics does" in said
    assert all(variant.cost and variant.cost.latency_median for variant in found.variants.values())


def test_a_cost_that_cannot_be_measured_costs_no_report(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(run, "measure_costs", fail)
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    found = compare(weights, data=coco[0], gt=coco[1], imgsz=64, device="cpu", replicates=100, output=tmp_path)
    assert "The cost could not be measured (out of memory)." in found.notes
    assert found.variants["yolov8n"].cost is None
    assert (tmp_path / "report.html").is_file()


def test_annotations_in_another_layout_are_warned_of(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(coco[1].read_text())
    for annotation in content["annotations"]:  # half the size: too small a change for the reader to reject
        annotation["bbox"] = [value / 2 for value in annotation["bbox"]]
    halved = tmp_path / "halved.json"
    halved.write_text(json.dumps(content))
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    capfd.readouterr()
    lines: list[str] = []
    found = compare(weights, data=coco[0], gt=halved, imgsz=160, device="cpu", replicates=100, progress=lines.append)
    assert capfd.readouterr() == ("", "")  # Ultralytics' log and progress bar, and the folder it validated in
    assert sum("validating on" in line for line in lines) == 2
    (warning,) = found.warnings
    assert re.match(
        r"Warning: mAP 50 of yolov8n \(.*\) is \d+\.\d here and \d+\.\d by Ultralytics\. "
        r"The same holds for 1 other run\. Two definitions",
        warning,
    )


def test_images_that_ultralytics_leaves_out_are_no_images_without_detections(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path
) -> None:
    """It validates without images whose label file it rejects, though the objects are read from elsewhere."""
    shutil.copytree(coco[0].parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.cache"))
    (tmp_path / "data.yaml").write_text(coco[0].read_text().replace(str(coco[0].parent), str(tmp_path / "set")))
    broken = sorted((tmp_path / "set/labels").iterdir())[3]
    broken.write_text("99 .5 .5 .1 .1\n")
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    with pytest.raises(
        UserError, match=rf"leaves out 1 of the {N} images, .*; the first is .*{broken.stem}.jpg. Correct"
    ):
        compare(weights, data=tmp_path / "data.yaml", gt=coco[1], imgsz=64, device="cpu", replicates=100)


def test_annotated_images_that_are_not_validated_do_not_count(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path
) -> None:
    """A dataset YAML may have a part of the images that `--gt` has: a detector cannot find what it does not see."""
    content = json.loads(coco[1].read_text())
    used = content["images"][: N // 2]
    files = "".join(f"{coco[0].parent}/images/{image['file_name']}\n" for image in used)
    (tmp_path / "val.txt").write_text(files)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(coco[0].read_text().replace("val: images", f"val: {tmp_path}/val.txt"))
    part = tmp_path / "part.json"
    ids = {image["id"] for image in used}
    content |= {"images": used, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}
    part.write_text(json.dumps(content))
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    whole, expected = (
        compare(weights, data=yaml, gt=gt, imgsz=160, device="cpu", replicates=100, output=tmp_path / "out")
        for gt in (coco[1], part)
    )
    assert (whole.data.images, expected.data.images) == (N // 2, N // 2)
    assert whole.variants["yolov8n"].metrics["AP"].value == expected.variants["yolov8n"].metrics["AP"].value
    assert f"{N // 2} images whose file is missing" in whole.notes


@pytest.mark.parametrize("device", ["7", "foo", "cuda:9", "cpu:1", "0,99"])
def test_a_device_that_is_not_there_is_a_one_line_error(
    shared: Path, coco: tuple[Path, Path], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DetectorValidation, "validate", lambda *_: pytest.fail("went to work"))
    weights = {name: shared / f"weights/{name}.pt" for name in ("yolov8n", "yolov5nu")}
    before = dict(os.environ)
    with pytest.raises(UserError, match=rf"^device '{device}' is not available\. Expected 'cpu', 'mps', or numbers"):
        compare(weights, data=coco[0], gt=coco[1], device=device)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (torch.nn.Conv2d(3, 3, 1), "cannot be loaded as a checkpoint"),
        ({"model": torch.nn.Conv2d(3, 3, 1)}, "holds a Conv2d. Expected a detection model"),
        ({"weights": 1}, "cannot be loaded as a checkpoint"),
        ([1], "cannot be loaded as a checkpoint"),
    ],
)
def test_a_checkpoint_without_a_detector_is_a_one_line_error(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, match: str
) -> None:
    monkeypatch.setattr(DetectorValidation, "validate", lambda *_: pytest.fail("went to work"))
    torch.save(content, tmp_path / "conv.pt")
    with pytest.raises(UserError, match=f"conv.pt: {match}"):
        compare({"a": shared / "weights/yolov8n.pt", "b": tmp_path / "conv.pt"}, data=coco[0], device="cpu")


GATE = """
from torch import nn
from gam_yolo import register

@register
class MyGate(nn.Module):
    def __init__(self, c):
        super().__init__()
    def forward(self, x):
        return x * {factor}
"""


def test_stored_predictions_of_other_code_or_images_are_not_used(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path
) -> None:
    """A block edited, or an image replaced by one of the same size, changes what a checkpoint predicts."""
    data = tmp_path / "set" / "data.yaml"
    shutil.copytree(coco[0].parent, data.parent)
    data.write_text(data.read_text().replace(str(coco[0].parent), str(data.parent)))
    block, script = tmp_path / "my_gate.py", tmp_path / "compare.py"
    script.write_text(
        "import sys, gam_yolo\n"
        "from pathlib import Path\n"
        "from ultralytics import YOLO\n"
        "if not Path('gate.pt').exists():\n"
        "    placed = gam_yolo.place('yolov8n.yaml', block='MyGate', at='head-inputs')\n"
        "    placed.save('yolov8n-gate.yaml')\n"
        "    YOLO('yolov8n-gate.yaml').load(sys.argv[1]).save('gate.pt')\n"
        "said = []\n"
        "result = gam_yolo.compare({'plain': sys.argv[1], 'gate': 'gate.pt'}, data='set/data.yaml', imgsz=160,\n"
        "                          replicates=100, device='cpu', output='out', progress=said.append)\n"
        "print(sum('stored already' in line for line in said), result.variants['gate'].metrics['AP50'].value)\n"
    )

    def compare_again() -> tuple[int, float]:
        done = subprocess.run(
            [sys.executable, str(script), str(shared / "weights/yolov8n.pt")],
            cwd=tmp_path,
            env=os.environ | {"GAM_YOLO_BLOCKS": str(block)},
            capture_output=True,
            text=True,
            check=True,
        )
        reused, value = done.stdout.split()[-2:]
        return int(reused), float(value)

    block.write_text(GATE.format(factor=1))
    reused, first = compare_again()
    assert reused == 0
    assert first > 0.1
    assert compare_again() == (2, first)
    block.write_text(GATE.format(factor=0))
    reused, edited = compare_again()
    assert reused == 1, "the plain model's predictions hold, the edited block's do not"
    assert edited < 0.02
    block.write_text(GATE.format(factor=1))
    images = sorted((data.parent / "images").iterdir())
    content = bytearray(images[0].read_bytes())
    middle = next(i for i in range(len(content) // 2, len(content)) if content[i - 1] < 0xFE and content[i] < 0xFE)
    content[middle] ^= 1  # the same size, other content, and still an image
    images[0].write_bytes(content)
    assert compare_again()[0] == 0


@pytest.fixture
def own_set(coco: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the images, labels and YAML, to change."""
    data = tmp_path / "set" / "data.yaml"
    shutil.copytree(coco[0].parent, data.parent)
    data.write_text(data.read_text().replace(str(coco[0].parent), str(data.parent)))
    return data


def test_ultralytics_own_scores_follow_the_label_files(
    shared: Path, own_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of other classes than the annotations: the warning goes when they are corrected, and not before."""
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    weights = {name: shared / "weights" / f"{name}.pt" for name in ("yolov8n", "yolov5nu")}

    def compare_again() -> tuple[float, bool]:
        truth = own_set.parent / "truth.json"
        found = compare(weights, data=own_set, gt=truth, imgsz=160, replicates=100, device="cpu", output=tmp_path / "o")
        own = found.variants["yolov8n"].runs[0].ultralytics
        assert own is not None
        assert own.AP50 is not None
        return own.AP50, any("by Ultralytics" in warning for warning in found.warnings)

    labels = {file: file.read_text() for file in (own_set.parent / "labels").glob("*.txt")}
    for file, text in labels.items():
        file.write_text(re.sub(r"^\d+", lambda match: str((int(match[0]) + 1) % 80), text, flags=re.M))
    shifted, warned = compare_again()
    assert shifted < 0.1
    assert warned
    for file, text in labels.items():
        file.write_text(text)
    right, warned = compare_again()
    assert right > 0.2
    assert not warned


def test_an_array_of_other_pixels_beside_an_image_is_rejected(
    shared: Path, own_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cache=disk` wrote the pixels of images that were replaced, with their times, by others of the same size."""
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    weights = [shared / "weights" / f"{name}.pt" for name in ("yolov8n", "yolov5nu")]
    images = sorted((own_set.parent / "images").glob("*.jpg"))
    for image in images:
        pixels: Any = cv2.imread(str(image))
        np.save(image.with_suffix(".npy"), pixels)
        cv2.imwrite(str(image), pixels[:, ::-1] if image == images[3] else pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])
        if image != images[3]:
            np.save(image.with_suffix(".npy"), np.asarray(cv2.imread(str(image))))
        os.utime(image, (1e9, 1e9))

    def compare_them() -> None:
        compare(weights, data=own_set, imgsz=160, replicates=100, device="cpu", output=tmp_path / "out")

    with pytest.raises(UserError, match=f"{images[3].stem}.npy: has other pixels than {images[3].name}, .* Remove it"):
        compare_them()
    images[3].with_suffix(".npy").unlink()
    compare_them()
