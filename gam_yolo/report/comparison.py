"""The comparison itself: from detections to estimates, differences and verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.classes import LabelledImages
from gam_yolo.annotations.data import Array
from gam_yolo.evaluation import (
    Detections,
    Estimate,
    GroundTruth,
    MatchTable,
    Samples,
    difference,
    draw_weights,
    estimate,
    holm,
    over_classes,
    precision_curve,
    resample,
    verdict,
)
from gam_yolo.evaluation.groups import Groups
from gam_yolo.evaluation.statistics import MIN_IMAGES
from gam_yolo.report.formatting import listed, signed, signed_span
from gam_yolo.report.schema import Difference, Differences, Statistics, Value, VariantResult
from gam_yolo.report.tasks import DETECT, Task

__all__ = ["Statistics", "compare_detections", "compare_samples", "headline"]

T = TypeVar("T")

_MOST_SPANS = 3  # the most variants without a difference whose intervals a sentence can hold; all are in the tables
_NO_MODEL_INTERVAL = "VOC2007 AP50"  # jumps by 1/11 where recall crosses a tenth: no interval held what it promises


def compare_detections(
    truth: GroundTruth,
    variants: Mapping[str, list[Detections]],
    references: list[str],
    statistics: Statistics,
    progress: Callable[[str], None],
    groups: Groups | None = None,
) -> dict[str, VariantResult]:
    """Estimate every detector and its difference to each reference.

    Args:
        truth: The objects.
        variants: Detections of each training seed of each variant.
        references: Names of the variants to subtract: the baseline, and a control where there is one.
        statistics: How the comparison is made.
        progress: Called with a line of text at each step.
        groups: What to resample, if images are not independent.

    Returns:
        The variants by name, without their cost and runs.
    """
    draws = draw_weights(len(groups.names if groups else truth.ids), statistics.replicates, statistics.seed)
    samples: dict[str, Samples] = {}
    curves: dict[str, list[Array]] = {name: [] for name in variants}
    for name, seeds in variants.items():
        progress(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")

        def keep_curve(table: MatchTable, own: list[Array] = curves[name]) -> None:
            own.append(over_classes(precision_curve(table)))

        samples[name] = resample(truth, seeds, draws, groups.index if groups else None, keep_curve)
    counts = np.bincount(truth.label, minlength=len(truth.classes))

    def subtract(name: str, reference: str) -> Estimate:
        return difference(samples[name], samples[reference], statistics.level, paired=statistics.pair_seeds)

    found = compare_samples(samples, subtract, references, statistics, DETECT, truth.classes, counts)
    return {name: replace(found[name], precision_recall=_mean_curve(own)) for name, own in curves.items()}


def _mean_curve(seeds: list[Array]) -> tuple[float, ...]:
    """Precision at recall 0, 0.01, ... 1 and IoU 0.5, over all areas, averaged over classes and seeds."""
    return tuple(round(float(value), 5) for value in np.nan_to_num(np.mean(seeds, axis=0)))


def compare_samples(
    samples: Mapping[str, Samples],
    subtract: Callable[[str, str], Estimate],
    references: list[str],
    statistics: Statistics,
    task: Task,
    class_names: Sequence[str],
    counts: NDArray[np.intp],
) -> dict[str, VariantResult]:
    """Turn the samples of every variant into estimates, differences to each reference, and verdicts.

    There are three families of tests: the main metric of all variants, all other metrics over all classes, and the main
    metric of the single classes. Holm's correction bounds the chance of any false verdict in a family by 1 - level.

    Args:
        samples: The samples of each variant, with rows over all classes and for each class.
        subtract: Estimates a variant minus a reference.
        references: Names of the variants to subtract: the baseline, and a control where there is one.
        statistics: How the comparison is made.
        task: The metrics.
        class_names: The classes.
        counts: How often each class occurs; one that never does is left out.

    Returns:
        The variants by name, without their cost and runs.
    """
    metrics, present = task.metrics, [0, *(1 + np.flatnonzero(counts))]
    arrange = partial(_by_class, metrics, class_names, present)
    differences: dict[str, dict[str, Differences]] = {name: {} for name in samples}
    for number, reference in enumerate(references, 1):
        others = [name for name in samples if name not in references[:number]]  # each pair once
        if not others:  # baseline and control alone
            continue
        estimates = [subtract(name, reference) for name in others]
        main = metrics.index(task.main)
        for name, found, p in zip(others, estimates, _corrected([e.p for e in estimates], main), strict=True):
            cell = partial(_difference, found, p, statistics.level, main)
            differences[name][reference] = Differences(*arrange(cell))
    result = {}
    for name, own in samples.items():
        estimated = estimate(own, statistics.level)
        if _NO_MODEL_INTERVAL in metrics:
            column = metrics.index(_NO_MODEL_INTERVAL)
            estimated.low[:, column] = estimated.high[:, column] = np.nan
        overall, by_class = arrange(partial(_estimate, estimated, own))
        result[name] = VariantResult(name, overall, by_class, differences[name])
    return result


def _corrected(p: list[Array], main: int) -> Array:
    """Correct p-values family by family, shape (variants, 1 + classes, metrics); NaN for what is not tested."""
    raw = np.stack(p)
    others = np.arange(raw.shape[-1]) != main
    result = np.full(raw.shape, np.nan)
    result[:, 0, main] = holm(raw[:, 0, main])
    result[:, 0, others] = holm(raw[:, 0, others])
    result[:, 1:, main] = holm(raw[:, 1:, main])
    return result


def _by_class(
    metrics: Sequence[str], classes: Sequence[str], present: list[int], cell: Callable[[int, int], T]
) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Arrange what `cell` returns for each row and column: over all classes, and for each class that occurs."""
    rows = {i: {metric: cell(i, j) for j, metric in enumerate(metrics)} for i in present}
    return rows[0], {classes[i - 1]: row for i, row in rows.items() if i}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _estimate(found: Estimate, samples: Samples, i: int, j: int) -> Value:
    return Value(
        value=_number(found.value[i, j]),
        low=_number(found.low[i, j]),
        high=_number(found.high[i, j]),
        seeds=tuple(_number(value) for value in samples.value[:, i, j]),
    )


