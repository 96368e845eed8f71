"""Studies and comparisons of classifiers, from folders of images with the names that users give them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import ClassificationDataset

from gam_yolo import compare
from gam_yolo.cli import app
from gam_yolo.errors import UserError
from gam_yolo.movement import movement
from gam_yolo.report import cost
from gam_yolo.report.overall import StudyResult, summarize
from gam_yolo.report.result import Comparison
from gam_yolo.study.classification import read_classes
from gam_yolo.study.config import Study, read_study
from gam_yolo.study.folder import RunFolder, StudyFolder
from gam_yolo.study.plan import plan
from gam_yolo.study.run import run_study

from .helpers import assert_same_result, log, until, worker

IMAGES = {"Hund & Katze": 16, "a cat": 16, "naïve 犬": 16, "one=1": 1, "u_ü <b>": 15}
RECIPE = {"epochs": 1, "imgsz": 32, "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.003}
RECIPE |= {"device": "cpu", "plots": False, "warmup_epochs": 0}
N = sum(IMAGES.values())  # 64: single precision holds n / 64 exactly


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and val with five classes, one of a single image, a file that is no image, and an unreadable one."""
    folder = tmp_path_factory.mktemp("data") / "my pictures (2)"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i, (name, number) in enumerate(IMAGES.items()):
            (folder / split / name).mkdir(parents=True)
            for k in range(number):
                colour = rng.normal([50 * i, 255 - 50 * i, (90 * i) % 255], 60, (40, 48, 3))
                ending = ("jpg", "JPG", "png")[k % 3]
                Image.fromarray(colour.clip(0, 255).astype("uint8")).save(folder / split / name / f"ä {k}.{ending}")
        (folder / split / "a cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "val" / "a cat" / "half.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, dict[str, list[Path]]]:
    """The report of a study of two variants and two seeds, and the checkpoints."""
    place = tmp_path_factory.mktemp("studies")
    content = {"data": str(folder), "seeds": [0, 1], "recipe": RECIPE, "baseline": "plain"} | {
        "variants": {
            "plain": {"model": "yolov8n-cls.yaml"},
            "gam": {"base": "yolov8n-cls.yaml", "block": "GAM", "at": "8", "args": [{"preset": "paper"}]},
        }
    }
    (place / "classes.yaml").write_text(yaml.safe_dump(content))
    before = {path for path in folder.rglob("*") if path.is_file()}
    planned = plan(read_study(place / "classes.yaml"), StudyFolder(place / "classes"), dry_run=True)
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    lines: list[str] = []
    found = run_study(place / "classes.yaml", project=place, progress=lines.append)
    assert isinstance(found, Comparison), lines
    runs = {run.name: run.folder for run in planned.runs}
    assert all(run.finished for run in runs.values())  # the dry run knew the folders
    return found, {name: [runs[f"{name}-s{seed}"].best for seed in (0, 1)] for name in ("plain", "gam")}


def figures(comparison: Comparison) -> dict[str, Any]:
    """A report, but for its time, and the costs that depend on the machine's load."""
    content = comparison.to_dict()
    del content["created"]
    for variant in content["variants"]:
        variant["cost"] = {key: value for key, value in variant["cost"].items() if not key.startswith("latency")}
    return content


