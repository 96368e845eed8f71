"""The one table of rules that preparation and evaluation share.

| case | rule |
| --- | --- |
| crowd (COCO `iscrowd`) | not trained on; a region that the evaluator ignores |
| difficult (VOC) | not trained on; not counted by the VOC protocol. A number except 0, "true" or "yes" |
| degenerate | a box without width or height, or wholly outside its image: left out and counted |
| clipping | a box that reaches beyond its image is cut at the border and counted, unless by less than 0.01 pixels |
| wrong unit | rejected: all boxes within one pixel, more than half well beyond their images, or all degenerate |
| corners | rejected: all boxes possible as x1, y1, x2, y2, more than a tenth well beyond their images otherwise |
| extents | VOC: rejected likewise, where more than a tenth have xmax < xmin, and all are possible as x, y, w, h |
| mask area | of 0 or less, of less than a pixel, or much above that of the box: the box's counts, and is counted |
| pixel origin | VOC counts pixels from 1 and includes the last; with `first_pixel: 0`, coordinates are edges from 0 |
| image size | the file's as displayed (after EXIF rotation); boxes are scaled where the annotated size is a multiple |
| wrong frame | an image whose size differs otherwise (EXIF rotation, swapped sides, another image) is rejected |
| unknown frame | counted: images annotated without a size, and with an EXIF rotation if the size fits both ways |
| missing image | left out and counted, where the folder of images is known |
| truncated image | counted, where a JPEG or PNG file lacks its end |
| repeated image | a name that a list repeats counts once |
| class names | compared as text without outer blanks; each name once |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from gam_yolo.annotations.data import GroundTruth, ImageId
from gam_yolo.annotations.images import is_truncated, read_frame
from gam_yolo.errors import UserError, similar

__all__ = [
    "BEYOND",
    "MIN_OBJECTS",
    "AnnotatedImage",
    "Box",
    "Object",
    "Tally",
    "apply_rules",
    "class_index",
    "ground_truth",
    "unique_names",
]

Box = tuple[float, float, float, float]
"""Left edge, top edge, width and height, in pixels from the image's top left corner."""

ROUNDING = 0.01
"""Pixels by which a box may reach beyond its image. COCO and label files round to about that."""

BEYOND = 0.05
"""Share of the image's side by which a box has to reach beyond it to count as another unit's."""

MIN_OBJECTS = 10
"""Objects from which on most boxes beyond their images are an error: one or two may be anything."""


@dataclass(frozen=True, slots=True)
class Object:
    """One annotated object.

    Attributes:
        row: Its position in its file.
        name: Its class.
        box: Where it is.
        area: Area of its mask in square pixels; None where the file has none, and the box's area counts.
        crowd: COCO's `iscrowd`.
        difficult: VOC's `difficult`.
    """

    row: int
    name: str
    box: Box
    area: float | None = None
    crowd: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """One image as its annotation describes it.

    Attributes:
        id: Its id: COCO's, or its file name without folder and suffix, a number where that consists of digits.
        name: Its file name; empty where a COCO file does not say.
        size: Width and height in pixels that the annotation declares; NaN where it does not.
        objects: Its objects, in the order of the file.
        at: Where the objects are, for messages: "val.json, annotations".
        file: Where the image lies, if known.
    """

    id: ImageId
    name: str
    size: tuple[float, float]
    objects: Sequence[Object]
    at: str
    file: Path | None = None


def _count(text: str) -> int:
    return field(default=0, metadata={"text": text})


