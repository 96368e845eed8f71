"""From a comparison to its files: a page, Markdown, JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gam_yolo.evaluation import COCO_METRICS
from gam_yolo.io import write as write_file
from gam_yolo.report import charts, formatting
from gam_yolo.report.formatting import METRIC_NAMES, MINUS, signed
from gam_yolo.report.result import MAIN, Comparison, Difference, Value, VariantResult
from gam_yolo.report.tables import csv_text

__all__ = ["draw_charts", "markdown", "page", "write"]

_MOST_CLASSES = 24  # the most classes charted; all are in the tables


def write(comparison: Comparison, folder: Path) -> None:
    """Write `report.html`, `report.md`, `report.json` and `report.csv`.

    Args:
        comparison: The result.
        folder: Where to; made if it does not exist.

    Raises:
        UserError: They cannot be written.
    """
    texts = {
        "report.json": comparison.to_json(),
        "report.csv": csv_text(comparison),
        "report.md": markdown(comparison),
        "report.html": page(comparison),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text)


def markdown(comparison: Comparison) -> str:
    """Return the text of `report.md`."""
    return _environment().get_template("report.md.j2").render(report=comparison, names=METRIC_NAMES)


def page(comparison: Comparison) -> str:
    """Return the text of `report.html`."""
    drawn = {name: Markup(svg) for name, svg in draw_charts(comparison).items()}  # noqa: S704  ours, escaped there
    return _environment().get_template("report.html.j2").render(report=comparison, names=METRIC_NAMES, charts=drawn)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gam_yolo.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ways = ("points", "span", "signed", "signed_span", "in_full", "signed_in_full", "short_path")
    environment.filters.update({name: getattr(formatting, name) for name in ways}, colour=charts.colour)
    return environment


def draw_charts(comparison: Comparison) -> dict[str, str]:
    """Draw every chart for which there is something to draw, as SVG elements of the page, by name."""
    variants, baseline = tuple(comparison.variants.values()), comparison.baseline
    numbered = list(enumerate(variants))
    result = {}
    rows = [
        _interval(f"{variant.name} {MINUS} {reference}", found, i, signed(found.value))
        for i, variant in numbered
        for reference, tree in variant.differences.items()
        if (found := tree[MAIN]).value is not None
    ]
    if rows:
        result["differences"] = charts.forest("Difference in mAP 50-95", rows, "points of mAP 50-95")
    rows = [
        _interval(f"{METRIC_NAMES[metric]}", found, i, variant.name)
        for metric in COCO_METRICS
        for i, variant in numbered
        if baseline in variant.differences and (found := variant.differences[baseline][metric]).value is not None
    ]
    if rows:
        result["metrics"] = charts.forest(f"Difference to {baseline} in each metric", rows, "points")
    for key, cost, title, unit in (
        ("gflops", "gflops", "Accuracy against arithmetic", "GFLOPs an image"),
        ("latency", "latency_median", "Accuracy against time", "ms an image, median"),
    ):
        spots = [
            (spent, _interval(variant.name, variant.metrics[MAIN], i))
            for i, variant in numbered
            if (spent := getattr(variant.cost, cost, None)) and variant.metrics[MAIN].value is not None
        ]
        if len(spots) > 1:
            result[key] = charts.scatter(title, spots, unit, "mAP 50-95")
    recall = [i / 100 for i in range(101)]
    result["precision_recall"] = charts.curves(
        "Precision and recall at IoU 0.5, mean over classes",
        [charts.Line(variant.name, recall, variant.precision_recall, i) for i, variant in numbered],
        "recall",
        "precision",
    )
    sizes = [
        (label, rows)
        for metric, label in (("AP", "all"), ("APs", "small"), ("APm", "medium"), ("APl", "large"))
        if (rows := _rows([variant.metrics[metric] for variant in variants], variants))
    ]
    result["sizes"] = charts.bars("mAP 50-95 by size of object", sizes, "mAP 50-95")
    known = variants[0].classes
    sure = [name for name in known if known[name][MAIN].low is not None] or list(known)
    sure.sort(key=lambda name: _spread(variants, baseline, name), reverse=True)
    groups = [
        (name, rows)
        for name in sure[:_MOST_CLASSES]
        if (rows := _rows([variant.classes[name][MAIN] for variant in variants], variants))
    ]
    result["classes"] = charts.bars("mAP 50-95 of each class", groups, "AP 50-95")
    lines = [
        charts.Line(f"{variant.name}, seed {i}", run.training.epochs, [100 * v for v in run.training.AP], n)
        for n, variant in numbered
        for i, run in enumerate(variant.runs)
        if run.training and len(run.training.epochs) > 1
    ]
    if lines:
        result["training"] = charts.curves("mAP 50-95 during training, by Ultralytics", lines, "epoch", "mAP 50-95")
    return result


def _interval(label: str, found: Value | Difference, variant: int, note: str = "") -> charts.Interval:
    value, low, high = (None if v is None else 100 * v for v in (found.value, found.low, found.high))
    return charts.Interval(label, value or 0.0, low, high, variant, note)


def _rows(found: Iterable[Value], variants: Iterable[VariantResult]) -> list[charts.Interval]:
    """Name the values of all variants, those that exist."""
    rows = enumerate(zip(variants, found, strict=True))
    return [_interval(variant.name, value, i) for i, (variant, value) in rows if value.value is not None]


def _spread(variants: Iterable[VariantResult], baseline: str, name: str) -> float:
    """The largest difference to the baseline in a class: what the chart is sorted by."""
    found = [
        abs(tree.classes[name][MAIN].value or 0.0)
        for variant in variants
        if (tree := variant.differences.get(baseline)) and name in tree.classes
    ]
    return max(found, default=0.0)