def test_a_study_of_classifiers_ends_in_the_report_that_compare_writes(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, checkpoints = trained
    study = RunFolder(checkpoints["plain"][0].parents[2]).study
    assert Comparison.load(study.report / "report.json") == report
    assert report.task == "classify"
    assert (report.data.images, report.data.classes) == (N, tuple(sorted(IMAGES)))
    assert any("could not read 1 image" in note for note in report.notes)
    assert not report.warnings
    gain = report.variants["gam"].minus("plain")
    assert gain["top1"].verdict is not None
    assert gain["top1"].seed_share is not None
    plain = report.variants["plain"]
    assert plain.classes["one=1"]["top1"].value is not None
    assert plain.classes["one=1"]["top1"].low is None  # nothing is known of other images
    assert all(run.training and len(run.training.top1) == 1 for run in plain.runs)
    html, text = ((study.report / f"report.{ending}").read_text() for ending in ("html", "md"))
    for said in ("2 classifiers", "top-1 accuracy", "naïve 犬", "u_ü &lt;b&gt;"):
        assert said in html
    for said in ("mAP", "Precision", "objects", "detector", "suppression", "confidence of"):
        assert said not in html
        assert said not in text

    monkeypatch.setattr(cost, "_ROUNDS", 5)
    named = {name: [str(path) for path in paths] for name, paths in checkpoints.items()}
    assert figures(compare(named, data=folder, device="cpu")) == figures(report)
    patterns = [f"{name}={study.path}/{name}-s*/train" for name in named]
    arguments = ["compare", *patterns, "--data", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "64 images, top-1 in points" in result.output
    assert figures(Comparison.load(tmp_path / "out" / "report.json")) == figures(report)

    # The stored files are prediction files.
    stored = {name: sorted((tmp_path / "out/predictions" / name).glob("*.json")) for name in named}
    files = {name: [path for path in paths if "protocol" not in path.name] for name, paths in stored.items()}
    again = compare(files, data=folder)
    ours, theirs = ([sorted(v.metrics["top1"].seeds, key=str) for v in c.variants.values()] for c in (again, report))
    assert ours == theirs
    assert again.variants["gam"].minus("plain")["top1"].p == pytest.approx(gain["top1"].p)


def test_the_report_says_how_far_the_blocks_of_classifiers_have_moved(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]]
) -> None:
    report, checkpoints = trained
    assert not report.variants["plain"].movement
    (found,) = report.variants["gam"].movement
    assert found.block.endswith("(GAM)")
    settings: Any = get_cfg(overrides={"imgsz": 32})
    images = ClassificationDataset(str(folder / "val"), settings)
    assert len(images) == N
    batch = torch.stack([images[i]["img"] for i in np.linspace(0, N - 1, 8).astype(int)])
    seeds = [movement(YOLO(path).model.float(), batch)[0] for path in checkpoints["gam"]]
    assert found.change == pytest.approx(np.mean([m.change for m in seeds]), rel=1e-4)
    assert found.change > 0.01


def test_several_data_sets_of_classifiers_have_a_summary_of_top_1(
    trained: tuple[Comparison, dict[str, list[Path]]], tmp_path: Path
) -> None:
    report, _ = trained
    found = summarize("two sets", {"one": report, "other": report})
    main = report.variants["gam"].minus("plain")["top1"]
    assert main.value is not None
    assert found.overall["gam"]["plain"].value == pytest.approx(main.value)
    assert "top-1 accuracy" in found.headline
    page = found.save(tmp_path)
    plain = report.variants["plain"].metrics["top1"].value or 0
    for text in (page.read_text(), (tmp_path / "report.md").read_text()):
        assert "Points of top-1 accuracy" in text
        assert "mAP" not in text
        assert f"{100 * plain:.1f}" in text
    assert StudyResult.load(tmp_path / "report.json").headline == found.headline


def test_the_latex_table_of_classifiers_has_top_1(trained: tuple[Comparison, dict[str, list[Path]]]) -> None:
    report, _ = trained
    text, main = report.to_latex(), report.variants["gam"].metrics["top1"]
    assert "Classification on 64 images" in text
    assert "Model & Seeds & top-1 accuracy & minus plain & top-5 accuracy &" in text
    assert f"gam & 2 & ${100 * (main.value or 0):.1f}" in text
    assert "mAP" not in text


def test_groups_of_classified_images_are_resampled(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]], tmp_path: Path
) -> None:
    """Images of one number belong together, whatever their class; their names are the same in all classes."""
    _, checkpoints = trained
    named = {name: [str(path) for path in paths] for name, paths in checkpoints.items()}
    (table := tmp_path / "groups.csv").write_text(
        "image,group\n"
        + "".join(f"{file.relative_to(folder / 'val').as_posix()},{file.stem}\n" for file in folder.glob("val/*/ä*"))
        + "".join(f"{file.relative_to(folder).as_posix()},x\n" for file in folder.glob("train/one=1/*"))
    )
    found = compare(named, data=folder, device="cpu", groups=r"/ä (\d+)\.", output=tmp_path / "out")
    assert found.data.groups is not None
    assert (found.data.groups.number, found.data.groups.largest) == (16, 5)
    assert "bootstrap of groups of images" in found.statistics.interval
    assert any("16 groups of 64 images, by the expression" in note for note in found.notes)
    assert "16 groups of images" in (tmp_path / "out" / "report.md").read_text()
    assert all(value.low is None for value in found.variants["plain"].classes["one=1"].values())
    other = compare(named, data=folder, device="cpu", groups=table).variants["gam"].minus("plain")["top1"]
    ours = found.variants["gam"].minus("plain")["top1"]
    assert (other.value, other.p) == pytest.approx((ours.value, ours.p))
    plain = compare(named, data=folder, device="cpu", groups="none")
    assert plain.data.groups is None
    with pytest.raises(UserError, match=r"--groups .*: '/no' matches none of 64 file names"):
        compare(named, data=folder, device="cpu", groups="/no")