@dataclass
class Tally:
    """What became of a split's images and objects. An object is one of written, difficult, crowd and degenerate."""

    images: int = _count("images")
    boxes: int = _count("boxes written")
    difficult: int = _count("difficult left out")
    crowd: int = _count("crowd left out")
    degenerate: int = _count("degenerate left out")
    clipped: int = _count("clipped to the image")
    empty: int = _count("images without boxes")
    missing: int = _count("images whose file is missing")
    scaled: int = _count("images saved at another size than annotated, their boxes scaled")
    unproven: int = _count(
        "images with an EXIF rotation, whose annotation does not show whether it was made on the rotated image"
    )
    unsized: int = _count("images without a size in their annotation, so boxes are taken for pixels of the files")
    off_grid: int = _count("boxes with coordinates of 0 or fractions, as tools that count from 0 write")
    repeated: int = _count("repeated image names, counted once")
    truncated: int = _count("images are truncated: the end of their file is missing")
    within_pixel: int = 0  # objects with no coordinate above 1
    beyond: int = 0  # objects that extend well beyond their image
    corners: int = 0  # objects whose four numbers may be corners
    extents: int = 0  # VOC's objects whose four numbers may be a corner and an extent
    inverted: int = 0  # those that end before they begin
    wrong: list[tuple[str, str]] = field(default_factory=list)  # kind and description of each image in a wrong frame

    def __str__(self) -> str:
        always = {f.name for f in fields(self)[:8]}
        return ", ".join(
            f"{getattr(self, f.name)} {f.metadata['text']}"
            for f in fields(self)
            if f.metadata and (f.name in always or getattr(self, f.name))
        )

    @classmethod
    def parse(cls, text: str) -> Tally:
        """Read what `str` wrote.

        Examples:
            >>> Tally.parse(str(Tally(images=3, scaled=1))) == Tally(images=3, scaled=1)
            True
        """
        names = {f.metadata["text"]: f.name for f in fields(cls) if f.metadata}
        found = cls()
        for text_of_one, name in names.items():
            before, separator, _ = f", {text},".partition(f" {text_of_one},")
            if separator:
                setattr(found, name, int(before.rpartition(" ")[2]))
        return found

    def warnings(self) -> list[str]:
        """Return what a user should look at, a sentence each."""
        hints = {"off_grid": ". If so, set 'first_pixel: 0' in the dataset YAML"}
        found = [
            f"{getattr(self, f.name)} {f.metadata['text']}{hints.get(f.name, '')}"
            for f in fields(self)
            if f.name in ("missing", "scaled", "unproven", "unsized", "off_grid", "repeated", "truncated")
            and getattr(self, f.name)
        ]
        if self.images and not self.objects:
            found.append("no image has an object")
        if 2 * self.degenerate > self.objects:
            found.append(f"{self.degenerate} of {self.objects} objects have no extent or lie outside their image")
        return found

    @property
    def objects(self) -> int:
        """All objects that were read."""
        return self.boxes + self.difficult + self.crowd + self.degenerate

    def reject_wrong_frames(self, source: str | Path) -> None:
        """Raise a UserError if any image has another frame than its annotation declares, or most boxes another unit."""
        if self.wrong:
            kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in self.wrong).items())
            number = "1 image differs" if len(self.wrong) == 1 else f"{len(self.wrong)} images differ"
            raise UserError(
                f"{number} in shape from the annotation ({kinds}); the first is {self.wrong[0][1]}",
                at=source,
                expected="boxes in the frame of the image as it is displayed",
                fix="Correct the annotations, or save the images with their EXIF rotation applied before annotating",
            )
        wrong = ""
        if self.objects and self.within_pixel == self.objects:
            wrong = f"all {self.objects} boxes lie within one pixel, as numbers relative to the image do"
        elif self.objects and self.degenerate == self.objects:
            wrong = f"all {self.objects} objects have no extent or lie outside their image"
        elif self.objects >= MIN_OBJECTS and 2 * self.beyond > self.objects:
            wrong = f"{self.beyond} of {self.objects} boxes extend well beyond their image, as in another unit or order"
        elif self.corners == self.objects >= MIN_OBJECTS and 10 * self.beyond > self.objects:
            wrong = f"{self.beyond} of {self.objects} boxes extend well beyond their image, and none would as corners"
        elif self.extents == self.objects >= MIN_OBJECTS and 10 * self.inverted > self.objects:
            wrong = f"{self.inverted} of {self.objects} boxes end before they begin, but not as [x, y, width, height]"
        if wrong:
            raise UserError(
                wrong,
                at=source,
                expected="boxes in pixels: [x, y, width, height] in COCO, xmin < xmax and ymin < ymax in VOC",
                fix="Convert the annotations",
            )


