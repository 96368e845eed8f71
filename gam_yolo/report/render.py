"""From a comparison to its files: a page, Markdown, JSON and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gam_yolo.evaluation.meta_analysis import Overall
from gam_yolo.report import charts, formatting
from gam_yolo.report.files import REPORT, to_json
from gam_yolo.report.formatting import METRIC_NAMES, MINUS, printable, signed
from gam_yolo.report.records import map_text
from gam_yolo.report.schema import ComparisonRecord, Difference, Value, VariantResult
from gam_yolo.report.tables import csv_text

__all__ = ["draw_charts", "environment", "files", "interval", "markdown", "page", "plan_charts"]

C = TypeVar("C", bound=ComparisonRecord)

_MOST_CLASSES = 24  # the most classes charted; all are in the tables


def files(comparison: C) -> tuple[C, dict[str, str]]:
    """Return the text of each file of the report, and the comparison with a note on each chart that failed."""
    drawn, failed = draw_charts(map_text(comparison, printable))
    comparison = replace(comparison, notes=(*comparison.notes, *failed))
    shown = map_text(comparison, printable)
    texts = (_page(shown, drawn), markdown(shown), to_json(comparison.to_dict()), csv_text(shown))
    return comparison, dict(zip(REPORT, texts, strict=True))


def markdown(comparison: ComparisonRecord) -> str:
    """Return the text of `report.md`."""
    shown = map_text(comparison, formatting.markdown)
    return environment().get_template("report.md.j2").render(report=shown, names=_names(comparison))


def page(comparison: ComparisonRecord) -> str:
    """Return the text of `report.html`."""
    shown = map_text(comparison, printable)
    return _page(shown, draw_charts(shown)[0])


def _page(comparison: ComparisonRecord, drawn: Mapping[str, str]) -> str:
    safe = {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704  ours, escaped there
    return environment().get_template("report.html.j2").render(report=comparison, names=_names(comparison), charts=safe)


def _names(comparison: ComparisonRecord) -> dict[str, str]:
    """Name the metrics of the comparison's task."""
    return {metric: METRIC_NAMES[metric] for metric in comparison.about.metrics}


def environment(*packages: str) -> Environment:
    """Return the templates of reports, with their filters; and those of other packages."""
    result = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in ("gam_yolo.report", *packages)]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ways = ("points", "span", "gflops", "signed", "signed_span", "in_full", "signed_in_full", "short_path")
    result.filters.update({name: getattr(formatting, name) for name in ways}, colour=charts.colour)
    return result


def draw_charts(comparison: ComparisonRecord) -> tuple[dict[str, str], list[str]]:
    """Draw every chart for which there is something to draw.

    Returns:
        SVG elements of the page by name, and a note on each chart that could not be drawn.
    """
    drawn, notes = {}, []
    for name, plan in plan_charts(comparison).items():
        try:
            drawn[name] = plan().html()
        except Exception as error:  # a picture less, rather than no report
            notes.append(f"The chart '{name}' could not be drawn ({printable(str(error))}).")
    return drawn, notes


def plan_charts(comparison: ComparisonRecord) -> dict[str, Callable[[], charts.Chart]]:
    """Gather what each chart shows; each is made by a call, in which it may fail."""
    variants, baseline = tuple(comparison.variants.values()), comparison.baseline
    main = comparison.about.main
    score = METRIC_NAMES[main]
    numbered = list(enumerate(variants))
    result: dict[str, Callable[[], charts.Chart]] = {}
    rows = [
        interval(f"{variant.name} {MINUS} {reference}", found, i, signed(found.value))
        for i, variant in numbered
        for reference, tree in variant.differences.items()
        if (found := tree[main]).value is not None
    ]
    if rows:
        result["differences"] = partial(charts.forest, f"Difference in {score}", rows, f"points of {score}")
    rows = [
        interval(f"{METRIC_NAMES[metric]}", found, i, variant.name)
        for metric in comparison.about.charted
        for i, variant in numbered
        if baseline in variant.differences and (found := variant.differences[baseline][metric]).value is not None
    ]
    if rows:
        result["metrics"] = partial(charts.forest, f"Difference to {baseline} in each metric", rows, "points")
    for key, cost, title, unit in (
        ("gflops", "gflops", "Accuracy against arithmetic", "GFLOPs per image"),
        ("latency", "latency_median", "Accuracy against time", "ms per image, median"),
    ):
        spots = [
            (spent, interval(variant.name, variant.metrics[main], i))
            for i, variant in numbered
            if (spent := getattr(variant.cost, cost, None)) and variant.metrics[main].value is not None
        ]
        if len(spots) > 1:
            result[key] = partial(charts.scatter, title, spots, unit, score)
    if comparison.task == "detect":
        result |= _plan_detection(variants)
    known = variants[0].classes
    sure = [name for name in known if known[name][main].low is not None] or list(known)
    sure.sort(key=lambda name: _spread(variants, baseline, name, main), reverse=True)
    groups = [
        (name, rows)
        for name in sure[:_MOST_CLASSES]
        if (rows := _rows([variant.classes[name][main] for variant in variants], variants))
    ]
    result["classes"] = partial(charts.bars, f"{score} of each class", groups, score.replace("mAP", "AP"))
    lines = [
        charts.Line(f"{variant.name}, seed {i}", run.training.epochs, [100 * v for v in run.training.curve], n)
        for n, variant in numbered
        for i, run in enumerate(variant.runs)
        if run.training and len(run.training.epochs) > 1
    ]
    if lines:
        result["training"] = partial(charts.curves, f"{score} during training, by Ultralytics", lines, "epoch", score)
    return result


def _plan_detection(variants: Sequence[VariantResult]) -> dict[str, Callable[[], charts.Chart]]:
    """Gather what the charts show that only detectors have."""
    recall = [i / 100 for i in range(101)]
    curves = [charts.Line(variant.name, recall, variant.precision_recall, i) for i, variant in enumerate(variants)]
    sizes = [
        (label, rows)
        for metric, label in (("AP", "all"), ("APs", "small"), ("APm", "medium"), ("APl", "large"))
        if (rows := _rows([variant.metrics[metric] for variant in variants], variants))
    ]
    title = "Precision and recall at IoU 0.5, mean over classes"
    return {
        "precision_recall": partial(charts.curves, title, curves, "recall", "precision"),
        "sizes": partial(charts.bars, "mAP 50-95 by size of object", sizes, "mAP 50-95"),
    }


def interval(label: str, found: Value | Difference | Overall, variant: int, note: str = "") -> charts.Interval:
    """Return a share with its interval as a row of a chart, in points."""
    value, low, high = (None if v is None else 100 * v for v in (found.value, found.low, found.high))
    return charts.Interval(label, value or 0.0, low, high, variant, note)


def _rows(found: Iterable[Value], variants: Iterable[VariantResult]) -> list[charts.Interval]:
    """Name the values of all variants, those that exist."""
    rows = enumerate(zip(variants, found, strict=True))
    return [interval(variant.name, value, i) for i, (variant, value) in rows if value.value is not None]


def _spread(variants: Iterable[VariantResult], baseline: str, name: str, main: str) -> float:
    """The largest difference to the baseline in a class: what the chart is sorted by."""
    found = [
        abs(tree.classes[name][main].value or 0.0)
        for variant in variants
        if (tree := variant.differences.get(baseline)) and name in tree.classes
    ]
    return max(found, default=0.0)