def test_accuracy_is_that_of_ultralytics_and_of_torchmetrics(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]]
) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    report, checkpoints = trained
    files = [path for name in sorted(IMAGES) for path in sorted((folder / "val" / name).glob("ä*"))]
    target = torch.tensor([sorted(IMAGES).index(path.parent.name) for path in files])
    for name, paths in checkpoints.items():
        for seed, path in enumerate(paths):
            run = report.variants[name].runs[seed]
            assert run.ultralytics is not None
            model = YOLO(path)
            outputs = (model(file, imgsz=32, verbose=False)[0].probs for file in files)
            probabilities = torch.stack([torch.as_tensor(p.data) for p in outputs if p is not None])
            for metric, k in (("top1", 1), ("top5", 5)):
                options = {"num_classes": len(IMAGES), "top_k": k, "average": "micro"}
                expected = float(functional.multiclass_accuracy(probabilities, target, **options))
                assert getattr(run.ours, metric) == pytest.approx(expected, abs=1e-9)
                assert getattr(run.ultralytics, metric) == pytest.approx(expected, abs=1e-9)


def altered(checkpoint: Path, target: Path, order: list[int]) -> Path:
    """A copy of a classifier whose classes are these of the original's, in this order."""
    content = torch.load(checkpoint, weights_only=False)
    model = content.get("ema") or content["model"]
    linear = model.model[-1].linear
    linear.weight, linear.bias = (torch.nn.Parameter(p.data[order]) for p in (linear.weight, linear.bias))
    linear.out_features = len(order)
    model.names = {i: model.names[k] for i, k in enumerate(order)}
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, target)
    return target


def test_classes_are_found_by_name(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]], tmp_path: Path
) -> None:
    (original, _), _ = trained[1].values()
    other = altered(original, tmp_path / "other.pt", [3, 0, 4, 2, 1])
    found = compare({"a": original, "b": other}, data=folder, device="cpu").variants["b"].minus("a")
    assert [found[metric].value for metric in ("top1", "top5")] == [0, 0]
    fewer = altered(original, tmp_path / "fewer.pt", [0, 1, 2, 3])
    with pytest.raises(UserError, match=r"fewer\.pt: has no class 'u_ü <b>', which .* has\. Expected exactly the 5"):
        compare({"a": original, "b": fewer}, data=folder, device="cpu")


def test_what_cannot_be_compared_is_reported_in_one_line(
    folder: Path, trained: tuple[Comparison, dict[str, list[Path]]], tmp_path: Path
) -> None:
    (a, b), _ = trained[1].values()
    YOLO("yolov8n.yaml").save(tmp_path / "detector.pt")
    boxes, classes, unknown = (tmp_path / f"{name}.json" for name in ("boxes", "classes", "unknown"))
    boxes.write_text('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    classes.write_text('[{"image": "a cat/ä 0.jpg", "top5": ["a cat"]}]')
    best = sorted(IMAGES)
    unknown.write_text(json.dumps([{"image": "a cat/a 0.jpg", "top5": best}]))
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([a, b], {}, r"best\.pt: there is no dataset to compare classifiers on\. .*--data"),
        ([a, tmp_path / "detector.pt"], {"data": folder}, "is of a classifier and .*detector.pt is not"),
        ([a, boxes], {"data": folder}, r"is of a classifier and .*boxes\.json is not"),
        ([a, b], {"data": folder, "look": True}, "--look is given for classifiers"),
        ([a, b], {"data": folder, "gt": folder}, r"--gt .* Expected it with detectors only"),
        ([a, b], {"data": folder / "val"}, r"val: has no folder 'train'"),
        ([a, b], {"data": "$NO_SUCH_VARIABLE"}, "Set the environment variable NO_SUCH_VARIABLE to the folder"),
        ([a, b], {"data": folder, "split": "dev"}, "split is 'dev'. Expected one of train, val, test"),
        ([a, classes], {"data": folder}, r"record 0: 'top5' is \['a cat'\]\. Expected 5 different classes"),
        ([a, unknown], {"data": folder}, r"record 0: there is no image 'a cat/a 0\.jpg' .*Did you mean 'a cat/ä 0"),
    ]
    for paths, options, expected in cases:
        with pytest.raises(UserError, match=expected) as found:
            compare({path.stem + str(i): path for i, path in enumerate(paths)}, device="cpu", **options)
        assert "\n" not in str(found.value)


