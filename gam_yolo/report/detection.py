"""Detections: read from COCO result files, or made by Ultralytics' validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gam_yolo import ultralytics_api
from gam_yolo.annotations.images import base_name, image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.errors import UserError, similar
from gam_yolo.evaluation import Detections, GroundTruth, parse_detections, read_detections
from gam_yolo.report.predictions import Settings, Validated, Validation, run_validator

__all__ = ["DetectorValidation"]

_CONF, _IOU, _MAX_DET = 0.001, 0.7, 300  # Ultralytics' defaults, so that no configuration file changes a comparison


@dataclass(frozen=True)
class DetectorValidation(Validation[Detections]):
    """How detections are read, and how detectors are validated; see `Validation`."""

    truth: GroundTruth
    settings: Settings

    task = "detect"
    method = "NMS without time limit"
    thresholds: ClassVar = {"conf": _CONF, "iou": _IOU, "max_det": _MAX_DET}

    def images(self) -> Sequence[Path]:
        """Return the images of the dataset YAML's split."""
        split = self.settings.split
        return sorted(image_files(dataset(self.settings.data or "", split)[split], split))

    def read(self, path: Path, *, ours: bool) -> Detections:
        """Read a COCO result file."""
        return read_detections(path, self.truth, whole=ours)

    def check_classes(self, model: Any, path: Path) -> None:
        """Check that each class of the model has a name of its own, which is one of the data's classes."""
        repeated = [name for name, count in Counter(model.names.values()).items() if count > 1]
        if repeated:
            raise UserError(
                f"has two classes named '{repeated[0]}'", at=path, expected="a name of its own for each class"
            )
        unknown = [name for name in model.names.values() if name not in self.truth.classes]
        if unknown:
            raise UserError(
                f"detects '{unknown[0]}', which is not one of the {len(self.truth.classes)} classes of "
                f"{self.truth.source}",
                at=path,
                similar=similar(unknown[0], self.truth.classes),
            )

    def validate(self, model: Any, path: Path, imgsz: int) -> Validated[Detections]:
        """Run Ultralytics' validation with all detections, whatever time their suppression takes."""
        truth, alike = self.truth, Counter(base_name(file) for file in self.truth.files)

        def in_folders(file: Path) -> str | None:
            """Name an image with its folders, as the annotations do, where several images have its name."""
            if alike[file.name] < 2:
                return None
            return next((name for name in truth.files if file.parts[-len(p := Path(name).parts) :] == p), None)

        base = model._smart_load("validator")

        class Validator(base):  # type: ignore[misc, valid-type]
            """Ultralytics' validator without its own COCO evaluation, which needs another package."""

            def pred_to_json(self, predn: Any, pbatch: Any) -> None:
                known = len(self.jdict)
                super().pred_to_json(predn, pbatch)
                if isinstance(pbatch, dict) and (name := in_folders(Path(pbatch["im_file"]))):
                    for record in self.jdict[known:]:
                        record["file_name"] = name

            def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
                return stats

        with ultralytics_api.unlimited_nms():
            done, own = run_validator(
                model, Validator, self.settings, str(self.settings.data), imgsz, save_json=True, **self.thresholds
            )
        class_of = {category: index for index, category in enumerate(done.class_map)}
        label_of = dict(zip(truth.classes, truth.category_ids, strict=True))
        records = [
            {**record, "category_id": label_of[model.names[class_of[record["category_id"]]]]} for record in done.jdict
        ]
        return Validated(parse_detections(records, truth, str(path)), records, own, int(done.args.max_det))
