"""The objects of a dataset split and one model's detections, as flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Detections", "GroundTruth", "ImageId"]

Array = NDArray[np.float64]
ImageId = int | str


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects of one dataset split.

    Images are in the order of their ids and objects in the order of their file. That order decides between detections
    or objects that tie, as in pycocotools. Boxes are `(x, y, width, height)` in pixels of the image as it is displayed,
    with the origin at its top left corner, so a VOC box of pixels 1 to 10 has x 0 and width 10.

    Attributes:
        source: Where it was read, for messages and reports.
        ids: Image ids, one per image.
        files: Image file names or paths, one per image.
        sizes: Image width and height in pixels, shape (images, 2); NaN where the source does not say.
        classes: Class names.
        category_ids: The id each class has in COCO files, in the order of `classes`.
        image: Each object's image, an index into `ids`, shape (objects,).
        label: Each object's class, an index into `classes`, shape (objects,).
        box: Each object's box, shape (objects, 4).
        area: Each object's area in square pixels: the mask's where the source has one, else the box's.
        crowd: COCO's `iscrowd`: a region of many objects.
        difficult: VOC's `difficult`: an object the VOC protocol does not count.
        names: Class names in the order of the model's, from the dataset YAML; empty where there is none.
        notes: What the rules left out or changed, and what looks suspicious, a sentence each.
        scaled: Of each image that was saved at another size than annotated, by more than a pixel: its index, and the
            factors across and down from the annotation's pixels to the image's.
    """

    source: str
    ids: tuple[ImageId, ...]
    files: tuple[str, ...]
    sizes: Array
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    image: NDArray[np.intp]
    label: NDArray[np.intp]
    box: Array
    area: Array
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scaled: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over image ids, class names and objects: two results are comparable where it is equal."""
        digest = hashlib.sha256(repr((self.ids, self.classes)).encode())
        for column in (self.image, self.label, self.box, self.area, self.crowd, self.difficult):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Detections:
    """One model's detections on the images of a `GroundTruth`, in the order of their file.

    Attributes:
        source: Where they were read, for messages and reports.
        image: Each detection's image, an index into the ground truth's `ids`, shape (detections,).
        label: Each detection's class, an index into the ground truth's `classes`, shape (detections,).
        box: `(x, y, width, height)` in pixels, shape (detections, 4).
        score: Confidence, shape (detections,).
    """

    source: str
    image: NDArray[np.intp]
    label: NDArray[np.intp]
    box: Array
    score: Array

    def left_out(self, truth: GroundTruth) -> tuple[int, int]:
        """Count the images with objects on which nothing at all was detected, and all images with objects."""
        with_objects = np.unique(truth.image)
        return len(np.setdiff1d(with_objects, self.image)), len(with_objects)
