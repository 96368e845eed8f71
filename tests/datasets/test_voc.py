from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gam_yolo.datasets import prepare_voc
from gam_yolo.datasets.prepared import Split
from gam_yolo.datasets.voc import pictures
from gam_yolo.errors import UserError

from .conftest import check_pictures, dataset, labels

NAMES = ["cat", "dog", "pottedplant"]


def thing(name: str, xmin: object, ymin: object, xmax: object, ymax: object, extra: str = "") -> str:
    ends = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{ends}</bndbox></object>"


def annotation(*things: str, width: object = 100, height: object = 50) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(things)}</annotation>"


DIFFICULT = "<difficult>1</difficult>"


def devkit(folder: Path, split: str, images: dict[str, str]) -> Path:
    """Write images and their XML, and the list of them, into a folder in VOC's layout."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in images))
    for name, text in images.items():
        (folder / f"Annotations/{name}.xml").write_text(text)
        Image.new("RGB", (100, 50)).save(folder / f"JPEGImages/{name}.jpg")
    return folder


def voc(tmp_path: Path, source: object = "kit", **keys: Any) -> dict[str, Any]:
    given = {"train": "images/train", "source": str(tmp_path / str(source)), **keys}
    return dataset(tmp_path / "out" / "mine", NAMES, **given)


def summary(tmp_path: Path) -> str:
    return (tmp_path / "out/mine/summary.txt").read_text()


def test_pixel_numbers_become_shares_exactly(tmp_path: Path) -> None:
    """A box is the set of its pixels: its centre is their mean and its size is their count."""
    cases = [(1, 1, 100, 50), (1, 1, 2, 2), (100 - 1, 50 - 1, 100, 50), (11, 21, 20, 40), (37, 3, 64, 47)]
    devkit(tmp_path / "kit", "train", {"a": annotation(*(thing("dog", *case) for case in cases))})
    prepare_voc(voc(tmp_path))
    expected = []
    for xmin, ymin, xmax, ymax in cases:
        columns = [number - 1 + 0.5 for number in range(xmin, xmax + 1)]  # centre of each pixel, the first at 0.5
        rows = [number - 1 + 0.5 for number in range(ymin, ymax + 1)]
        x, y = sum(columns) / len(columns) / 100, sum(rows) / len(rows) / 50
        expected.append([1, x, y, len(columns) / 100, len(rows) / 50])
    written = labels(tmp_path / "out/mine", "train")["a"]
    assert len(written) == len(expected)
    for row, exact in zip(written, expected, strict=True):
        assert row == pytest.approx(exact, abs=1e-9)
    assert written[0] == [1, 0.5, 0.5, 1, 1]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    part = f"<part>{thing('head', 1, 1, 5, 5)[8:-9]}</part>"  # VOC's layout annotations nest named boxes
    images = {
        "a": annotation(
            thing("cat", 11, 11, 20, 20, part),
            thing("cat", 1, 1, 9, 9, DIFFICULT),
            thing("cat", 5, 5, 5, 9),  # no width
            thing("cat", 9, 5, 3, 9),  # inverted
            thing("cat", 101, 5, 120, 9),  # outside
            thing("cat", 91, 41, 120, 70, "<difficult>0</difficult>"),  # reaches out
            thing("cat", 3, 3, 3, 3, DIFFICULT),  # both: counted once, as degenerate
        ),
        "b": annotation(thing("cat", 1, 1, 9, 9, DIFFICULT)),
        "c": annotation(),
    }
    devkit(tmp_path / "kit", "train", {**images, "gone": annotation(thing("cat", 1, 1, 9, 9))})
    (tmp_path / "kit/JPEGImages/gone.jpg").unlink()
    prepare_voc(voc(tmp_path))
    assert labels(tmp_path / "out/mine", "train") == {
        "a": [[0, 0.15, 0.3, 0.1, 0.2], [0, 0.95, 0.9, 0.1, 0.2]],
        "b": [],
        "c": [],
    }
    assert summary(tmp_path).splitlines()[1] == (
        "train: 3 images, 2 boxes written, 2 difficult left out, 0 crowd left out, 4 degenerate left out, "
        "1 clipped to the image, 2 images without boxes, 1 images whose file is missing"
    )


def test_original_annotations_and_images_are_at_hand(tmp_path: Path) -> None:
    text = annotation(thing("cat", 1, 1, 9, 9, DIFFICULT))
    devkit(tmp_path / "kit", "train", {"a": text})
    prepare_voc(voc(tmp_path))
    assert (tmp_path / "out/mine/annotations/train/a.xml").read_text() == text
    original, seen = tmp_path / "kit/JPEGImages/a.jpg", tmp_path / "out/mine/images/train/a.jpg"
    assert seen.samefile(original)
    seen.unlink()
    assert original.exists()


def test_a_jpeg_that_ultralytics_would_repair_is_copied(tmp_path: Path) -> None:
    devkit(tmp_path / "kit", "train", {"a": annotation()})
    original = tmp_path / "kit/JPEGImages/a.jpg"
    original.write_bytes(original.read_bytes()[:-2])
    prepare_voc(voc(tmp_path))
    seen = tmp_path / "out/mine/images/train/a.jpg"
    assert not seen.samefile(original)
    assert seen.read_bytes() == original.read_bytes()


def test_years_of_a_devkit(tmp_path: Path) -> None:
    devkit(tmp_path / "kit/VOC2007", "train", {"000001": annotation()})
    devkit(tmp_path / "kit/VOC2012", "train", {"2007_000001": annotation(), "2008_000002": annotation()})
    devkit(tmp_path / "kit/VOC2007", "test", {"000009": annotation()})
    prepare_voc(voc(tmp_path, train=["images/train"], val="images/train2012", test="images/test2007"))
    names = {s: sorted(labels(tmp_path / "out/mine", s)) for s in ("train", "train2012", "test2007")}
    assert names == {
        "train": ["000001", "2007_000001", "2008_000002"],
        "train2012": ["2007_000001", "2008_000002"],
        "test2007": ["000009"],
    }


def broken(tmp_path: Path, text: str | bytes) -> str:
    """Return the error about a train split whose only annotation has this content; nothing may be left on disk."""
    devkit(tmp_path / "kit", "train", {"a": ""})
    (tmp_path / "kit/Annotations/a.xml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        prepare_voc(voc(tmp_path))
    assert not list((tmp_path / "out").iterdir())
    return str(caught.value)


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><name>&b;</name></annotation>'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            annotation(thing("potted plant", 1, 1, 9, 9)),
            r"a\.xml, object\[0\]: class 'potted plant' is not one of the 3 'names'",
        ),
        (annotation(thing("potted plant", 1, 1, 9, 9)), r"Did you mean 'pottedplant'\?$"),
        (annotation(thing("zebra", 1, 1, 9, 9, DIFFICULT)), r"class 'zebra'"),
        (annotation(thing("cat", 1, 1, 9, 9))[:-30], r"a\.xml: is not valid XML \(.*Expected a VOC annotation"),
        ("", "is not valid XML"),
        (b"\xff\xfe\x00garbage", "is not valid XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "is not valid XML"),
        (BOMB, r"is not valid XML \(EntitiesForbidden\)"),
        (OUTSIDE, r"is not valid XML \(EntitiesForbidden\)"),
        ("<annotation/>", r"a\.xml: <size><width> is None\. Expected a number"),
        (annotation(width=0), "size is 0 x 50"),
        (annotation(height="nan"), "<size><height> is 'nan'"),
        (annotation(thing("dog", 1, 1, 9, 9), thing("cat", 1, "x", 9, 9)), r"object\[1\]: <bndbox><ymin> is 'x'"),
        (annotation("<object><name>cat</name></object>"), r"object\[0\]: <bndbox><xmin> is None"),
        (annotation(thing("cat", 1, 1, 9, 9, "<difficult>maybe</difficult>")), r"object\[0\]: <difficult> is 'maybe'"),
        (annotation("<object/>"), r"object\[0\]: <bndbox><xmin> is None"),
        (annotation(thing("", 1, 1, 9, 9)), r"object\[0\]: class ''"),
    ],
)
def test_bad_annotations_are_reported(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert re.search(says, broken(tmp_path, text))


def test_missing_pieces_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devkit(tmp_path / "kit", "train", {"a": annotation()})
    with pytest.raises(UserError, match=r"no ImageSets/Main/trainn\.txt for split 'trainn'\. Did you mean 'train'\?"):
        prepare_voc(voc(tmp_path, train="images/trainn"))
    with pytest.raises(UserError, match=r"kat, where there is no folder\. Expected a VOCdevkit folder"):
        prepare_voc(voc(tmp_path, "kat"))
    with pytest.raises(UserError, match=r"^mine\.yaml, key 'source': is None\. Expected the path of a VOC"):
        prepare_voc(voc(tmp_path, source=None) | {"source": None})
    monkeypatch.delenv("SOME_VOC", raising=False)
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("SOME_VOC", value)
        with pytest.raises(
            UserError, match=r"'source': '\$SOME_VOC' is not set\. .*Set the environment variable SOME_VOC to"
        ):
            prepare_voc(voc(tmp_path) | {"source": "$SOME_VOC"})
    with pytest.raises(
        UserError, match=r"key 'train': 'pictures/train' cannot be prepared\. Expected 'images/<split>'"
    ):
        prepare_voc(voc(tmp_path, train="pictures/train"))
    (tmp_path / "kit/Annotations/a.xml").unlink()
    with pytest.raises(
        UserError,
        match=r"a\.xml: cannot be read \(No such file or directory\)\. Expected the annotation of an image",
    ):
        prepare_voc(voc(tmp_path))
    (tmp_path / "kit/JPEGImages/a.jpg").unlink()
    with pytest.raises(UserError, match=r"none of the 1 images of split 'train'; .*JPEGImages/a.jpg"):
        prepare_voc(voc(tmp_path))
    for name in ("../a", "b/a", "..\\a", "C:a", ".."):
        (tmp_path / "kit/ImageSets/Main/train.txt").write_text(f"{name} 1\n")
        with pytest.raises(UserError, match="is not an image's name"):
            prepare_voc(voc(tmp_path))
    (tmp_path / "kit/ImageSets/Main/train.txt").write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match=r"train\.txt: is not UTF-8 text\. Expected a list of image names"):
        prepare_voc(voc(tmp_path))
    assert not list((tmp_path / "out").iterdir())


VALID = annotation(thing("cat", 1, 1, 9, 9, DIFFICULT), thing("dog", 91, 41, 120, 70))
TEXT = st.one_of(st.text(max_size=8), st.sampled_from(["1", "-3", "1e999", "nan", "cat", "0", "9" * 400, "1_0"]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_malformed_annotations_end_in_a_user_error_or_in_valid_labels(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "kit"
    if not folder.exists():
        devkit(folder, "train", {"a": VALID})
    if data.draw(st.booleans(), label="cut bytes"):
        raw = bytearray(VALID.encode())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    else:
        root = ElementTree.fromstring(VALID)  # noqa: S314 - our own text
        element = data.draw(st.sampled_from(list(root.iter())))
        element.text = data.draw(TEXT)
        if data.draw(st.booleans()):
            for child in list(element)[: data.draw(st.integers(0, 2))]:
                element.remove(child)
        content = ElementTree.tostring(root)
    (folder / "Annotations/a.xml").write_bytes(content)
    split = Split("train", {name: i for i, name in enumerate(NAMES)}, tmp_path / "annotations")
    (tmp_path / "annotations/train/a.xml").unlink(missing_ok=True)
    check_pictures(pictures(folder, split), "a.xml")
