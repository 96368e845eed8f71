"""Groups of images in a comparison: those that are declared, and warnings of some that are not."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gam_yolo.annotations.classes import LabelledImages
from gam_yolo.annotations.images import base_name, image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.errors import option
from gam_yolo.evaluation import GroundTruth
from gam_yolo.evaluation.groups import Groups, GroupSpec, read_groups
from gam_yolo.io import write
from gam_yolo.report.formatting import printable
from gam_yolo.report.predictions import Settings
from gam_yolo.report.schema import ImageGroups

__all__ = ["declared_groups", "describe_groups", "undeclared_groups"]

_SPLITS = ("train", "val", "test")
_FEW = 5  # fewer groups than these are suggested only if their names differ by a number alone
_PURE = 0.8  # of the objects of a group are of one class, where the name of the group is that of the class
_STEP = 1000  # numbers that are further apart do not count frames
_HASH = 16  # width and height of the comparison of neighbouring pixels; 8 x 8 finds false pairs on plain surfaces
_ALIKE = 20  # of the 256 comparisons may differ; on VOC and COCO no two images differ by fewer than 39
_SHARE = 0.05  # of the images must have a near-duplicate for a warning
_MOST_IMAGES = 2000  # the first ones, which are compared with each other
_OTHERWISE = "If the images are independent, --groups none ends this warning."


def declared_groups(settings: Settings, truth: GroundTruth, paths: Mapping[int, Path]) -> tuple[bool, Groups | None]:
    """Read the groups that the user or the dataset YAML declares.

    Args:
        settings: What the user chose; takes precedence over the key `groups:` of the dataset YAML.
        truth: The images.
        paths: The image files that are known, by index.

    Returns:
        Whether anything is declared, and the groups; None if each image is its own.

    Raises:
        UserError: They cannot be read, or an image has no group.
    """
    spec: GroupSpec = settings.groups
    at = option("groups")
    content: dict[str, Any] = dataset(settings.data, settings.split) if settings.data else {}
    if spec is None:
        spec, at = content.get("groups"), f"{settings.data}, key 'groups'"
        if isinstance(spec, str) and spec.lower().endswith(".csv"):
            spec = Path(content["path"]) / spec
    names = [file if re.search(r"[\\/]", file) else str(paths.get(i, file)) for i, file in enumerate(truth.files)]
    others = [str(file) for split in _SPLITS if split != settings.split for file in _images(content.get(split))]
    return spec is not None, read_groups(spec, names, at, others)


def describe_groups(groups: Groups | None) -> ImageGroups | None:
    """Return what the report says of the groups."""
    if groups is None:
        return None
    sizes = groups.sizes
    return ImageGroups(groups.by, len(sizes), int(sizes.max()), groups.names[int(sizes.argmax())])


def undeclared_groups(
    truth: GroundTruth | LabelledImages, paths: Mapping[int, Path], listing: Path | None
) -> Iterator[str]:
    """Yield a warning where names or images suggest groups.

    Args:
        truth: The images.
        paths: The image files that are known, by index.
        listing: The CSV file to write near-duplicates to; None to write none.
    """
    if found := _groups_by_name(truth):
        option, groups = found
        largest, size = Counter(groups).most_common(1)[0]
        yield (
            f"Warning: by their file names, the {len(groups)} images seem to belong to {len(set(groups))} groups; the "
            f"largest, '{printable(largest)}', has {size}. If the images of a group are alike, as frames of one video "
            "are, then the intervals are too narrow. Resample groups with the option "
            f"--groups '{option}', or with groups: '{option}' in the dataset YAML. {_OTHERWISE}"
        )
        return
    clusters = _near_duplicates(dict(list(paths.items())[:_MOST_IMAGES]))
    alike = [image for cluster in clusters for image in cluster]
    if len(alike) < max(2, _SHARE * min(len(paths), _MOST_IMAGES)):
        return
    first, second = (base_name(truth.files[image]) for image in clusters[0][:2])
    option = "FILE.csv"
    if listing:
        write(listing, _listing(truth, clusters))
        option = shlex.quote(str(listing))
    yield (
        f"Warning: {len(alike)} of {min(len(paths), _MOST_IMAGES)} images look almost the same as another one, such as "
        f"{printable(first)} and {printable(second)}. Images that are alike make the intervals too narrow. Resample "
        f"groups with the option --groups {option}, a CSV file of images and groups. {_OTHERWISE}"
    )


def _images(entry: Any) -> list[Path]:
    try:
        return image_files(entry, "") if entry else []
    except (ValueError, OSError):  # whoever only evaluates may not have them
        return []


def _groups_by_name(truth: GroundTruth | LabelledImages) -> tuple[str, list[str]] | None:
    """Return the option that declares the groups which the file names suggest, and the group of each image.

    They are suggested by running numbers after a common beginning or in a folder of their own.
    """
    names = [base_name(file) for file in truth.files]
    copy = r"\.rf\.\w+" if all(".rf." in name for name in names) else ""  # Roboflow's ending
    for expression in (rf"^(.+?)\d+\D*{copy}\.\w+$", rf"^(.+?)\d+\D+\d+\D*{copy}\.\w+$"):
        found = [match[1] for name in names if (match := re.search(expression, name))]
        if len(found) == len(names) and _look_like_groups(found, [re.sub(copy, "", name) for name in names], truth):
            return expression, found
    folders = [file.replace("\\", "/").rpartition("/")[0] for file in truth.files]
    if len(set(folders)) >= _FEW and _look_like_groups(folders, [f"/{name}" for name in names], truth):
        return "parent", folders
    return None


def _look_like_groups(groups: Sequence[str], names: Sequence[str], truth: GroundTruth | LabelledImages) -> bool:
    """Return whether images with these groups and names are likely to be taken one after the other."""
    sizes = Counter(groups)
    if len(sizes) < 2 or sum(size for size in sizes.values() if size > 1) < len(names) / 2:
        return False
    if len(sizes) < _FEW and len(set(map(_shape, sizes))) > 1:  # such as two cameras' IMG_ and DSC_
        return False
    if all(re.fullmatch(r"(19|20)\d\d\W?_?", group) for group in sizes):  # years, as in VOC 2012
        return False
    rests = [name[len(group) :] if name.startswith(group) else name for group, name in zip(groups, names, strict=True)]
    if Counter(map(_shape, rests)).most_common(1)[0][1] < 0.9 * len(names):  # such as hexadecimal names
        return False
    return not _are_classes(groups, truth) and _run(groups, rests)


def _shape(text: str) -> str:
    return re.sub(r"\d+", "#", text)


def _are_classes(groups: Sequence[str], truth: GroundTruth | LabelledImages) -> bool:
    """Return whether each group has mainly objects of a class of its own: `crazing_12.jpg` names what it shows."""
    labels: dict[str, list[int]] = defaultdict(list)
    for image, label in zip(truth.image.tolist(), truth.label.tolist(), strict=True):
        labels[groups[image]].append(label)
    main = [(*Counter(found).most_common(1)[0], len(found)) for found in labels.values()]
    pure = all(count >= _PURE * total for _, count, total in main)
    return pure and len(main) > 1 and len({label for label, *_ in main}) == len(main)


def _run(groups: Sequence[str], rests: Sequence[str]) -> bool:
    """Return whether one of the numbers in the rests of the names counts within the groups, in small steps."""
    numbers: dict[str, list[list[int]]] = defaultdict(list)
    for group, rest in zip(groups, rests, strict=True):
        numbers[group].append([int(digits[:15]) for digits in re.findall(r"\d+", rest)])
    columns = min(len(row) for rows in numbers.values() for row in rows)
    steps = [
        np.concatenate([np.diff(sorted(row[column] for row in rows)) for rows in numbers.values()])
        for column in range(columns)
    ]
    return any(np.median(found) <= _STEP for found in steps)


def _near_duplicates(paths: Mapping[int, Path]) -> list[list[int]]:
    """Return the clusters of images that look almost the same, the largest first."""
    hashes = {image: found for image, path in paths.items() if (found := _difference_hash(path)) is not None}
    if not hashes:
        return []
    images = np.array(list(hashes))
    signs = np.where(np.stack(list(hashes.values())), 1.0, -1.0).astype(np.float32)
    differing = (signs.shape[1] - signs @ signs.T) / 2
    cluster = np.arange(len(images))
    for i, j in zip(*np.nonzero(np.triu(differing <= _ALIKE, 1)), strict=True):
        cluster[cluster == cluster[j]] = cluster[i]
    clusters = [images[cluster == c].tolist() for c in np.unique(cluster)]
    return sorted((members for members in clusters if len(members) > 1), key=len, reverse=True)


def _difference_hash(path: Path) -> NDArray[np.bool_] | None:
    """Compare each pixel of a tiny grey copy with its right neighbour; None for an image of one colour.

    Source: N. Krawetz, "Kind of like that", https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (8 * _HASH, 8 * _HASH))
            small = np.asarray(image.convert("L").resize((_HASH + 1, _HASH)), dtype=np.intp)
    except Exception:  # the comparison itself says which image cannot be read
        return None
    return (small[:, 1:] > small[:, :-1]).ravel() if np.ptp(small) > _HASH else None


def _listing(truth: GroundTruth | LabelledImages, clusters: Sequence[Sequence[int]]) -> str:
    """Write a CSV file in which near-duplicates are a group, and every other image is its own."""
    group = {image: cluster[0] for cluster in clusters for image in cluster}
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("image", "group"))
    names = [base_name(file) for file in truth.files]
    names = names if len(set(names)) == len(names) else [*truth.files]  # equal names in several folders
    rows.writerows((file, names[group.get(i, i)]) for i, file in enumerate(truth.files))
    return out.getvalue()
