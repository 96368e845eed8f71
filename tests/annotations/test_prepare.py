"""`gam-yolo prepare` and `gam_yolo.datasets.prepare`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gam_yolo.annotations import read_truth
from gam_yolo.cli import app, main
from gam_yolo.datasets import prepare
from gam_yolo.errors import UserError

from .conftest import coco_file, photograph, thing, voc_folder, written_boxes, xml

WriteYaml = Callable[..., str]


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["prepare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def roboflow(folder: Path) -> Path:
    """Write what Roboflow exports as COCO: a file beside the images of each split, and a placeholder category."""
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog: small", "supercategory": "pets"},
    ]
    for shade, split in enumerate(("train", "valid", "test")):
        names = [f"{split}_{i}_jpg.rf.0a1b{i}.jpg" for i in range(2)]
        coco_file(
            folder / split / "_annotations.coco.json",
            [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)],
            [{"image_id": i, "category_id": 1 + i, "bbox": [10, 10, 20 + i, 20]} for i in range(2)],
            categories=categories,
        )
        for i, name in enumerate(names):
            photograph(folder / split / name, shade=50 * shade + i)
    return folder


def test_a_roboflow_export_is_ready_in_two_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roboflow(tmp_path / "pets")
    Path("pets.yaml").write_text(command("--init", "pets"))
    said = command("pets.yaml")
    for split in ("train", "valid", "test"):
        assert f"{split}: 2 images, 2 boxes written" in said
    found = prepare("pets.yaml")
    assert list(found.splits) == ["train", "valid", "test"]
    assert written_boxes(found.folder, "valid", (100, 80))["valid_1_jpg.rf.0a1b1"] == [
        pytest.approx([10, 10, 21, 20], abs=1e-5)
    ]
    truth = read_truth("pets.yaml", None, "val")
    assert truth.names == ("cat", "dog: small")
    assert truth.box.tolist() == [[10, 10, 20, 20], [10, 10, 21, 20]]
    assert [truth.classes[k] for k in truth.label] == ["cat", "dog: small"]


def test_a_voc_folder_and_a_single_coco_file_are_ready_in_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = voc_folder(tmp_path / "kit", "train", {"a": xml(thing("no", 1, 1, 9, 9), thing("Ünit", 3, 3, 9, 9))})
    voc_folder(folder, "val", {"b": xml(thing("5", 1, 1, 9, 9))})
    for shade, name in enumerate("ab"):
        photograph(folder / f"JPEGImages/{name}.jpg", shade=shade)
    Path("kit.yaml").write_text(command("--init", "kit"), encoding="utf-8")
    assert prepare("kit.yaml").splits["val"].boxes == 1
    assert read_truth("kit.yaml", None).names == ("5", "no", "Ünit")

    coco_file(
        tmp_path / "mine/boxes.json",
        [{"id": 1, "file_name": "pictures/a.jpg", "width": 100, "height": 80}],
        [{"image_id": 1, "category_id": 2, "bbox": [1, 1, 9, 9]}],
    )
    photograph(tmp_path / "mine/pictures/a.jpg")
    Path("mine.yaml").write_text(command("--init", "mine/boxes.json"))
    assert prepare("mine.yaml").splits["boxes"].boxes == 1
    assert read_truth("mine.yaml", None).names == ("cat", "dog")


def test_init_says_what_it_cannot_read(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"Expected .*COCO file|Expected annotations/instances_"):
            command("--init", str(source))


def test_a_download_entry_of_ours_is_called_and_not_executed(
    tmp_path: Path, dataset_yaml: WriteYaml, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    photograph(folder / "JPEGImages/a.jpg")
    monkeypatch.setattr("builtins.exec", lambda *_: pytest.fail("executed code from the file"))
    path = Path(dataset_yaml("voc", folder, train="images/val"))
    assert prepare(path).splits["val"].images == 1


def test_other_download_entries_are_left_to_ultralytics(tmp_path: Path) -> None:
    photograph(tmp_path / "photo.jpg")
    yaml = tmp_path / "other.yaml"
    script = "\n".join(
        f"  {line}"
        for line in (
            "import shutil",
            "from gam_yolo.datasets import prepare_voc",
            "for split in ('train', 'val'):",
            "    (yaml['path'] / 'images' / split).mkdir(parents=True)",
            f"    shutil.copy({str(tmp_path / 'photo.jpg')!r}, yaml['path'] / 'images' / split)",
            "(yaml['path'] / 'labels/val').mkdir(parents=True)",
            "(yaml['path'] / 'labels/val/photo.txt').write_text('0 0.5 0.5 0.1 0.1\\n')",
        )
    )
    yaml.write_text(f"path: other\ntrain: images/train\nval: images/val\nnames: [cat]\ndownload: |\n{script}\n")
    found = prepare(yaml)
    assert (found.splits["train"].boxes, found.splits["val"].boxes) == (0, 1)
    assert found.warnings == ("train: no image has an object", "1 image of 'train' is also in 'val': photo.jpg")


def test_repeats_in_a_list_are_counted(tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.jpg")
    photograph(tmp_path / "images/b.jpg", shade=9)
    (tmp_path / "train.txt").write_text("./images/a.jpg\n./images/a.jpg\n")
    (tmp_path / "val.txt").write_text("./images/b.jpg\n")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: train.txt\nval: val.txt\nnames: [cat]\n")
    found = prepare(tmp_path / "data.yaml")
    assert (found.splits["train"].images, found.splits["train"].repeated) == (1, 1)
    nothing = [f"{split}: no image has an object" for split in ("train", "val")]
    assert found.warnings == ("train: 1 repeated image names, counted once", *nothing)


def test_a_test_split_that_is_not_there_is_a_warning_as_training_does_without(tmp_path: Path) -> None:
    photograph(tmp_path / "images/train/a.jpg")
    photograph(tmp_path / "images/val/b.jpg", shade=9)
    keys = "train: images/train\nval: images/val\ntest: images/test\nnames: [cat]\n"
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\n{keys}")
    found = prepare(tmp_path / "data.yaml")
    assert list(found.splits) == ["train", "val"]
    nothing = [f"{split}: no image has an object" for split in ("train", "val")]
    assert found.warnings == (f"the 'test' images are missing at {tmp_path}/images/test", *nothing)


def test_compare_names_the_command_for_a_set_that_is_not_ready(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    yaml = dataset_yaml("voc", tmp_path / "kit")
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text("[ ]")
    with pytest.raises(UserError, match=rf"Prepare it with: gam-yolo prepare {yaml}"):
        CliRunner().invoke(
            app,
            ["compare", "a=" + str(tmp_path / "a.json"), "b=" + str(tmp_path / "b.json"), "--data", yaml],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("kind", ["loop", "long"])
def test_paths_that_lead_nowhere_are_reported(kind: str, tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    bad = tmp_path / ("x" * 300)
    if kind == "loop":
        bad = tmp_path / "loop"
        bad.symlink_to(bad)
    yaml = Path(dataset_yaml("voc", bad))
    for arguments in ([str(yaml)], [f"{bad}.yaml"], ["--init", str(bad)]):
        with pytest.raises(UserError) as caught:
            command(*arguments)
        assert "\n" not in str(caught.value)
    yaml.write_text(yaml.read_text().replace("path: mine", f"path: {bad}"))
    with pytest.raises(UserError) as caught:
        command(str(yaml))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        read_truth(str(yaml), None)
    with pytest.raises(UserError):
        read_truth(f"{bad}.yaml", None)


def test_the_command_ends_with_one_line_and_status_2(
    tmp_path: Path, dataset_yaml: WriteYaml, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    photograph(folder / "JPEGImages/a.jpg").write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["gam-yolo", "prepare", dataset_yaml("voc", folder, train="images/val")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"error: {folder}/JPEGImages/a.jpg: is empty (0 bytes). Expected an image.\n"
    assert said.out == ""


def test_annotations_given_for_a_yaml_are_distinguished_from_a_yaml(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "train.json", [], [])
    with pytest.raises(UserError, match=r"train\.json: is not a dataset YAML\. .*gam-yolo prepare --init"):
        prepare(file)
    with pytest.raises(UserError, match=r"nothing\.json: no such dataset YAML"):
        prepare(tmp_path / "nothing.json")


def test_what_is_wrong_is_reported(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    with pytest.raises(UserError, match=r"^vox-local\.yaml: no such dataset YAML\. Did you mean 'voc-local\.yaml'\?"):
        prepare("vox-local.yaml")
    with pytest.raises(UserError, match=r"Did you mean 'coco128\.yaml'\?"):  # Ultralytics' own
        prepare("coco128s.yaml")
    with pytest.raises(UserError, match=r"mine\.yaml, key 'source': '.*kit' names .*where there is no folder"):
        prepare(dataset_yaml("voc", tmp_path / "kit"))
    path = tmp_path / "half.yaml"
    ours = "download: |\n  from gam_yolo.datasets import prepare_voc\n  prepare_voc(yaml)\n"
    for text, expected in (
        ("names: [a]\n", r"half\.yaml: has no 'train' and 'val'\. Expected a dataset YAML"),
        ("train: images/val\nval: images/val\n", r"key 'names': is None\. Expected a list of class names"),
        ("train: 5\nval: images/val\nnames: [a]\n", r"half\.yaml, key 'train': is 5\. Expected a path"),
    ):
        path.write_text(f"path: x\n{text}{ours}")
        with pytest.raises(UserError, match=expected):
            prepare(path)
    path.write_text("path: x\nsource: kit\ntrain: images/val\nval: images/val\nprotocol: voc\nnames: [a]\n")
    with pytest.raises(UserError, match=r"half\.yaml: .*'source' has no effect without 'download'.*import prepare_voc"):
        prepare(path)
    path.write_text("- not a mapping\n")
    with pytest.raises(UserError, match=r"half\.yaml: cannot be prepared"):
        prepare(path)
    photograph(tmp_path / "images/val/a.jpg")
    path.write_text(f"path: {tmp_path}\ntrain: images/trian\nval: images/val\nnames: [a]\n")
    with pytest.raises(UserError, match=r"half\.yaml, key 'train': there is no .*images/trian"):
        prepare(path)


@pytest.mark.parametrize(
    ("splits", "key"),
    [("train: images\nval: nowhere", "val"), ("train: images\nval: [images, nowhere]", "val"),
     ("train: nowhere\nval: images", "train")],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_reported_with_its_key(splits: str, key: str, tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.jpg")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"path: {tmp_path}\n{splits}\nnames: [cat]\n")
    message = rf"mine.yaml, key '{key}': there is no {tmp_path}/nowhere"
    with pytest.raises(UserError, match=message):
        prepare(yaml)
    if key == "val":
        with pytest.raises(UserError, match=rf"{message}\. Prepare it with: gam-yolo prepare"):
            read_truth(str(yaml), None)
    else:  # who only evaluates may not have the training images
        assert len(read_truth(str(yaml), None).ids) == 1


@pytest.mark.parametrize(
    ("splits", "key"), [("train: [images, 4]\nval: images", "train"), ("train: images\nval: {a: images}", "val")]
)
def test_an_entry_that_is_no_path_is_reported_with_its_key(splits: str, key: str, tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.jpg")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"path: {tmp_path}\n{splits}\nnames: [cat]\n")
    message = rf"mine.yaml, key '{key}': is .*\. Expected a path or a list of paths\."
    for read in (prepare, lambda data: read_truth(str(data), None)):
        with pytest.raises(UserError, match=message):
            read(yaml)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_name_in_a_warning_cannot_move_the_cursor(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photograph(tmp_path / split / "\x1b[2Ja.jpg")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"path: {tmp_path}\ntrain: train\nval: val\nnames: [cat]\n")
    said = command(str(yaml))
    assert "\x1b" not in said
    assert "is also in 'val': \\x1b[2Ja.jpg" in said
