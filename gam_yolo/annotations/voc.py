"""Read the XML format of PASCAL VOC (development kit, section 4.1)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # the names alone: defusedxml does the parsing

from defusedxml.ElementTree import fromstring

from gam_yolo import ultralytics_api
from gam_yolo.annotations.data import GroundTruth, ImageId
from gam_yolo.annotations.images import composed, image_id_of, is_file, is_safe_name
from gam_yolo.annotations.rules import BEYOND, AnnotatedImage, Object, Tally, ground_truth
from gam_yolo.errors import UserError, similar
from gam_yolo.io import read_text, xml_number

__all__ = [
    "annotation_file",
    "image_lists",
    "image_names",
    "image_sets",
    "images_by_stem",
    "one_file",
    "read_voc",
    "read_voc_file",
]

FLAGS = {"": 0.0, "unspecified": 0.0, "false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}
"""What annotation tools write for `difficult` beside numbers, in any case."""


def read_voc(
    folder: str | Path,
    split: str = "val",
    classes: Sequence[str] | None = None,
    *,
    images: Iterable[Path] | None = None,
    first_pixel: int = 1,
    leave_out: bool = False,
) -> GroundTruth:
    """Read one split of a folder laid out like `VOCdevkit/VOC2007`.

    Args:
        folder: Holds `Annotations/*.xml` and `ImageSets/Main/<split>.txt`, or nothing but the split's `*.xml`.
        split: Name of the image list.
        classes: Class names in the model's order; the sorted names that occur if not given.
        images: The image files of the split, for their sizes; `JPEGImages/*` if not given.
        first_pixel: The number of an image's first pixel: VOC's 1, or 0 for tools that write box edges from 0.
        leave_out: Whether images that are not among `images` are left out.

    Raises:
        UserError: A file is missing or broken, an object's class is not one of `classes`, or sizes differ from the
            images'.
    """
    folder, tally = Path(folder), Tally()
    annotations, listing, stems = _listed(folder, split, tally)
    files = images_by_stem(folder / "JPEGImages" if images is None else images)
    if images is not None:
        tally.missing = sum(composed(stem) not in files for stem in stems)
        stems = [stem for stem in stems if composed(stem) in files or not leave_out]
    if not stems:
        raise UserError("lists no images", at=listing)
    ids: dict[ImageId, str] = {image_id_of(f"{stem}.xml"): stem for stem in stems}
    if len(ids) < len(stems):
        raise UserError("has image names that are the same number, which Ultralytics cannot tell apart", at=listing)
    read = []
    for image_id in sorted(ids, key=lambda i: (isinstance(i, str), i)):
        path = annotation_file(annotations, ids[image_id])
        read.append(read_voc_file(path, one_file(files, path.stem), first_pixel, tally))
    names = tuple(classes) if classes is not None else tuple(sorted({o.name for image in read for o in image.objects}))
    return ground_truth(read, names, str(folder), tally=tally, names=classes or ())


def read_voc_file(path: Path, file: Path | None, first_pixel: int, tally: Tally) -> AnnotatedImage:
    """Read the annotation of one image.

    The image is the one that has the annotation's name: `<filename>` is often wrong.

    Args:
        path: The XML file.
        file: The image, if known.
        first_pixel: As in `read_voc`.
        tally: Counts boxes whose coordinates do not look like VOC's.

    Raises:
        UserError: It cannot be read, or is not a VOC annotation.
    """
    root = _root(path)
    if root.find("size") is None and root.find("object") is not None:  # the file of the image says its size
        width = height = float("nan")
    else:
        width, height = (xml_number(root, f"size/{side}", str(path)) for side in ("width", "height"))
    if width == height == 0:  # what tools write that do not know it
        width = height = float("nan")
    if width <= 0 or height <= 0:
        raise UserError(f"size is {width:g} x {height:g}", at=path, expected="the image's width and height in pixels")
    objects = []
    for row, item in enumerate(root.findall("object")):
        at = f"{path}, object[{row}]"
        if len(item.findall("bndbox")) > 1:
            raise UserError("has several <bndbox>", at=at, expected="one for each object")
        ends = [xml_number(item, f"bndbox/{edge}", at) for edge in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = ends
        off_grid = left < 1 or top < 1 or any(end % 1 for end in ends)
        tally.off_grid += first_pixel == 1 and off_grid and max(right, bottom) > 1  # else it is another unit
        tally.extents += left + right <= (1 + BEYOND) * width and top + bottom <= (1 + BEYOND) * height
        tally.inverted += right < left or bottom < top
        # Equal ends are one pixel by VOC's count, and no extent by a count from 0: a click, not an object.
        extent = (right - left, bottom - top)
        if min(extent) > 0:
            extent = (extent[0] + first_pixel, extent[1] + first_pixel)
        name = (item.findtext("name") or "").strip()
        box = (left - first_pixel, top - first_pixel, *extent)
        objects.append(Object(row, name, box, difficult=_flag(item, at)))
    image_id = image_id_of(f"{path.stem}.jpg")
    name = f"{path.stem}.jpg" if file is None else file.name
    return AnnotatedImage(image_id, name, (width, height), objects, f"{path}, object", file)


def _flag(item: Element, at: str) -> bool:
    text = (item.findtext("difficult") or "").strip().lower()
    return bool(FLAGS[text] if text in FLAGS else xml_number(item, "difficult", at))


def _root(path: Path) -> Element:
    try:
        root: Element = fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", at=path, expected="the annotation of an image in the split"
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # broken, forbidden by defusedxml, of an unknown encoding
        # The text of defusedxml's errors is the repr of an entity, which may be anything: the kind says enough.
        reason = error if isinstance(error, ParseError) or type(error) is LookupError else type(error).__name__
        raise UserError(f"is not valid XML ({reason})", at=path, expected="a VOC annotation") from None
    return root


def _listed(folder: Path, split: str, tally: Tally) -> tuple[Path, Path, list[str]]:
    """Return the folder of the annotations, what lists a split's images, and their names without ending."""
    if not (folder / "ImageSets").is_dir():
        return folder, folder, sorted(path.stem for path in folder.glob("*.[xX][mM][lL]"))
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    return folder / "Annotations", listing, image_names(listing, tally)


