"""A comparison as tables: the main one for terminals, notebooks and `print`, and the full one for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from html import escape

from gam_yolo.report.formatting import METRIC_NAMES, cell, gflops, plain_text, points, signed, signed_span, span
from gam_yolo.report.schema import ComparisonRecord, Cost, Difference, Value

__all__ = ["COLUMNS", "csv_text", "html", "main_table", "rows", "text"]

COLUMNS = ("variant", "minus", "class", "metric", "value", "low", "high", "p", "p_holm", "verdict")
"""The columns of `report.csv`."""


def main_table(comparison: ComparisonRecord) -> list[tuple[str, ...]]:
    """Return the main table, its header first; a cell's interval and verdict are on lines of their own."""
    references, main, second = comparison.references, comparison.about.main, comparison.about.second
    minus = (f"minus {name}" for name in references)
    table = [("variant", "seeds", METRIC_NAMES[main], *minus, METRIC_NAMES[second], "cost")]
    for variant in comparison.variants.values():
        gains = [variant.differences[name][main] if name in variant.differences else None for name in references]
        table.append(
            (
                variant.name,
                str(len(variant.runs)),
                _value(variant.metrics[main]),
                *(_gain(gain) if gain else "" for gain in gains),
                _value(variant.metrics[second]),
                _cost(variant.cost) if variant.cost else "",
            )
        )
    return table


def text(comparison: ComparisonRecord) -> str:
    """Lay out headline, main table and notes as plain text."""
    table = [[cell.replace("\n", "  ").strip() for cell in row] for row in main_table(comparison)]
    return plain_text(comparison.headline, table, comparison.notes)


def html(comparison: ComparisonRecord) -> str:
    """Lay out headline, main table and notes for a notebook."""
    head, *body = (
        "".join(f"<{tag}>{escape(cell).replace(chr(10), '<br>')}</{tag}>" for cell in row)
        for tag, row in zip(["th", *["td"] * len(comparison.variants)], main_table(comparison), strict=True)
    )
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    notes = "".join(f"<p>{escape(note)}</p>" for note in comparison.notes)
    return f"<p><b>{escape(comparison.headline)}</b></p><table><tr>{head}</tr>{lines}</table>{notes}"


def rows(comparison: ComparisonRecord) -> Iterator[tuple[str | float | None, ...]]:
    """Yield one row per variant, class and metric, and one per difference, in the order of `COLUMNS`."""
    for variant in comparison.variants.values():
        yield from _rows(variant.name, "", variant.metrics, variant.classes)
        for reference, found in variant.differences.items():
            yield from _rows(variant.name, reference, found.metrics, found.classes)


def csv_text(comparison: ComparisonRecord) -> str:
    """Return the text of `report.csv`; a name that begins like a formula has an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(cell, row) for row in rows(comparison))
    return out.getvalue()


def _rows(
    variant: str,
    minus: str,
    metrics: Mapping[str, Value] | Mapping[str, Difference],
    classes: Mapping[str, Mapping[str, Value]] | Mapping[str, Mapping[str, Difference]],
) -> Iterator[tuple[str | float | None, ...]]:
    for label, by_metric in [("", metrics), *classes.items()]:
        for metric, found in by_metric.items():
            if found.value is not None:
                test = (found.p, found.p_holm, found.verdict) if isinstance(found, Difference) else (None, None, None)
                yield (variant, minus, label, metric, found.value, found.low, found.high, *test)


def _value(found: Value) -> str:
    return f"{points(found.value)}\n{span(found)}"


def _gain(found: Difference) -> str:
    return f"{signed(found.value)}\n{signed_span(found)}\n{found.verdict or ''}"


def _cost(cost: Cost) -> str:
    arithmetic = f"{gflops(cost.gflops)} GFLOPs\n" if cost.gflops else ""
    return f"{cost.parameters / 1e6:.2f} M\n{arithmetic}{cost.latency_median:.0f} ms (p95 {cost.latency_p95:.0f})"
