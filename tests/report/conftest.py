"""A small dataset with photographs, and predictions of detectors whose skill is known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner, Result

from gam_yolo.cli.compare import compare

CLASSES = ("cat", "dog <b>", "hen")  # a name that would be markup if it were not escaped


@dataclass(frozen=True)
class DataSet:
    """Where its parts are."""

    folder: Path
    yaml: Path
    truth: Path
    objects: list[dict[str, Any]]

    def predictions(self, name: str, skill: float, seed: int) -> Path:
        """Write predictions that find each object with chance `skill`, and have one false box an image."""
        rng = np.random.default_rng(seed)
        records = []
        for o in self.objects:
            easy = np.random.default_rng(o["id"]).random()  # the same for every detector: what pairs them
            if easy < skill + rng.normal(0, 0.05):
                x, y, w, h = o["bbox"]
                shift = rng.normal(0, 2, 2)
                records.append(
                    {
                        "image_id": o["image_id"],
                        "category_id": o["category_id"],
                        "bbox": [x + shift[0], y + shift[1], w, h],
                        "score": round(float(rng.beta(5, 2)), 5),
                    }
                )
        records += [
            {
                "image_id": i,
                "category_id": int(rng.integers(1, 4)),
                "bbox": [1.0, 1.0, 30.0, 20.0],
                "score": round(float(rng.beta(2, 4)), 5),
            }
            for i in {o["image_id"] for o in self.objects}
        ]
        path = self.folder / f"{name}-s{seed}.json"
        path.write_text(json.dumps(records))
        return path


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for i in range(1, 61):
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((320, 240)).save(
            folder / "images" / f"{i}.jpg"
        )
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 320, "height": 240})
        lines = []
        for place in range(int(rng.integers(1, 4))):
            size = float(rng.uniform(25, 100))
            x, y, k = 100.0 * place + 5, 60.0, int(rng.integers(1, 4))
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": i,
                    "category_id": k,
                    "bbox": [x, y, min(size, 95), size],
                    "area": min(size, 95) * size,
                    "iscrowd": 0,
                }
            )
            w, h = min(size, 95) / 320, size / 240
            lines.append(f"{k - 1} {x / 320 + w / 2} {y / 240 + h / 2} {w} {h}\n")
        (folder / "labels" / f"{i}.txt").write_text("".join(lines))
    truth = folder / "truth.json"
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    truth.write_text(json.dumps({"images": images, "categories": categories, "annotations": objects}))
    yaml = folder / "data.yaml"
    yaml.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {json.dumps(CLASSES)}\n")
    return DataSet(folder, yaml, truth, objects)


def run_compare(*arguments: object) -> Result:
    """Run `compare` as the command line does; errors are raised, not printed."""
    app = Typer()
    app.command()(compare)
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="session")
def report(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of three variants with three seeds each."""
    for name, skill in (("plain", 0.55), ("same", 0.55), ("gam", 0.85)):
        for seed in range(3):
            data_set.predictions(name, skill, {"plain": 10, "same": 20, "gam": 30}[name] + seed)
    folder = tmp_path_factory.mktemp("report")
    variants = [f"{name}={data_set.folder / name}-s*.json" for name in ("plain", "same", "gam")]
    options = ["--data", data_set.yaml, "--gt", data_set.truth, "--control", "same", "--replicates", 300]
    result = run_compare(*variants, *options, "-o", folder)
    assert result.exit_code == 0
    (folder / "printed.txt").write_text(result.output)
    return folder
