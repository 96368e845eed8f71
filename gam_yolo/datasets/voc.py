"""PASCAL VOC on disk (XML annotations, image set lists) to what Ultralytics reads.

Rules, as the VOC development kit has them: boxes marked `difficult` are left out of training; coordinates are numbers
of pixels, the first is 1 and the last is in the box, so that (xmin, xmax) covers [xmin - 1, xmax] on a ruler.
(Ultralytics' VOC.yaml takes xmax - xmin for the width: one pixel less, at every box.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError  # the names alone: defusedxml does the parsing

from defusedxml.ElementTree import fromstring

from gam_yolo import ultralytics_api
from gam_yolo.datasets.prepared import Box, Picture, Split, is_safe_name, link, prepare, source_folder
from gam_yolo.errors import UserError, nearest
from gam_yolo.io import read_text, xml_number

__all__ = ["prepare_voc", "read_voc"]


def prepare_voc(data: Mapping[str, Any]) -> None:
    """Make the dataset of a YAML ready from a local folder in VOC's layout; for the YAML's `download:` key.

    Args:
        data: The YAML as Ultralytics hands it over. `source` names a folder with `Annotations/`, `ImageSets/Main/` and
            `JPEGImages/`, or one that holds such folders by year: `VOC2007/`, `VOC2012/`. A split `images/train` takes
            every year's `train.txt`, and `images/train2007` that of 2007 alone.

    Raises:
        UserError: If the source or a file in it is missing or is not what it should be.
    """
    source = source_folder(data, "a VOCdevkit folder (Annotations/, ImageSets/Main/, JPEGImages/)")
    prepare(data, lambda split: read_voc(source, split), str(source))


def read_voc(source: Path, split: Split) -> Iterator[Picture]:
    """Yield the pictures of one split; see `prepare_voc`.

    Raises:
        UserError: If the split, an annotation or a class is missing or is not what it should be.
    """
    for image_set in _image_sets(source, split.name):
        folder = image_set.parents[2]
        formats = ultralytics_api.image_formats()
        images = {p.stem: p for p in (folder / "JPEGImages").glob("*") if p.suffix[1:].lower() in formats}
        for name in _image_names(image_set):
            if name not in images:
                split.tally.missing += 1
                continue
            annotation = folder / "Annotations" / f"{name}.xml"
            width, height, boxes = _read_annotation(annotation, split)
            link(annotation, split.annotations / split.name / annotation.name)
            yield Picture(images[name].name, images[name], width, height, boxes)


def _image_sets(source: Path, split: str) -> list[Path]:
    """Return the lists of a split: `<split>.txt` of every year, or `<name>.txt` of the year in `<name><year>`."""
    lists = sorted([*source.glob("ImageSets/Main/*.txt"), *source.glob("VOC[0-9]*/ImageSets/Main/*.txt")])
    found = [p for p in lists if p.stem == split]
    if not found and (dated := re.fullmatch(r"(.+?)(\d{4})", split)):
        found = [p for p in lists if p.stem == dated[1] and p.parents[2].name == f"VOC{dated[2]}"]
    if not found:
        raise UserError(
            f"{source}: no ImageSets/Main/{split}.txt for split '{split}'{nearest(split, {p.stem for p in lists})}"
        )
    return found


def _image_names(image_set: Path) -> dict[str, None]:
    """Return the images that a list names, each once and in order; lines may carry a second column."""
    lines = read_text(image_set, "a list of image names").splitlines()
    names = dict.fromkeys(line.split()[0] for line in lines if line.strip())
    for name in names:
        if not is_safe_name(name) or "/" in name or "\\" in name:
            raise UserError(
                f"{image_set}: '{name}' is not an image's name; expected a file name without folder and suffix"
            )
    return names


def _read_annotation(file: Path, split: Split) -> tuple[float, float, list[tuple[int, Box]]]:
    """Return width, height and labels of one annotation file."""
    try:
        root: Element = fromstring(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file}: missing, but the image set for split '{split.name}' names it") from None
    except (ParseError, ValueError, LookupError) as error:  # broken, forbidden by defusedxml, of an unknown encoding
        # The text of defusedxml's errors is the repr of an entity, which may be anything: the kind says enough.
        detail = error if isinstance(error, ParseError) else type(error).__name__
        raise UserError(f"{file}: not an XML annotation that can be read: {detail}") from None
    width, height = (xml_number(root, f"size/{side}", str(file)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise UserError(f"{file}: size is {width:g} x {height:g}; expected the image's width and height in pixels")
    boxes = []
    for row, item in enumerate(root.findall("object")):
        where = f"{file}: object {row}"
        index = split.class_index((item.findtext("name") or "").strip(), where)
        difficult = item.find("difficult") is not None and xml_number(item, "difficult", where) != 0
        xmin, ymin, xmax, ymax = (
            xml_number(item, f"bndbox/{edge}", where) for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        if difficult:
            split.tally.difficult += 1
        elif xmin >= xmax or ymin >= ymax:  # read as pixel numbers, equal ends are one pixel: a click, not an object
            split.tally.degenerate += 1
        elif inside := split.clip((xmin - 1, ymin - 1, xmax, ymax), width, height):
            boxes.append((index, inside))
    return width, height, boxes