def annotation_file(folder: Path, name: str) -> Path:
    """Return the annotation of an image, however its ending and its accents are written."""
    spellings = dict.fromkeys([name, composed(name), unicodedata.normalize("NFD", name)])
    found = [folder / f"{one}{ending}" for ending in (".xml", ".XML", ".Xml") for one in spellings]
    return next(filter(is_file, found), found[0])


def image_sets(source: Path, split: str) -> list[Path]:
    """Return the lists of a split: `<split>.txt` of every year, or `<name>.txt` of the year in `<name><year>`.

    Raises:
        UserError: There is none.
    """
    lists = image_lists(source)
    found = [p for p in lists if p.stem == split]
    if not found and (dated := re.fullmatch(r"(.+?)(\d{4})", split)):
        found = [p for p in lists if p.stem == dated[1] and p.parents[2].name == f"VOC{dated[2]}"]
    if not found:
        raise UserError(
            f"no ImageSets/Main/{split}.txt for split '{split}'",
            at=source,
            similar=similar(split, {p.stem for p in lists}),
        )
    return found


def image_lists(source: Path) -> list[Path]:
    """Return every list of images in a VOC folder, or in one that holds such folders by year."""
    return sorted([*source.glob("ImageSets/Main/*.txt"), *source.glob("VOC[0-9]*/ImageSets/Main/*.txt")])


def image_names(image_set: Path, tally: Tally) -> list[str]:
    """Return the image names of a list, each once and in order.

    A line may have a second column of -1, 0 or 1, as VOC's lists of one class have. Other blanks belong to the name, as
    does a last column with which the name is that of an annotation.

    Raises:
        UserError: The list cannot be read, or a name is not a file name.
    """
    lines = read_text(image_set, "a list of image names").splitlines()
    annotations = image_set.parents[2] / "Annotations"
    listed = []
    for line in filter(None, map(str.strip, lines)):
        name = re.sub(r"\s+(-1|0|1)$", "", line)
        listed.append(line if name != line and is_file(annotation_file(annotations, line)) else name)
    names = list(dict.fromkeys(listed))
    for row, name in enumerate(names, 1):
        if not is_safe_name(name) or "/" in name or "\\" in name:
            raise UserError(
                f"{name!r:.120} is not an image's name",
                at=f"{image_set}, name {row}",
                expected="a file name without folder and suffix",
            )
        stem, _, suffix = name.rpartition(".")
        if (
            suffix.lower() in ultralytics_api.image_formats()
            and is_file(annotation_file(annotations, stem))
            and not is_file(annotation_file(annotations, name))
        ):
            raise UserError(
                f"{name!r:.120} has a suffix", at=f"{image_set}, name {row}", expected=f"{stem!r:.120}, without suffix"
            )
    tally.repeated += len(listed) - len(names)
    return names


def images_by_stem(images: Path | Iterable[Path]) -> dict[str, list[Path]]:
    """Return image files, of a folder or given, by their names without ending."""
    formats = ultralytics_api.image_formats()
    found: dict[str, list[Path]] = {}
    for file in filter(is_file, images.glob("*")) if isinstance(images, Path) else images:
        if file.suffix[1:].lower() in formats:
            found.setdefault(composed(file.stem), []).append(file)
    return found


def one_file(files: dict[str, list[Path]], stem: str) -> Path | None:
    """Return the image of a name, None where there is none.

    Raises:
        UserError: There are several.
    """
    found = files.get(composed(stem), [])
    if len(found) > 1:
        names = " and ".join(sorted(file.name for file in found))
        raise UserError(
            f"{names} have the same name but for the suffix", at=found[0].parent, expected="one image per annotation"
        )
    return found[0] if found else None
