"""Prepare a dataset from PASCAL VOC's format: XML annotations and image set lists.

(Ultralytics' VOC.yaml takes xmax - xmin for the width: one pixel less, at every box.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gam_yolo.annotations.provenance import first_pixel
from gam_yolo.annotations.voc import annotation_file, image_names, image_sets, images_by_stem, one_file, read_voc_file
from gam_yolo.datasets.prepared import Picture, Split, link, source_folder, write_dataset, yaml_name
from gam_yolo.errors import UserError

__all__ = ["pictures", "prepare_voc"]


def prepare_voc(data: Mapping[str, Any]) -> None:
    """Make the dataset of a YAML ready from a local folder in VOC's layout; for the YAML's `download:` key.

    Args:
        data: The YAML as Ultralytics hands it over. `source` names a folder with `Annotations/`, `ImageSets/Main/` and
            `JPEGImages/`, or one that holds such folders by year: `VOC2007/`, `VOC2012/`. A split `images/train` takes
            every year's `train.txt`, and `images/train2007` that of 2007 alone. `first_pixel: 0` says that coordinates
            are box edges counted from 0, not VOC's pixel numbers from 1.

    Raises:
        UserError: The source or a file in it is missing or is not what it should be.
    """
    source = source_folder(data, "a VOCdevkit folder (Annotations/, ImageSets/Main/, JPEGImages/)")
    origin = first_pixel(data, yaml_name(data))
    write_dataset(data, lambda split: pictures(source, split, origin), str(source))


def pictures(source: Path, split: Split, first_pixel: int = 1) -> Iterator[Picture]:
    """Yield the pictures of one split; see `prepare_voc`.

    Raises:
        UserError: The split, an annotation or a class is missing or is not what it should be.
    """
    looked = ""
    for image_set in image_sets(source, split.name):
        folder = image_set.parents[2]
        images = images_by_stem(folder / "JPEGImages")
        for name in image_names(image_set, split.tally):
            file = one_file(images, name)
            if file is None:
                split.tally.missing += 1
                looked = looked or f"{folder / 'JPEGImages' / name}.jpg"
                continue
            annotation = annotation_file(folder / "Annotations", name)
            image = read_voc_file(annotation, file, first_pixel, split.tally)
            link(annotation, split.annotations / split.name / annotation.name)
            yield split.picture(image)
    if looked and not split.tally.images:
        raise UserError(
            f"has none of the {split.tally.missing} images of split '{split.name}'; the first would be {looked}, "
            "or with another ending",
            at=source,
        )
