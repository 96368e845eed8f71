"""Ground truth in the XML format of PASCAL VOC (development kit, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from gam_yolo.errors import UserError, nearest
from gam_yolo.evaluation.data import GroundTruth, ImageId
from gam_yolo.evaluation.files import image_id_of, refuse_repeats
from gam_yolo.io import read_text, xml_number

__all__ = ["read_voc"]


def read_voc(folder: str | Path, split: str = "val", classes: Sequence[str] | None = None) -> GroundTruth:
    """Read one split of a folder laid out like `VOCdevkit/VOC2007`.

    VOC counts pixels from 1 and the last one belongs to the box; here a box from pixel 1 to 10 has x 0 and width 10. An
    object without extent can never be found and is left out.

    Args:
        folder: Holds `Annotations/*.xml` and `ImageSets/Main/<split>.txt`, or nothing but the split's `*.xml`.
        split: Name of the image list.
        classes: Class names in the order of the detector's; the sorted names that occur if not given.

    Raises:
        UserError: A file is missing or broken, or an object's class is not one of `classes`.
    """
    folder = Path(folder)
    annotations, listing, stems = _listed(folder, split)
    if not stems:
        raise UserError(f"{listing}: lists no images")
    refuse_repeats(stems, str(listing), "image names")
    ids: dict[ImageId, str] = {image_id_of(f"{stem}.xml"): stem for stem in stems}
    if len(ids) < len(stems):
        raise UserError(f"{listing}: has image names that are the same number, which Ultralytics cannot tell apart")
    ordered = sorted(ids, key=lambda i: (isinstance(i, str), i))
    files: list[str] = []
    sizes: list[list[float]] = []
    objects: list[tuple[int, str, tuple[float, float, float, float], bool, Path]] = []
    for index, image_id in enumerate(ordered):
        path = annotations / f"{ids[image_id]}.xml"
        root = _root(path)
        files.append(root.findtext("filename") or f"{ids[image_id]}.jpg")
        sizes.append([xml_number(root, f"size/{side}", str(path)) for side in ("width", "height")])
        for entry in root.iter("object"):
            name = (entry.findtext("name") or "").strip()
            left, top, right, bottom = (
                xml_number(entry, f"bndbox/{k}", str(path)) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
            if box[2] > 0 and box[3] > 0:
                objects.append((index, name, box, (entry.findtext("difficult") or "0").strip() == "1", path))
    names = tuple(classes) if classes is not None else tuple(sorted({name for _, name, *_ in objects}))
    for _, name, _, _, path in objects:
        if name not in names:
            raise UserError(
                f"{path}: has an object '{name}', which is none of the {len(names)} classes{nearest(name, names)}"
            )
    boxes = np.array([box for _, _, box, _, _ in objects], dtype=float).reshape(-1, 4)
    return GroundTruth(
        source=str(folder),
        ids=tuple(ordered),
        files=tuple(files),
        sizes=np.array(sizes, dtype=float),
        classes=names,
        category_ids=tuple(range(1, len(names) + 1)),  # as Ultralytics numbers them in its predictions
        image=np.array([o[0] for o in objects], dtype=np.intp),
        label=np.array([names.index(o[1]) for o in objects], dtype=np.intp),
        box=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(len(objects), dtype=bool),
        difficult=np.array([o[3] for o in objects], dtype=bool),
    )


def _listed(folder: Path, split: str) -> tuple[Path, Path, list[str]]:
    """Return the folder of the annotations, what lists a split's images, and their names without ending."""
    if not (folder / "ImageSets").is_dir():
        return folder, folder, sorted(path.stem for path in folder.glob("*.xml"))
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    lines = read_text(listing, "the split's image names").splitlines()
    return folder / "Annotations", listing, [line.split()[0] for line in lines if line.strip()]


def _root(path: Path) -> Element:
    try:
        root = parse(path).getroot()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the annotation of an image in the split"
        ) from None
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise UserError(f"{path}: is not valid XML ({error})") from None
    if root is None:
        raise UserError(f"{path}: is empty; expected a VOC annotation")
    return root
