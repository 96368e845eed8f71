"""Groups in a comparison: as an option, as a key of the dataset YAML, in the report; warnings where none are given."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from gam_yolo import Comparison, UserError, compare
from gam_yolo.evaluation import GroundTruth, read_coco, read_voc
from gam_yolo.evaluation.groups import read_groups
from gam_yolo.report.groups import undeclared_groups

from .conftest import DataSet, run_compare

PAIRS = r"^(\d*)\d\.jpg"  # images 10 to 19 are a group; 1 to 9 have none


def variants(data_set: DataSet) -> dict[str, list[Path]]:
    return {
        name: [data_set.predictions(f"grouped-{name}", skill, s) for s in (1, 2)]
        for name, skill in (("a", 0.5), ("b", 0.8))
    }


def test_the_command_resamples_groups_and_says_so(data_set: DataSet, tmp_path: Path) -> None:
    named = [f"{name}={data_set.folder}/grouped-{name}-s[12].json" for name in variants(data_set)]
    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"{i}.jpg,{i // 4}\n" for i in range(1, 61)))
    options = ["--gt", data_set.truth, "--replicates", 100]
    for output, more in (("with", ["--groups", table]), ("without", [])):
        assert run_compare(*named, *options, *more, "-o", tmp_path / output).exit_code == 0
    grouped, plain = (Comparison.load(tmp_path / output / "report.json") for output in ("with", "without"))
    assert grouped.data.groups is not None
    assert (grouped.data.groups.number, grouped.data.groups.largest) == (16, 4)
    assert plain.data.groups is None
    assert "bootstrap of groups of images" in grouped.statistics.interval
    assert any("16 groups of 60 images, by the file groups.csv" in note for note in grouped.notes)
    for file in ("report.md", "report.html"):
        assert "16 groups of images" in (tmp_path / "with" / file).read_text()
        assert "groups of images" not in (tmp_path / "without" / file).read_text()
    ours, theirs = (found.variants["b"].metrics["AP"] for found in (grouped, plain))
    assert ours.value == theirs.value
    assert ours.low != theirs.low


def test_every_image_its_own_group_is_the_same_report(data_set: DataSet) -> None:
    plain = compare(variants(data_set), gt=data_set.truth, replicates=100)
    for groups in (r"\d+", {str(i): f"g{i}" for i in range(1, 61)}, "none"):
        found = compare(variants(data_set), gt=data_set.truth, replicates=100, groups=groups)
        assert json.dumps(found.to_dict()["variants"]) == json.dumps(plain.to_dict()["variants"])


def test_the_dataset_yaml_declares_groups(data_set: DataSet, tmp_path: Path) -> None:
    yaml = tmp_path / "data.yaml"
    yaml.write_text(data_set.yaml.read_text() + "groups: groups.csv\n")
    (data_set.folder / "groups.csv").write_text("".join(f"{i};{i % 20}\n" for i in range(1, 61)))
    found = compare(variants(data_set), data=yaml, replicates=100)
    assert found.data.groups is not None
    assert found.data.groups.number == 20
    assert compare(variants(data_set), data=yaml, replicates=100, groups="none").data.groups is None
    yaml.write_text(data_set.yaml.read_text() + "groups: [1, 2]\n")
    with pytest.raises(UserError, match=r"data.yaml, key 'groups': is \[1, 2\]. Expected a regular expression"):
        compare(variants(data_set), data=yaml)


def test_few_groups_give_no_interval_and_say_why(data_set: DataSet) -> None:
    found = compare(variants(data_set), gt=data_set.truth, replicates=100, groups={str(i): i % 6 for i in range(1, 61)})
    assert found.variants["b"].minus("a")["AP"].low is None
    assert any(note.startswith("They tell as much as 6.0 groups of equal size") for note in found.notes)


def test_groups_that_are_wrong_are_an_error_that_names_the_option(data_set: DataSet) -> None:
    with pytest.raises(
        UserError, match=r"--groups \(in Python groups=\): 9 of 60 images have no group, the first is 1.j"
    ):
        compare(variants(data_set), gt=data_set.truth, groups=PAIRS)
    with pytest.raises(UserError, match=r"groups is 3. Expected a string or a Path or a mapping or None"):
        compare(variants(data_set), gt=data_set.truth, groups=3)  # type: ignore[arg-type]


def named(truth: GroundTruth, files: list[str], label: list[int] | None = None) -> GroundTruth:
    """Give the first images of a dataset other names."""
    n = len(files)
    keep = truth.image < n
    changed = {key: getattr(truth, key)[keep] for key in ("image", "label", "box", "area", "crowd", "difficult")}
    if label:
        changed["label"] = np.array(label)[changed["image"]]
    return replace(truth, ids=truth.ids[:n], files=tuple(files), sizes=truth.sizes[:n], **changed)


SUSPICIOUS: dict[str, tuple[list[str], str]] = {
    "frames": ([f"video{v}_frame_{5 * i:04}.jpg" for v in (1, 2, 3) for i in range(20)], "3 groups"),
    "a random tenth of the frames": (
        [f"seq-{v:02}-{(i * 97) % 600}.png" for v in range(12) for i in range(5)],
        "12 gr",
    ),
    "Roboflow": (
        [f"vid{v}_mp4-{i}_jpg.rf.{hash((v, i)) % 16**8:08x}.jpg" for v in (4, 9) for i in range(30)],
        "2 groups",
    ),
    "VisDrone": ([f"0000{v:03}_{400 * i:05}_d_{7 * v + i:07}.jpg" for v in range(6) for i in range(10)], "6 groups"),
    "scenes": ([f"{s}_{i:03}.jpg" for s in ("quay", "dock", "road", "bridge", "park") for i in range(12)], "5 groups"),
    "folders": ([f"val\\{s}/{i:06}.jpg" for s in "abcdef" for i in range(10)], "6 groups"),
}


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_file_names_of_frames_are_warned_of(case: str, data_set: DataSet) -> None:
    files, number = SUSPICIOUS[case]
    truth = named(read_coco(data_set.truth), files)
    (warning,) = undeclared_groups(truth, {}, None)
    assert warning.startswith("Warning: by their file names, the 60 images seem to belong to " + number)
    option = warning.split("--groups '")[1].split("'")[0]
    groups = read_groups(option, files)
    assert groups is not None
    assert number.startswith(str(len(groups.names))[:2])


@pytest.mark.parametrize(
    "files",
    [
        [f"{i:012}.jpg" for i in range(60)],
        [f"IMG_{i}.jpg" for i in range(60)],
        [f"{'IMG_' if i % 2 else 'DSC'}{i}.jpg" for i in range(60)],
        [f"{2007 + i % 6}_{i:06}.jpg" for i in range(60)],
        [f"{(i * 2654435761) % 16**8:08x}.jpg" for i in range(60)],
        [f"20240{1 + i % 9}{10 + i % 17}_{(i * 8117) % 240000:06}.jpg" for i in range(60)],
        [f"photo of {'abcdefghij'[i % 10] * (i // 10 + 1)}.jpg" for i in range(60)],
    ],
    ids=lambda files: files[0],
)
def test_names_of_independent_images_are_not(files: list[str], data_set: DataSet) -> None:
    assert not list(undeclared_groups(named(read_coco(data_set.truth), files), {}, None))


def test_names_of_classes_are_no_groups(data_set: DataSet) -> None:
    files = [f"{name}_{i}.jpg" for name in ("crack12", "crack13", "dent7") for i in range(20)]
    truth = named(read_coco(data_set.truth), files, [0] * 20 + [1] * 20 + [2] * 20)
    assert not list(undeclared_groups(truth, {}, None))


def real_sets(shared: Path) -> Any:
    for name in ("VOC2007", "BCCD", "NEU-DET"):
        yield shared / "data" / name / "JPEGImages", read_voc(shared / "data" / name, "val")
    coco = shared / "data" / "coco"
    yield coco / "val2017", read_coco(coco / "annotations" / "instances_val2017.json")


def test_real_sets_of_independent_images_are_not_warned_of(shared: Path) -> None:
    for folder, truth in real_sets(shared):
        paths = {i: folder / Path(file).name for i, file in enumerate(truth.files)}
        assert all(path.is_file() for path in paths.values())
        assert not list(undeclared_groups(truth, paths, None)), folder


def test_near_duplicates_are_listed(shared: Path, tmp_path: Path) -> None:
    """Photographs, of which some occur again: darker and compressed more."""
    sources = sorted((shared / "data" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:60]
    truth = read_voc(shared / "data" / "VOC2007", "val")
    files = [f"{'xyz'[i % 3]}{i * i}.jpg" for i in range(60)]
    for i, file in enumerate(files):
        with Image.open(sources[i - 30 if 30 <= i < 40 else i]) as image:
            again = ImageEnhance.Brightness(image).enhance(0.8) if 30 <= i < 40 else image
            again.save(tmp_path / file, quality=60)
    truth = named(truth, files)
    listing = tmp_path / "near-duplicates.csv"
    (warning,) = undeclared_groups(truth, {i: tmp_path / file for i, file in enumerate(files)}, listing)
    found = re.match(
        r"Warning: (\d+) of 60 images look almost the same as another one, such as x0.jpg and x900.jpg", warning
    )
    assert found
    pairs = int(found[1]) // 2
    assert pairs >= 8  # of 10; one photograph is almost plain
    assert f"--groups {listing}" in warning
    groups = read_groups(listing, files)
    assert groups is not None
    assert len(groups.names) == 60 - pairs
    assert sum(groups.index[i] == groups.index[i + 30] for i in range(10)) == pairs


def test_the_listing_of_near_duplicates_is_what_the_option_takes(data_set: DataSet, tmp_path: Path) -> None:
    """Image i + 30 is image i, darker; names repeat in two folders, and the report's folder has a blank in its name."""
    files = [f"{'ab'[i % 2]}/x{(i - i % 2) ** 2}.jpg" for i in range(60)]
    for i, file in enumerate(files):
        path = tmp_path / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(data_set.folder / "images" / f"{i % 30 + 1}.jpg") as image:
            ImageEnhance.Brightness(image).enhance(0.8 if i < 30 else 1).save(path)
    truth = json.loads(data_set.truth.read_text())
    for image, file in zip(truth["images"], files, strict=True):
        image["file_name"] = file
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    yaml = tmp_path / "data.yaml"
    yaml.write_text(data_set.yaml.read_text().replace(str(data_set.folder), str(tmp_path)))
    out = tmp_path / "my report"
    options: dict[str, Any] = {"data": yaml, "gt": tmp_path / "truth.json", "replicates": 100}
    found = compare(variants(data_set), **options, output=out)
    (warning,) = (note for note in found.notes if "look almost the same" in note)
    listing = out / "near-duplicates.csv"
    assert warning.startswith(
        "Warning: 60 of 60 images look almost the same as another one, such as x0.jpg and x900.jpg"
    )
    assert f"--groups '{listing}', a CSV file of images and groups" in warning  # quoted, as the shell needs it
    assert listing.read_text().splitlines()[:2] == ["image,group", "a/x0.jpg,a/x0.jpg"]
    grouped = compare(variants(data_set), **options, groups=listing)
    assert grouped.data.groups is not None
    assert grouped.data.groups.number == 30
    assert not any("look almost the same" in note for note in grouped.notes)
