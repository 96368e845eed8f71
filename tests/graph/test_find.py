"""Names of model YAMLs: what is suggested for one that does not exist."""

from __future__ import annotations

import pytest

from gam_yolo.errors import UserError
from gam_yolo.graph.find import load


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("yolov8n-gm.yaml", "yolov8n-gam.yaml"),  # ours, with the letter that was asked for
        ("yolov8-gma.yaml", "yolov8-gam.yaml"),
        ("yolo11x-objj.yaml", "yolo11x-obb.yaml"),  # Ultralytics' own
        ("yolov9cc.yaml", "yolov9c.yaml"),  # each scale has a file of its own
    ],
)
def test_the_nearest_model_has_the_scale_letter_of_the_name(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"no file '{name}'.* Did you mean '{meant}'\?"):
        load(name)
    load(meant)


def test_a_dataset_is_never_suggested_for_a_model() -> None:
    with pytest.raises(UserError, match=r"ship$"):
        load("gam-demoo.yaml")
