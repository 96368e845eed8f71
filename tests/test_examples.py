"""What `docs/examples.md` says of tracking and of tiles, where the packages for it are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

import gam_yolo


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> tuple[Path, Path]:
    """COCO's YOLOv8n, and the same with a GAM before the head that still is the identity."""
    folder = tmp_path_factory.mktemp("examples")
    plain = folder / "plain.pt"
    plain.write_bytes((shared / "weights/yolov8n.pt").read_bytes())
    gam_yolo.place("yolov8n.yaml", block="GAM", at="head-inputs", args={"start": "zero"}).save(folder / "yolov8-z.yaml")
    YOLO(folder / "yolov8n-z.yaml").load(plain).save(folder / "gam.pt")
    return plain, folder / "gam.pt"


def with_objects(model: Path, shared: Path) -> Path:
    """Return a photograph with three objects that are hard to miss."""
    photos = sorted((shared / "data/coco/val2017").glob("*.jpg"))
    found = (YOLO(model).predict(photo, imgsz=320, conf=0.6, verbose=False)[0] for photo in photos)
    return next(photo for photo, result in zip(photos, found, strict=False) if len(result) >= 3)


def test_tracking_with_an_identity_block_is_that_of_the_base(models: tuple[Path, Path], shared: Path) -> None:
    pytest.importorskip("lap", reason="yolo track needs pip install lap")
    photo = Image.open(with_objects(models[0], shared)).convert("RGB").resize((320, 240))
    frames = [np.asarray(photo.crop((2 * t, t, 2 * t + 300, t + 220)))[..., ::-1].copy() for t in range(6)]
    tracks = []
    for model in map(YOLO, models):
        found = [model.track(frame, persist=True, imgsz=320, conf=0.4, verbose=False)[0].boxes for frame in frames]
        tracks.append([boxes.data.numpy() for boxes in found if boxes.id is not None])  # box, track, score, class
    assert len(tracks[1]) > 2
    for plain, gam in zip(*tracks, strict=True):
        np.testing.assert_allclose(gam, plain, atol=1e-2)
    last = {*tracks[1][-1][:, 4]}
    assert last & {*tracks[1][1][:, 4]}  # an object keeps its number


def test_tiles_with_an_identity_block_are_those_of_the_base(models: tuple[Path, Path], shared: Path) -> None:
    sahi, predict = (
        pytest.importorskip("sahi", reason="tiles need pip install sahi"),
        pytest.importorskip("sahi.predict"),
    )
    photo = str(with_objects(models[0], shared))
    found = []
    for path in models:
        model = sahi.AutoDetectionModel.from_pretrained(
            "ultralytics", model_path=str(path), confidence_threshold=0.25, device="cpu", image_size=320
        )
        result = predict.get_sliced_prediction(photo, model, slice_height=320, slice_width=320, verbose=0)
        found.append([(o.category.name, *o.bbox.to_xyxy()) for o in result.object_prediction_list])
    assert found[0]
    assert [name for name, *_ in found[1]] == [name for name, *_ in found[0]]
    np.testing.assert_allclose([o[1:] for o in found[1]], [o[1:] for o in found[0]], atol=0.5)