def apply_rules(image: AnnotatedImage, tally: Tally) -> AnnotatedImage:
    """Return an image with its real size and the objects that count, boxes in pixels of the file; count the rest."""
    width, height = image.size
    across = down = 1.0
    if image.file is not None:
        width, height, across, down = _real_frame(image, image.file, tally)
        tally.truncated += is_truncated(image.file)
    objects = []
    for thing in image.objects:
        box: Box = thing.box
        area = thing.area
        tally.within_pixel += _within_pixel(box)
        if (across, down) != (1, 1):
            box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
            area = None if area is None else area * across * down
        tally.beyond += _is_beyond(box, width, height)
        tally.corners += not _is_beyond((0, 0, *box[2:]), width, height) and box[0] <= box[2] and box[1] <= box[3]
        clipped = _clip(box, width, height)
        if clipped is None:
            tally.degenerate += 1
            continue
        tally.clipped += clipped is not box
        tally.difficult += thing.difficult
        tally.crowd += thing.crowd and not thing.difficult
        tally.boxes += not (thing.difficult or thing.crowd)
        objects.append(thing if clipped is thing.box else replace(thing, box=clipped, area=area))
    tally.images += 1
    tally.empty += all(thing.difficult or thing.crowd for thing in objects)
    return replace(image, size=(width, height), objects=objects)


def _real_frame(image: AnnotatedImage, file: Path, tally: Tally) -> tuple[float, float, float, float]:
    """Return width and height of the file, and the factors from the annotation's pixels to the file's."""
    frame = read_frame(file)
    real, (width, height) = (frame.width, frame.height), image.size
    if math.isnan(width) or math.isnan(height):
        tally.unproven += frame.rotated
        tally.unsized += not frame.rotated
        return *real, 1, 1
    if _one_factor((width, height), real):
        tally.scaled += (width, height) != real
        tally.unproven += frame.rotated and frame.stored == real
        return *real, real[0] / width, real[1] / height
    if frame.stored != real and _one_factor((width, height), frame.stored):
        kind = "annotated without the rotation in the image's EXIF data"
    elif _one_factor((height, width), real):
        kind = "with width and height swapped"
    else:
        kind = "of another shape"
    tally.wrong.append((kind, f"{file}: {real[0]} x {real[1]} pixels, annotated as {width:g} x {height:g}"))
    return *real, 1, 1


def _one_factor(annotated: tuple[float, float], real: tuple[int, int]) -> bool:
    """Return whether one factor leads from a size to another, but for rounding to whole pixels."""
    low = max((r - 1) / a for r, a in zip(real, annotated, strict=True))
    return low < min((r + 1) / a for r, a in zip(real, annotated, strict=True))


def _within_pixel(box: Box) -> bool:
    """Return whether no coordinate is above 1, but for rounding. VOC's pixel 0 begins at -1."""
    x, y, w, h = box
    return all(-1 - BEYOND <= edge <= 1 + BEYOND for edge in (x, y, x + w, y + h))


def _is_beyond(box: Box, width: float, height: float) -> bool:
    x, y, w, h = box
    across, down = BEYOND * width, BEYOND * height
    return x < -across or y < -down or x + w > width + across or y + h > height + down