def _difference(found: Estimate, p_holm: Array, level: float, main: int, i: int, j: int) -> Difference:
    images, seeds = found.image_variance[i, j], found.seed_variance[i, j]
    share = seeds / (images + seeds) if images + seeds > 0 else math.nan
    tested = (j == main or i == 0) and not math.isnan(found.value[i, j])  # no object, no metric
    return Difference(
        value=_number(found.value[i, j]),
        low=_number(found.low[i, j]),
        high=_number(found.high[i, j]),
        p=_number(found.p[i, j]),
        p_holm=_number(p_holm[i, j]),
        verdict=verdict(found.value[i, j], p_holm[i, j], level) if tested else None,
        seed_share=_number(share) if found.seeded else None,
        image_variance=_number(images) if i == 0 else None,
        seed_variance=_number(seeds) if i == 0 else None,
        interaction=_number(found.interaction[i, j]) if i == 0 else None,
        image_dof=_number(found.image_dof[i, j]) if i == 0 else None,
    )


def headline(
    variants: Mapping[str, VariantResult],
    baseline: str,
    truth: GroundTruth | LabelledImages,
    level: float,
    task: Task = DETECT,
) -> str:
    """Return the result in one sentence."""
    base = variants[baseline].metrics[task.main].value
    if base is None:
        return f"There is nothing to compare: {truth.source} has no objects."
    clear: list[tuple[str, float, Difference]] = []
    alike: list[tuple[str, float, Difference]] = []
    unsure: list[str] = []
    nothing: list[str] = []
    for name, variant in variants.items():
        if name == baseline:
            continue
        found, value = variant.differences[baseline][task.main], 100 * (variant.metrics[task.main].value or 0.0)
        if base == value == 0:
            nothing.append(name)
        elif found.verdict == "too few images":
            unsure.append(f"{name} scores {value:.1f}, but {_too_few(truth)} to say whether that is a difference")
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
        f"{name} is {found.verdict} than {baseline}: {value:.1f} against {100 * base:.1f} {task.short} {span}"
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
        parts.append(f"{listed(named)} {show} no detectable difference from {baseline} in {task.short}{extent}")
    if nothing:
        who = f"neither {baseline} nor {nothing[0]}" if len(nothing) == 1 else f"none of {listed([baseline, *nothing])}"
        unsure.append(f"{who} {task.nothing} ({task.short} 0.0), so there is no interval for a difference")
    said = "; ".join(parts + unsure)
    images = f"{len(truth.ids)} image{'s' if len(truth.ids) != 1 else ''}"
    if nothing and [*parts, *unsure] == unsure[-1:]:  # else it begins with the name of a variant
        said = said[:1].upper() + said[1:]
    return f"{said}, on {images}."


def _too_few(truth: GroundTruth | LabelledImages) -> str:
    """Return why there is no verdict: too few images, or too few of the rarest classes, on which the mean depends."""
    if isinstance(truth, GroundTruth):
        own = ~truth.crowd
        pairs = np.unique(np.stack([truth.label[own], truth.image[own]]), axis=1)
        per_class = np.bincount(pairs[0], minlength=len(truth.classes))
        rare = sorted((int(per_class[i]), truth.classes[i]) for i in np.flatnonzero(per_class))
        weights = 1.0 / np.array([count for count, _ in rare] or [1])
        enough = len(np.unique(pairs[1])) >= 2 * MIN_IMAGES
        if enough and weights.sum() ** 2 / (weights**3).sum() < MIN_IMAGES:
            few = [f"'{name}' (on {n} image{'s' if n > 1 else ''})" for n, name in rare if n < MIN_IMAGES]
            shown = few if len(few) < 5 else [*few[:3], f"{len(few) - 3} more"]
            return f"that depends too much on the rare {'class' if len(few) == 1 else 'classes'} {listed(shown)}"
    return "there are too few images"
