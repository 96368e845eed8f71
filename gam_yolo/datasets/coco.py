"""Prepare a dataset from COCO's format, as COCO and Roboflow lay it out.

Ultralytics' own `convert_coco` (8.4.190) is not used, for four reasons. It does not clip, so one box beyond the border
makes Ultralytics drop the whole image as corrupt. It maps ids by COCO's table or as `id - 1`, which writes `None` or a
wrong class for other datasets. It does not count what it leaves out. It writes in place, so an interruption leaves a
folder that looks complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gam_yolo.annotations.coco import annotation_file, image_places, read_coco_file
from gam_yolo.annotations.images import is_file, is_safe_name
from gam_yolo.datasets.prepared import Picture, Split, link, source_folder, write_dataset
from gam_yolo.errors import UserError

__all__ = ["pictures", "prepare_coco"]


def prepare_coco(data: Mapping[str, Any]) -> None:
    """Make the dataset of a YAML ready from a local folder of COCO files; for the YAML's `download:` key.

    Args:
        data: The YAML as Ultralytics hands it over. `source` names a folder with
            `annotations/instances_<split>.json` and the images in `<split>/` or `images/<split>/`, or with
            `<split>/_annotations.coco.json` beside the images, as Roboflow exports it. Splits are named as in
            `val2017.txt` or `images/val2017`.

    Raises:
        UserError: The source or a file in it is missing or is not what it should be.
    """
    source = source_folder(
        data, "a COCO folder (annotations/instances_<split>.json and <split>/, or <split>/_annotations.coco.json)"
    )
    write_dataset(data, lambda split: pictures(source, split), str(source))


def pictures(source: Path, split: Split) -> Iterator[Picture]:
    """Yield the pictures of one split; see `prepare_coco`.

    Raises:
        UserError: The split, a record or a class is missing or is not what it should be.
    """
    file = annotation_file(source, split.name)
    content = read_coco_file(file)
    link(file, split.annotations / f"instances_{split.name}.json")
    looked: list[Path] = []
    for row, image in enumerate(content.images):
        at = f"{file}, images[{row}]"
        if not image.name:
            raise UserError("key 'file_name' is missing", at=at, expected="the image's file name")
        if not is_safe_name(image.name):
            raise UserError(f"file_name {image.name!r:.120} leaves the image folder", at=at, expected="a name below it")
        places = image_places(file, split.name, image.name)
        if found := next(filter(is_file, places), None):
            yield split.picture(replace(image, file=found, name=image.name.replace("\\", "/")))
        else:
            split.tally.missing += 1
            looked = looked or places[:4]  # under the name as it is written
    if looked and not split.tally.images:
        raise UserError(
            f"has none of the {split.tally.missing} images of {file}: the first is neither at "
            f"{' nor at '.join(str(place) for place in looked)}",
            at=source,
        )
