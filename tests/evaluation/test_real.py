from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gam_yolo.evaluation import (
    COCO_METRICS,
    GroundTruth,
    coco_metrics,
    match_coco,
    match_voc,
    measure,
    read_coco,
    read_detections,
    read_voc,
    voc_metrics,
)

from .problems import Problem, voc_by_the_book

VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


def predict(
    shared: Path, folder: Path, truth: GroundTruth, imgsz: int, weights: str = "yolov8n.pt"
) -> list[dict[str, Any]]:
    """Run a detector over the images of a dataset and return what it sees of the set's classes as COCO results."""
    from ultralytics import YOLO

    model = YOLO(shared / "weights" / weights)
    category = dict(zip(truth.classes, truth.category_ids, strict=True))
    names = {c: category.get(VOC_NAMES.get(n, n), category.get(n)) for c, n in model.names.items()}
    image_id = dict(zip(truth.files, truth.ids, strict=True))
    records = []
    for result in model.predict(
        [str(folder / file) for file in truth.files], imgsz=imgsz, conf=0.001, batch=16, stream=True, verbose=False
    ):
        boxes = result.boxes
        for (left, top, right, bottom), score, label in zip(
            boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
        ):
            if names[int(label)] is not None:
                records.append(
                    {
                        "image_id": image_id[Path(result.path).name],
                        "category_id": names[int(label)],
                        "bbox": [left, top, right - left, bottom - top],
                        "score": score,
                    }
                )
    return records


def reference(truth: Path | dict[str, Any], records: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Ask pycocotools for its twelve numbers and the AP of each class."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth)) if isinstance(truth, Path) else COCO()
        if isinstance(truth, dict):
            coco.dataset = truth
            coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(records), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    per_class = evaluation.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
    return evaluation.stats, np.where(per_class < 0, np.nan, per_class)


def test_yolov8n_on_coco_equals_pycocotools(shared: Path, tmp_path: Path) -> None:
    annotations = shared / "data" / "coco" / "annotations" / "instances_val2017.json"
    truth = read_coco(annotations)
    records = predict(shared, shared / "data" / "coco" / "val2017", truth, imgsz=320)
    stats, per_class = reference(annotations, records)
    (tmp_path / "predictions.json").write_text(json.dumps(records))
    detections = read_detections(tmp_path / "predictions.json", truth)
    ours = measure(truth, detections, np.ones((len(truth.ids), 1)))[:, : len(COCO_METRICS), 0]
    np.testing.assert_allclose(ours[0], stats, atol=1e-9, rtol=0)
    np.testing.assert_allclose(ours[1:, 0], per_class, atol=1e-9, rtol=0)
    assert 0.25 < ours[0, 0] < 0.45  # it did detect something

    # The same with images really repeated under new ids, after settling ties in score within an image by their order.
    rng = np.random.default_rng(0)
    times = rng.integers(0, 4, len(truth.ids))
    records = [{**r, "score": r["score"] - 1e-9 * n} for n, r in enumerate(records)]
    copies = {i: [1000 * n + c for c in range(times[n])] for n, i in enumerate(truth.ids)}
    content = json.loads(annotations.read_text())
    repeated = {
        "categories": content["categories"],
        "images": [{**image, "id": new} for image in content["images"] for new in copies[image["id"]]],
        "annotations": [
            {**a, "image_id": new, "id": 10 * n + c}
            for n, a in enumerate(content["annotations"], 1)
            for c, new in enumerate(copies[a["image_id"]])
        ],
    }
    stats, per_class = reference(repeated, [{**r, "image_id": new} for r in records for new in copies[r["image_id"]]])
    (tmp_path / "predictions.json").write_text(json.dumps(records))
    detections = read_detections(tmp_path / "predictions.json", truth)
    ours = measure(truth, detections, times[:, None].astype(float))[:, : len(COCO_METRICS), 0]
    np.testing.assert_allclose(ours[0], stats, atol=1e-9, rtol=0)
    np.testing.assert_allclose(ours[1:, 0], per_class, atol=1e-9, rtol=0)


@pytest.fixture(scope="module")
def voc(shared: Path) -> tuple[GroundTruth, list[dict[str, Any]]]:
    truth = read_voc(shared / "data" / "VOC2007")
    return truth, predict(shared, shared / "data" / "VOC2007" / "JPEGImages", truth, imgsz=192)


def as_problem(truth: GroundTruth, records: list[dict[str, Any]]) -> Problem:
    number = {image_id: n for n, image_id in enumerate(truth.ids, 1)}
    rows = zip(truth.image.tolist(), truth.label.tolist(), truth.box.tolist(), truth.difficult.tolist(), strict=True)
    annotations = [
        {
            "id": n,
            "image_id": i + 1,
            "category_id": k + 1,
            "bbox": b,
            "area": b[2] * b[3],
            "iscrowd": 0,
            "difficult": d,
        }
        for n, (i, k, b, d) in enumerate(rows, 1)
    ]
    records = [{**r, "image_id": number[r["image_id"]]} for r in records]
    return Problem(len(truth.ids), len(truth.classes), annotations, records)


def test_yolov8n_on_voc2007_equals_pycocotools_and_vocs_definitions(
    voc: tuple[GroundTruth, list[dict[str, Any]]],
) -> None:
    truth, records = voc
    problem = as_problem(truth, records)
    content = {
        "images": [{"id": i} for i in range(1, problem.n_images + 1)],
        "categories": [{"id": k} for k in range(1, problem.n_classes + 1)],
        "annotations": [dict(a) for a in problem.annotations],
    }
    stats, per_class = reference(content, [dict(r) for r in problem.results])
    weights = np.ones((problem.n_images, 1))
    ours = coco_metrics(match_coco(truth, problem.detections), weights)[..., 0]
    np.testing.assert_allclose(np.nanmean(ours, axis=0), stats, atol=1e-9, rtol=0)
    np.testing.assert_allclose(ours[:, 0], per_class, atol=1e-9, rtol=0)
    ours = voc_metrics(match_voc(truth, problem.detections), weights)[..., 0]
    expected = [voc_by_the_book(problem, label) for label in range(1, problem.n_classes + 1)]
    np.testing.assert_allclose(ours, expected, atol=1e-9, rtol=0)
    assert truth.difficult.any()
    assert 0.2 < np.nanmean(ours[:, 1]) < 0.9
