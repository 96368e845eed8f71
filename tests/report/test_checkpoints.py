from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ultralytics import YOLO

from gam_yolo.errors import UserError
from gam_yolo.evaluation import measure, read_coco, read_detections
from gam_yolo.report import cost, predictions

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


def test_checkpoints_and_run_folders_are_validated_once(
    shared: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, gt = coco
    monkeypatch.setattr(cost, "_ROUNDS", 5)
    run = tmp_path / "runs" / "plain"
    (run / "weights").mkdir(parents=True)
    shutil.copy(shared / "weights/yolov8n.pt", run / "weights" / "best.pt")
    (run / "args.yaml").write_text("seed: 7\n")
    (run / "results.csv").write_text(
        "epoch,time,metrics/mAP50(B),metrics/mAP50-95(B)\n1,10,0.3,0.2\n2,20,0.5,0.4\n3,30,0.4,0.3\n"
    )
    arguments = (run, shared / "weights/yolov5nu.pt", "--data", data, "--gt", gt, "-o", tmp_path / "out")
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
    assert first["protocol"]["imgsz"] == 320
    assert plain["cost"]["parameters"] == 3_157_200  # before fusing, as Ultralytics counts it
    assert other["cost"]["parameters"] == 2_654_816
    assert 0 < plain["cost"]["latency_median"] <= plain["cost"]["latency_p95"]
    page = (tmp_path / "out/report.html").read_text()
    for heading in ("Accuracy against cost", "Training", "Ultralytics' own numbers"):
        assert f"<h2>{heading}</h2>" in page

    def refuse(*_: object) -> None:
        raise AssertionError("validated again")

    monkeypatch.setattr(predictions, "_validate", refuse)
    assert run_compare(*arguments, *options).exit_code == 0
    second = json.loads((tmp_path / "out/report.json").read_text())
    assert second["variants"][0]["metrics"] == first["variants"][0]["metrics"]
    assert second["variants"][0]["runs"] == first["variants"][0]["runs"]
    with pytest.raises(AssertionError, match="validated again"):
        run_compare(*arguments, *options[2:], "--imgsz", 256)


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


def test_a_detector_of_other_classes_is_refused(shared: Path, data_set: DataSet, tmp_path: Path) -> None:
    a = data_set.predictions("a", 0.5, 1)
    with pytest.raises(UserError, match=r"yolov8n\.pt: detects 'person', which is not one of the 3 classes"):
        run_compare(a, shared / "weights/yolov8n.pt", "--data", data_set.yaml, "-o", tmp_path, "--device", "cpu")
