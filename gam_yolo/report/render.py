"""From the report's content to its files: a page, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gam_yolo.evaluation import COCO_METRICS
from gam_yolo.io import write as write_file
from gam_yolo.report import charts, formatting
from gam_yolo.report.comparison import MAIN
from gam_yolo.report.formatting import MINUS, signed
from gam_yolo.report.gallery import Picture

__all__ = ["METRIC_NAMES", "write"]

METRIC_NAMES = {
    "AP": "mAP 50-95",
    "AP50": "mAP 50",
    "AP75": "mAP 75",
    "APs": "mAP small",
    "APm": "mAP medium",
    "APl": "mAP large",
    "AR1": "recall, 1 detection",
    "AR10": "recall, 10 detections",
    "AR100": "recall, 100 detections",
    "ARs": "recall small",
    "ARm": "recall medium",
    "ARl": "recall large",
    "VOC2007 AP50": "VOC2007 mAP 50 (11 points)",
    "VOC2010 AP50": "VOC2010 mAP 50 (all points)",
}
"""How the metrics are called where people read them."""

_MOST_CLASSES = 24  # the most classes charted; all are in the tables


def write(report: dict[str, Any], gallery: list[tuple[str, list[Picture]]], folder: Path) -> None:
    """Write `report.html`, `report.md`, `report.json` and `report.csv`, each whole or not at all.

    Args:
        report: What `document.build` gathered.
        gallery: For each variant but the baseline, the images on which it differs most.
        folder: Where to; made if it does not exist.
    """
    environment = Environment(
        loader=PackageLoader("gam_yolo.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ways = ("points", "span", "signed", "signed_span", "in_full", "signed_in_full", "short_path")
    environment.filters.update({name: getattr(formatting, name) for name in ways}, colour=charts.colour)
    values = {
        "report": report,
        "names": METRIC_NAMES,
        "charts": {name: Markup(svg) for name, svg in _charts(report).items()},  # noqa: S704  our own, escaped there
        "gallery": gallery,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("report.json", json.dumps(report, indent=1, allow_nan=False)),
        ("report.csv", _table(report)),
        ("report.md", environment.get_template("report.md.j2").render(values)),
        ("report.html", environment.get_template("report.html.j2").render(values)),
    ):
        write_file(folder / name, text)


def _table(report: dict[str, Any]) -> str:
    """One row a variant, class and metric, and one a difference: what a spreadsheet or data frame takes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "minus", "class", "metric", "value", "low", "high", "p", "p_holm", "verdict"])
    for variant in report["variants"]:
        trees = [("", variant), *variant["differences"].items()]
        for reference, tree in trees:
            for label, metrics in [("", tree["metrics"]), *tree["classes"].items()]:
                for metric, found in metrics.items():
                    rest = [found.get(key) for key in ("value", "low", "high", "p", "p_holm", "verdict")]
                    if rest[0] is not None:
                        writer.writerow([variant["name"], reference, label, metric, *rest])
    return out.getvalue()


def _interval(label: str, found: dict[str, Any], variant: int, note: str = "") -> charts.Interval:
    low, high = (None if found[key] is None else 100 * found[key] for key in ("low", "high"))
    return charts.Interval(label, 100 * found["value"], low, high, variant, note)


def _charts(report: dict[str, Any]) -> dict[str, str]:
    """Draw every chart for which there is something to draw."""
    variants, baseline = report["variants"], report["baseline"]
    numbered = list(enumerate(variants))
    result = {}
    rows = [
        _interval(f"{variant['name']} {MINUS} {reference}", found, i, signed(found["value"]))
        for i, variant in numbered
        for reference, tree in variant["differences"].items()
        if (found := tree["metrics"][MAIN])["value"] is not None
    ]
    if rows:
        result["differences"] = charts.forest("Difference in mAP 50-95", rows, "points of mAP 50-95")
    rows = [
        _interval(f"{METRIC_NAMES[metric]}", found, i, variant["name"])
        for metric in COCO_METRICS
        for i, variant in numbered
        if baseline in variant["differences"]
        and (found := variant["differences"][baseline]["metrics"][metric])["value"] is not None
    ]
    if rows:
        result["metrics"] = charts.forest(f"Difference to {baseline} in each metric", rows, "points")
    for key, cost, title, unit in (
        ("gflops", "gflops", "Accuracy against arithmetic", "GFLOPs an image"),
        ("latency", "latency_median", "Accuracy against time", "ms an image, median"),
    ):
        spots = [
            (variant["cost"][cost], _interval(variant["name"], variant["metrics"][MAIN], i))
            for i, variant in numbered
            if variant["cost"] and variant["cost"][cost] and variant["metrics"][MAIN]["value"] is not None
        ]
        if len(spots) > 1:
            result[key] = charts.scatter(title, spots, unit, "mAP 50-95")
    recall = [i / 100 for i in range(101)]
    result["precision_recall"] = charts.curves(
        "Precision and recall at IoU 0.5, mean over classes",
        [charts.Line(variant["name"], recall, variant["precision_recall"], i) for i, variant in numbered],
        "recall",
        "precision",
    )
    sizes = [
        (label, rows)
        for metric, label in (("AP", "all"), ("APs", "small"), ("APm", "medium"), ("APl", "large"))
        if (rows := _rows([variant["metrics"][metric] for variant in variants], variants))
    ]
    result["sizes"] = charts.bars("mAP 50-95 by size of object", sizes, "mAP 50-95")
    known = variants[0]["classes"]
    sure = [name for name in known if known[name][MAIN]["low"] is not None] or list(known)
    sure.sort(key=lambda name: _spread(variants, baseline, name), reverse=True)
    groups = [
        (name, rows)
        for name in sure[:_MOST_CLASSES]
        if (rows := _rows([variant["classes"][name][MAIN] for variant in variants], variants))
    ]
    result["classes"] = charts.bars("mAP 50-95 of each class", groups, "AP 50-95")
    lines = [
        charts.Line(
            f"{variant['name']}, seed {i}", run["training"]["epochs"], [100 * v for v in run["training"]["AP"]], n
        )
        for n, variant in numbered
        for i, run in enumerate(variant["runs"])
        if run["training"] and len(run["training"]["epochs"]) > 1
    ]
    if lines:
        result["training"] = charts.curves("mAP 50-95 during training, by Ultralytics", lines, "epoch", "mAP 50-95")
    return result


def _rows(found: list[dict[str, Any]], variants: list[dict[str, Any]]) -> list[charts.Interval]:
    """Name the values of all variants, those that exist."""
    rows = enumerate(zip(variants, found, strict=True))
    return [_interval(variant["name"], value, i) for i, (variant, value) in rows if value["value"] is not None]


def _spread(variants: list[dict[str, Any]], baseline: str, name: str) -> float:
    """The largest difference to the baseline in a class: what the chart is sorted by."""
    found = [
        abs(tree["classes"][name][MAIN]["value"] or 0.0)
        for variant in variants
        if (tree := variant["differences"].get(baseline)) and name in tree["classes"]
    ]
    return max(found, default=0.0)