def test_a_study_checks_that_models_fit_the_data(
    folder: Path, data: Path, study_of: Callable[[dict[str, Any]], Study], tmp_path: Path
) -> None:
    def planned(content: dict[str, Any], **options: Any) -> Any:
        study = study_of({"data": str(folder), "seeds": [0], "recipe": {"imgsz": 32}, **content})
        return plan(study, StudyFolder(tmp_path / "study"), dry_run=True, **options)

    resnet = {"base": "resnet18-cls.yaml", "block": "GAM", "at": "residual-blocks"}
    found = planned(
        {
            "variants": {
                "plain": {"model": "resnet18-cls.yaml"},
                "gam": resnet | {"args": [{"preset": "paper"}]},
                "same": {"model": "resnet18-gam-cls.yaml"},
            }
        }
    )
    plain, gam, same = found.runs
    assert yaml.safe_load(gam.model) == yaml.safe_load(same.model) != yaml.safe_load(plain.model)
    assert yaml.safe_load(gam.model)["nc"] == len(IMAGES)
    assert found.gflops["gam"] == found.gflops["same"] > found.gflops["plain"] > 0
    assert set(gam.spec["identity"]["code"]) - set(plain.spec["identity"]["code"]) == {"GAM"}
    assert plain.train["pretrained"] is True  # False would reset torchvision's initialisation

    # Ultralytics downloads its own datasets by name, but not in a dry run.
    unknown = planned({"data": "cifar_no_such", "variants": {"plain": {"model": "resnet18-cls.yaml"}}})
    assert unknown.runs[0].folder.path.name == "plain-s0-?"
    assert "cifar_no_such is not prepared; the study's first run lets Ultralytics download it" in unknown.notes[0]

    for content, expected in (
        ({"variants": {"p": {"model": "yolov8n.yaml"}}}, "variant 'p': the model ends with Detect, but .* a folder"),
        (
            {"data": str(data), "variants": {"p": {"model": "yolov8n-cls.yaml"}}},
            "variant 'p': the model ends with Classify, but the data is a dataset YAML. Expected detectors",
        ),
        ({"variants": {"p": resnet | {"at": "p5"}}}, "variant 'p': 'at' is 'p5'. Expected residual-blocks"),
        ({"variants": {"p": resnet | {"args": [16]}}}, r"'args' is \[16\]. Expected arguments by name"),
        ({"variants": {"p": resnet | {"base": "resnet18-gam-cls.yaml"}}}, "has a block already"),
        ({"variants": {"p": resnet | {"block": "GMA"}}}, "variant 'p': .*Did you mean 'GAM'"),
        ({"data": "$NOT_SET", "variants": {"p": {"model": "resnet18-cls.yaml"}}}, "environment variable NOT_SET"),
    ):
        with pytest.raises(UserError, match=re.compile(expected)):
            planned(content)


def test_an_interrupted_training_of_a_classifier_ends_with_the_same_bits(
    folder: Path, study_of: Callable[[dict[str, Any]], Study], tmp_path: Path
) -> None:
    """With Ultralytics' default augmentation, which draws from several random generators."""
    content = {"data": str(folder), "seeds": [5], "recipe": RECIPE | {"epochs": 3, "dropout": 0.1}}
    study = study_of(content | {"variants": {"plain": {"model": "yolov8n-cls.yaml"}}})
    (whole,), (killed,) = (plan(study, StudyFolder(tmp_path / name)).runs for name in ("whole", "killed"))
    assert worker(whole) == 0, log(whole)
    killed.lay_out()
    command = [sys.executable, "-m", "gam_yolo.study.worker", str(killed.folder.path), ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        until(lambda: (killed.folder.snapshots / "epoch-0" / "state.pt").exists())
        process.kill()
    assert not killed.finished
    assert worker(killed) == 0, log(killed)
    assert "the training resumes after epoch-" in log(killed)
    assert_same_result(killed, whole)


def test_images_behind_a_link_are_part_of_what_a_training_reads(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "data" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / split / "cat/a.png")
    (tmp_path / "disk").mkdir()
    (tmp_path / "data/train/cat/more").symlink_to(tmp_path / "disk")

    def images() -> str:
        return str(read_classes(str(tmp_path / "data"), StudyFolder(tmp_path), prepare=False)[2]["train images"])

    before = images()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "disk/b.png")
    settings: Any = get_cfg()
    train = ClassificationDataset(str(tmp_path / "data/train"), settings)
    assert len(train.samples) == 2
    assert images() != before
