"""The comparison itself: from detections to estimates, differences and verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from gam_yolo.annotations.data import Array
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
from gam_yolo.report.formatting import signed, signed_span
from gam_yolo.report.result import MAIN, Difference, Differences, Statistics, Value, VariantResult

__all__ = ["Statistics", "compare_detections", "headline", "listed"]

T = TypeVar("T")

_MOST_SPANS = 3  # the most variants without a difference whose intervals a sentence can hold; all are in the tables
_NO_MODEL_INTERVAL = "VOC2007 AP50"  # jumps by 1/11 where recall crosses a tenth: no interval held what it promises


def compare_detections(
    truth: GroundTruth,
    variants: Mapping[str, list[Detections]],
    references: list[str],
    statistics: Statistics,
    progress: Callable[[str], None],
) -> dict[str, VariantResult]:
    """Estimate every variant and its difference to each reference.

    There are three families of tests: the main metric of all variants, all other metrics over all classes, and the main
    metric of the single classes. Holm's correction bounds the chance of any false verdict in a family by 1 - level.

    Args:
        truth: The objects.
        variants: Detections of each training seed of each variant.
        references: Names of the variants to subtract: the baseline, and a control where there is one.
        statistics: How the comparison is made.
        progress: Called with a line of text at each step.

    Returns:
        The variants by name, without their cost and runs.
    """
    draws = draw_weights(len(truth.ids), statistics.replicates, statistics.seed)
    samples: dict[str, Samples] = {}
    for name, seeds in variants.items():
        progress(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")
        samples[name] = resample(truth, seeds, draws)
    present = [0, *(1 + np.flatnonzero(np.bincount(truth.label, minlength=len(truth.classes)) > 0))]
    differences: dict[str, dict[str, Differences]] = {name: {} for name in samples}
    for number, reference in enumerate(references, 1):
        others = [name for name in samples if name not in references[:number]]  # each pair once
        estimates = [difference(samples[name], samples[reference], statistics.level) for name in others]
        for name, found, p in zip(others, estimates, _corrected([e.p for e in estimates]), strict=True):
            cell = partial(_difference, found, p, statistics.level)
            differences[name][reference] = Differences(*_by_class(truth, present, cell))
    result = {}
    column = METRICS.index(_NO_MODEL_INTERVAL)
    for name, own in samples.items():
        estimated = estimate(own, statistics.level)
        estimated.low[:, column] = estimated.high[:, column] = np.nan
        metrics, classes = _by_class(truth, present, partial(_estimate, estimated, own))
        result[name] = VariantResult(name, metrics, classes, differences[name])
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


def _by_class(
    truth: GroundTruth, present: list[int], cell: Callable[[int, int], T]
) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Arrange what `cell` returns for each row and column: over all classes, and for each class that has objects."""
    rows = {i: {metric: cell(i, j) for j, metric in enumerate(METRICS)} for i in present}
    return rows[0], {truth.classes[i - 1]: row for i, row in rows.items() if i}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _estimate(found: Estimate, samples: Samples, i: int, j: int) -> Value:
    return Value(
        value=_number(found.value[i, j]),
        low=_number(found.low[i, j]),
        high=_number(found.high[i, j]),
        seeds=tuple(_number(value) for value in samples.value[:, i, j]),
    )


def _difference(found: Estimate, p_holm: Array, level: float, i: int, j: int) -> Difference:
    images, seeds = found.image_variance[i, j], found.seed_variance[i, j]
    share = seeds / (images + seeds) if images + seeds > 0 else math.nan
    tested = j == METRICS.index(MAIN) or i == 0
    return Difference(
        value=_number(found.value[i, j]),
        low=_number(found.low[i, j]),
        high=_number(found.high[i, j]),
        p=_number(found.p[i, j]),
        p_holm=_number(p_holm[i, j]),
        verdict=verdict(found.value[i, j], p_holm[i, j], level) if tested else None,
        seed_share=_number(share) if found.seeded else None,
    )


def headline(variants: Mapping[str, VariantResult], baseline: str, truth: GroundTruth, level: float) -> str:
    """Return the result in one sentence."""
    base = variants[baseline].metrics[MAIN].value
    if base is None:
        return f"There is nothing to compare: {truth.source} has no objects."
    clear: list[tuple[str, float, Difference]] = []
    alike: list[tuple[str, float, Difference]] = []
    unsure: list[str] = []
    nothing: list[str] = []
    for name, variant in variants.items():
        if name == baseline:
            continue
        found, value = variant.differences[baseline][MAIN], 100 * (variant.metrics[MAIN].value or 0.0)
        if base == value == 0:
            nothing.append(name)
        elif found.verdict == "too few images":
            unsure.append(
                f"{name} scores {value:.1f}, but there are too few images to say whether that is a difference"
            )
        else:
            (alike if found.verdict == "no detectable difference" else clear).append((name, value, found))
    # Units and level are given once, at the first interval.
    spans = [
        f"({signed(found.value)}{' points' if i == 0 else ''}, no interval)"
        if found.low is None
        else f"({signed(found.value)} points, {100 * level:g} % interval {signed_span(found)})"
        if i == 0
        else f"({signed(found.value)}, {signed_span(found)})"
        for i, (_, _, found) in enumerate(clear + alike)
    ]
    parts = [
        f"{name} is {found.verdict} than {baseline}: {value:.1f} against {100 * base:.1f} mAP {span}"
        for (name, value, found), span in zip(clear, spans, strict=False)
    ]
    if alike:
        brief = len(alike) > _MOST_SPANS
        named = [
            name if brief else f"{name} {span}" for (name, _, _), span in zip(alike, spans[len(clear) :], strict=True)
        ]
        show = "show" if len(named) > 1 else "shows"
        values = [found.value for _, _, found in alike if found.value is not None]
        extent = f" (by {signed(min(values))} to {signed(max(values))} points)" if brief else ""
        parts.append(f"{listed(named)} {show} no detectable difference from {baseline} in mAP{extent}")
    if nothing:
        who = f"neither {baseline} nor {nothing[0]}" if len(nothing) == 1 else f"none of {listed([baseline, *nothing])}"
        unsure.append(f"{who} finds any object (mAP 0.0), so there is no interval for a difference")
    said = "; ".join(parts + unsure)
    return (said if parts else said[:1].upper() + said[1:]) + f", on {len(truth.ids)} images."


def listed(names: list[str]) -> str:
    """Write names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