def _clip(box: Box, width: float, height: float) -> Box | None:
    """Return the part of a box inside its image, the very same box where that is all of it, None where it is nothing.

    A comparison with NaN, where the image's size is unknown, is false: then only the extent is looked at.
    """
    x, y, w, h = box
    if not (w > 0 and h > 0) or x + w <= 0 or y + h <= 0 or x >= width or y >= height:
        return None
    if x >= -ROUNDING and y >= -ROUNDING and not (x + w > width + ROUNDING or y + h > height + ROUNDING):
        return box
    left, top = max(x, 0.0), max(y, 0.0)
    # `min(a, nan)` is a: an unknown size clips nothing.
    return left, top, min(x + w, width) - left, min(y + h, height) - top


def class_index(name: str, classes: Mapping[str, int], at: str) -> int:
    """Return the index of a class.

    Raises:
        UserError: It is not one of `classes`.
    """
    if name not in classes:
        raise UserError(
            f"class {name!r:.80} is not one of the {len(classes)} 'names' of the dataset YAML",
            at=at,
            similar=similar(name, classes),
        )
    return classes[name]


def unique_names(names: Iterable[object], at: str) -> tuple[str, ...]:
    """Return class names as text.

    Raises:
        UserError: Two are equal. Results are reported by name, so that one could not be told from the other.
    """
    found = tuple(str(name).strip() for name in names)
    for name, count in Counter(found).items():
        if count > 1:
            raise UserError(f"{count} classes have the name {name!r:.80}", at=at, expected="each name once")
    return found


def ground_truth(
    images: Iterable[AnnotatedImage],
    classes: Sequence[str],
    source: str,
    *,
    tally: Tally,
    category_ids: Sequence[int] = (),
    names: Sequence[str] = (),
    by_row: bool = False,
) -> GroundTruth:
    """Apply the rules to images and collect their objects for the evaluator.

    Args:
        images: The images, in the order of their ids.
        classes: Class names.
        source: Where they were read.
        tally: Counts what the rules leave out.
        category_ids: The id of each class in COCO files; 1, 2, ... if not given, as Ultralytics numbers classes.
        names: Class names in the model's order, where known.
        by_row: Whether objects are ordered by their row, of one file for all images.

    Raises:
        UserError: A class is unknown, or an image is in another frame than its annotation.
    """
    index = {name: i for i, name in enumerate(classes)}
    settled, labels = [], []
    scaled: dict[int, tuple[float, float]] = {}
    for number, image in enumerate(images):
        labels.append({o.row: class_index(o.name, index, f"{image.at}[{o.row}]") for o in image.objects})
        settled.append(apply_rules(image, tally))
        sides = [*zip(settled[-1].size, image.size, strict=True)]
        if any(abs(real - declared) > 1 for real, declared in sides):
            scaled[number] = sides[0][0] / sides[0][1], sides[1][0] / sides[1][1]
    tally.reject_wrong_frames(source)
    rows = [(thing, i, labels[i][thing.row]) for i, image in enumerate(settled) for thing in image.objects]
    if by_row:
        rows.sort(key=lambda row: row[0].row)
    things = [row[0] for row in rows]
    changed = {"degenerate boxes left out": tally.degenerate, "boxes clipped to their image": tally.clipped}
    counts = [f"{count} {what}" for what, count in changed.items() if count]
    return GroundTruth(
        source=source,
        ids=tuple(image.id for image in settled),
        files=tuple(image.name or str(image.id) for image in settled),
        sizes=np.array([image.size for image in settled], dtype=float).reshape(-1, 2),
        classes=tuple(classes),
        category_ids=tuple(category_ids or range(1, len(classes) + 1)),
        image=np.array([row[1] for row in rows], dtype=np.intp),
        label=np.array([row[2] for row in rows], dtype=np.intp),
        box=np.array([thing.box for thing in things], dtype=float).reshape(-1, 4),
        area=np.array([t.box[2] * t.box[3] if t.area is None else t.area for t in things], dtype=float),
        crowd=np.array([thing.crowd for thing in things], dtype=bool),
        difficult=np.array([thing.difficult for thing in things], dtype=bool),
        names=tuple(names),
        notes=(*counts, *tally.warnings()),
        scaled=scaled,
    )
