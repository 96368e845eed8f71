"""Tell which class the `category_id` of a detection stands for.

It is one of two things: the id in the COCO file, as COCO's format has it, or the class's place in the model's order,
counted from 1, as Ultralytics writes it. Ultralytics' records bear a `file_name`, and the dataset YAML's `names` tell
the model's order. What that leaves open, the objects decide that the detections overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import GroundTruth
from gam_yolo.annotations.records import distinct, look_up_all, shown
from gam_yolo.errors import UserError

__all__ = ["class_indices"]


def class_indices(
    source: str, ids: list[Any], by_ultralytics: bool, truth: GroundTruth, found: NDArray[np.intp] | None
) -> NDArray[np.intp]:
    """Return the class of each record.

    Args:
        source: The file, for messages.
        ids: The `category_id` of each record.
        by_ultralytics: Whether a record bears a `file_name`, as Ultralytics' do.
        truth: What the detections are compared with.
        found: The detection that finds each object, shape (objects,), as `reject_implausible` returns it; None where
            `category_id` is known to be the id in the COCO file.

    Returns:
        The index of each record's class, shape (records,).

    Raises:
        UserError: A number is that of no class, or what the numbers mean is not certain.
    """
    as_coco = _classes(ids, {category: i for i, category in enumerate(truth.category_ids)})
    if found is not None:
        index = {name: i for i, name in enumerate(truth.classes)}
        order = enumerate(truth.names or truth.classes, 1)
        as_model = _classes(ids, {place: index.get(name, -1) for place, name in order})
        chosen = _choose(source, as_coco, as_model, by_ultralytics, truth, found)
        if chosen is not None:
            return chosen
    if (as_coco < 0).any():
        unknown = distinct(value for value, label in zip(ids, as_coco, strict=True) if label < 0)
        raise UserError(
            f"{truth.source} has no category with the id {shown(unknown)}",
            at=source,
            expected=shown(sorted(truth.category_ids), limit=10) or "no detections, as that file has no categories",
        )
    return as_coco


def _choose(
    source: str,
    as_coco: NDArray[np.intp],
    as_model: NDArray[np.intp],
    by_ultralytics: bool,
    truth: GroundTruth,
    found: NDArray[np.intp],
) -> NDArray[np.intp] | None:
    """Return the one of two readings of the class numbers that is right; None if neither can be.

    Raises:
        UserError: Neither is certain.
    """
    pair = (as_model, as_coco) if by_ultralytics and truth.names else (as_coco, as_model)
    possible = [reading for reading in pair if (reading >= 0).all()]
    if len(possible) == 2 and (as_coco == as_model).all():
        possible = [as_coco]
    evidence = [_evidence(reading, truth, found) for reading in possible]
    if evidence.count(True) == 1:
        return possible[evidence.index(True)]
    if not possible or (possible[0] is as_model and not (by_ultralytics and truth.names)):
        return None
    # Which numbers Ultralytics writes for COCO's own classes depends on a path.
    has_both = len(truth.classes) == 80 and max(truth.category_ids) == 90
    settled = len(possible) == 1 or (not by_ultralytics or (truth.names and not has_both))
    if settled and evidence[0] is not False:
        return possible[0]
    raise UserError(
        "its category_id numbers do not fit the classes of the objects that its boxes overlap"
        if False in evidence
        else f"its category_id numbers may be ids of {truth.source} or places in the model's order",
        at=source,
        fix="Name the dataset YAML with --data, or compare the checkpoint instead of its predictions",
    )


def _classes(ids: list[Any], known: dict[int, int]) -> NDArray[np.intp]:
    return np.array(look_up_all(ids, known), dtype=np.intp)


def _evidence(label: NDArray[np.intp], truth: GroundTruth, found: NDArray[np.intp]) -> bool | None:
    """Return whether detections have the classes of the objects that they overlap; None where that is not known.

    Of each class with five objects found or more, the winner is the class that most of their detections have. A weak
    detector confuses classes, but takes several for one that it knows. Wrong numbers swap or shift: each class has
    another winner, and none wins its own class.
    """
    winner = {}
    for own in np.unique(truth.label[found >= 0]):
        seen = label[found[(truth.label == own) & (found >= 0)]]
        count = np.bincount(seen)
        if len(seen) >= 5 and 2 * count.max() > len(seen):
            winner[int(own)] = int(count.argmax())
    if not winner:
        return None
    right = {own for own, other in winner.items() if own == other}
    moved = [other for own, other in winner.items() if own != other and other not in right]
    if len(set(moved)) == len(moved) and (len(moved) > 1 or (moved and not right)):
        return False
    return True if right and not moved else None
