"""The comparison itself: from detections to estimates, differences and verdicts, as plain data ready to be written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gam_yolo.evaluation import (
    METRICS,
    Detections,
    Estimate,
    GroundTruth,
    Samples,
    difference,
    draw_weights,
    estimate,
    holm,
    resample,
    verdict,
)
from gam_yolo.evaluation.data import Array
from gam_yolo.report.formatting import signed, signed_span

__all__ = ["MAIN", "Statistics", "compare_detections", "headline"]

MAIN = "AP"
"""The metric the headline is about: COCO's mean AP over IoU 0.50 to 0.95."""

_MOST_SPANS = 3  # the most variants without a difference whose intervals a sentence can hold; all are in the tables
_NO_MODEL_INTERVAL = "VOC2007 AP50"  # jumps by 1/11 where recall crosses a tenth: no interval held what it promises


@dataclass(frozen=True)
class Statistics:
    """How the comparison is made.

    Attributes:
        replicates: Bootstrap samples of the images.
        level: Confidence level of intervals and verdicts.
        seed: Of the draws.
    """

    replicates: int = 1000
    level: float = 0.95
    seed: int = 0


def compare_detections(
    truth: GroundTruth,
    variants: dict[str, list[Detections]],
    references: list[str],
    statistics: Statistics,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Estimate every variant and its difference to each reference.

    The main metric of all variants is one family of tests; all other metrics over all classes are a second; the main
    metric of the single classes a third. Holm's correction holds the chance of any
    false verdict in a family at the level.

    Args:
        truth: The objects.
        variants: Detections of each training seed of each variant.
        references: Names of the variants to subtract: the baseline, and a control where there is one.
        statistics: How it is made.
        say: Is told what is going on.

    Returns:
        One object a variant, as `report.json` has it (see `docs/evaluation.md`).
    """
    draws = draw_weights(len(truth.ids), statistics.replicates, statistics.seed)
    samples: dict[str, Samples] = {}
    for name, seeds in variants.items():
        say(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")
        samples[name] = resample(truth, seeds, draws)
    present = [0, *(1 + np.flatnonzero(np.bincount(truth.label, minlength=len(truth.classes)) > 0))]
    result: list[dict[str, Any]] = []
    for name, own in samples.items():
        found = estimate(own, statistics.level)
        column = METRICS.index(_NO_MODEL_INTERVAL)
        found.low[:, column] = found.high[:, column] = np.nan
        result.append({"name": name, **_tree(truth, present, partial(_estimate, found, own)), "differences": {}})
    for number, reference in enumerate(references, 1):
        others = [entry for entry in result if entry["name"] not in references[:number]]  # each pair once
        estimates = [difference(samples[entry["name"]], samples[reference], statistics.level) for entry in others]
        for entry, found, p in zip(others, estimates, _corrected([e.p for e in estimates]), strict=True):
            cell = partial(_difference, found, p, statistics.level)
            entry["differences"][reference] = _tree(truth, present, cell)
    return result


def _corrected(p: list[Array]) -> Array:
    """Correct p-values family by family, shape (variants, 1 + classes, metrics); NaN for what is not tested."""
    raw = np.stack(p)
    main = METRICS.index(MAIN)
    others = np.arange(len(METRICS)) != main
    result = np.full(raw.shape, np.nan)
    result[:, 0, main] = holm(raw[:, 0, main])
    result[:, 0, others] = holm(raw[:, 0, others])
    result[:, 1:, main] = holm(raw[:, 1:, main])
    return result


def _tree(truth: GroundTruth, present: list[int], cell: Callable[[int, int], dict[str, Any]]) -> dict[str, Any]:
    """Arrange what `cell` says of each row and column: over all classes, then each class that has objects."""
    rows = {i: {metric: cell(i, j) for j, metric in enumerate(METRICS)} for i in present}
    return {"metrics": rows[0], "classes": {truth.classes[i - 1]: row for i, row in rows.items() if i}}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _estimate(found: Estimate, samples: Samples, i: int, j: int) -> dict[str, Any]:
    return {
        "value": _number(found.value[i, j]),
        "low": _number(found.low[i, j]),
        "high": _number(found.high[i, j]),
        "seeds": [_number(value) for value in samples.value[:, i, j]],
    }


def _difference(found: Estimate, p_holm: Array, level: float, i: int, j: int) -> dict[str, Any]:
    images, seeds = found.image_variance[i, j], found.seed_variance[i, j]
    share = seeds / (images + seeds) if images + seeds > 0 else math.nan
    tested = j == METRICS.index(MAIN) or i == 0
    return {
        "value": _number(found.value[i, j]),
        "low": _number(found.low[i, j]),
        "high": _number(found.high[i, j]),
        "p": _number(found.p[i, j]),
        "p_holm": _number(p_holm[i, j]),
        "verdict": verdict(found.value[i, j], p_holm[i, j], level) if tested else None,
        "seed_share": _number(share) if found.seeded else None,
    }


def headline(variants: list[dict[str, Any]], baseline: str, truth: GroundTruth, level: float) -> str:
    """Say in one sentence what came out."""
    by_name = {variant["name"]: variant for variant in variants}
    base = by_name[baseline]["metrics"][MAIN]["value"]
    if base is None:
        return f"There is nothing to compare: {truth.source} has no objects."
    clear: list[tuple[str, float, Any]] = []
    alike: list[tuple[str, float, Any]] = []
    unsure: list[str] = []
    for name, variant in by_name.items():
        if name == baseline:
            continue
        found, value = variant["differences"][baseline]["metrics"][MAIN], 100 * variant["metrics"][MAIN]["value"]
        if found["low"] is None:
            unsure.append(
                f"{name} scores {value:.1f}, but there are too few images to say whether that is a difference"
            )
        else:
            (alike if found["verdict"] == "no detectable difference" else clear).append((name, value, found))
    # Units and level are said once, at the first interval.
    spans = [
        f"({signed(found['value'])} points, {100 * level:g} % interval {signed_span(found)})"
        if i == 0
        else f"({signed(found['value'])}, {signed_span(found)})"
        for i, (_, _, found) in enumerate(clear + alike)
    ]
    parts = [
        f"{name} is {found['verdict']} than {baseline}: {value:.1f} against {100 * base:.1f} mAP {span}"
        for (name, value, found), span in zip(clear, spans, strict=False)
    ]
    if alike:
        brief = len(alike) > _MOST_SPANS
        named = [
            name if brief else f"{name} {span}" for (name, _, _), span in zip(alike, spans[len(clear) :], strict=True)
        ]
        listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
        show = "show" if len(named) > 1 else "shows"
        values = [found["value"] for _, _, found in alike]
        extent = f" (by {signed(min(values))} to {signed(max(values))} points)" if brief else ""
        parts.append(f"{listed} {show} no detectable difference from {baseline} in mAP{extent}")
    return "; ".join(parts + unsure) + f", on {len(truth.ids)} images."
