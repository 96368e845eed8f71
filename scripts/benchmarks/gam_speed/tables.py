"""Results as tables, in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rich.markup import escape
from rich.table import Table

from gam_speed.results import Json

__all__ = ["Sheet", "document", "ratio", "tables", "terminal", "time_cell"]


@dataclass(frozen=True)
class Sheet:
    """A table's title, header and rows."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(results: Json) -> list[Sheet]:
    """Return what to print of results."""
    groups: dict[tuple[str, ...], list[Json]] = {}
    for record in results["blocks"]:
        key = tuple(record[part] for part in ("mode", "dtype", "memory_format", "compared"))
        groups.setdefault(key, []).append(record)
    sheets = [sheet for records in groups.values() for sheet in block_sheets(records)]
    if results["models"]:
        sheets += model_sheets(results["models"])
    if results["left_out"]:
        sheets.append(Sheet("Left out", ["what", "why"], [[x["what"], x["why"]] for x in results["left_out"]]))
    keys = ("figure", "case", "aim", "measured", "verdict")
    sheets.append(Sheet("Aims", list(keys), [[text(row[key]) for key in keys] for row in results["aims"]]))
    about = results["machine"] | results["versions"] | results["arguments"]
    sheets.append(Sheet("Taken with", ["what", "value"], [[key, text(value)] for key, value in about.items()]))
    return sheets


def block_sheets(records: list[Json]) -> list[Sheet]:
    """Return the tables of block cases that differ in their shapes alone: times, and memory of a training step."""
    first = records[0]
    what = f"{first['mode']}, {first['dtype']}, {first['memory_format']}"
    names = [name for name in first["candidates"] if not name.startswith("limit") or "blog" in name]
    names.sort(key=lambda name: not name.startswith("limit"))
    rows = []
    for record in records:
        floor_ms = text(1e3 * record["candidates"]["blog"].get("floor_s", float("nan")))
        cells = [time_cell(record["candidates"].get(name, {})) for name in names]
        rows.append([shape_cell(record), floor_ms, *cells])
    title = f"Block, {what}: ms, median and quartiles' half distance (times its limit)"
    sheets = [Sheet(title, ["map", "floor of blog", *names], rows)]
    if first["mode"] == "training":
        rows = [
            [shape_cell(record), *(memory_cell(record["candidates"].get(name, {})) for name in names)]
            for record in records
        ]
        sheets.append(Sheet(f"Block, {what}: MiB at the peak (kept for the backward pass)", ["map", *names], rows))
    return sheets


def model_sheets(models: Json) -> list[Sheet]:
    """Return the tables of whole models: one of rates, one of latencies."""
    names = list(models["counts"])
    rates: dict[str, Callable[[str], str]] = {
        "parameters": lambda name: f"{models['counts'][name]['parameters']:,}",
        "GFLOPs": lambda name: text(models["counts"][name]["gflops"]),
        "GFLOPs by torch": lambda name: text(models["counts"][name]["gflops_torch"]),
    }
    parts = [("train", record) for record in models["train"]] + [("val", record) for record in models["val"]]
    for kind, record in parts:
        what = f"batch {record['batch']}, {record['imgsz']} px, {record['dtype']}"
        rates[f"{kind} images/s, {what} (time over YOLOv8n's)"] = partial(rate_cell, record["models"])
        if kind == "train":
            rates[f"train peak MiB, {what}"] = partial(peak_cell, record["models"])
    latencies: dict[str, Callable[[str], str]] = {
        f"{record['runtime']} ms, {record['imgsz']} px": partial(latency_cell, record["models"])
        for record in models["latency"]
    }
    return [
        Sheet(title, ["model", *columns], [[name, *(cell(name) for cell in columns.values())] for name in names])
        for title, columns in (
            ("Models", rates),
            ("Latency of one image, median and quartiles' half distance (times YOLOv8n's)", latencies),
        )
        if columns
    ]


def shape_cell(record: Json) -> str:
    """Return a map's shape."""
    return (
        f"{record['scale']} {record['level']} {record['batch']}x{record['channels']}x{record['size']}x{record['size']}"
    )


def time_cell(figure: Json, base: str = "over_limit") -> str:
    """Return a time with its spread and its ratio to another."""
    if "median_s" not in figure:
        return "failed" if "error" in figure else "-"
    spread = (figure["q3_s"] - figure["q1_s"]) / 2
    return f"{text(1e3 * figure['median_s'])} ±{1e3 * spread:.2g} ({ratio(figure[base])})"


def memory_cell(figure: Json) -> str:
    """Return the memory of a training step."""
    return f"{text(mib(figure.get('peak_bytes')))} ({text(mib(figure.get('kept_bytes')))})"


def rate_cell(figures: Json, name: str) -> str:
    """Return a model's images per second with its time over the plain model's."""
    return f"{text(figures[name].get('images_per_s'))} ({ratio(figures[name].get('over_plain'))})"


def peak_cell(figures: Json, name: str) -> str:
    """Return the peak memory of a model's training step."""
    return text(mib(figures[name].get("peak_bytes")))


def latency_cell(figures: Json, name: str) -> str:
    """Return a model's latency with its ratio to the plain model's."""
    return time_cell(figures.get(name, {}), "over_plain")


def mib(value: float | None) -> float | None:
    """Return bytes in MiB."""
    return None if value is None else value / 2**20


def ratio(value: float | None) -> str:
    """Return a ratio with two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def text(value: object) -> str:
    """Return a table's text for a value: three digits or more of a number, a dash for a missing value."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "-" if value is None else str(value)


def document(results: Json) -> str:
    """Return all tables as one Markdown document."""
    head = (
        "# GAM's time and memory: all measurements\n\nGenerated by `scripts/benchmarks/benchmark_gam.py`, "
        "whose docstring defines each figure. The findings: [speed.md](../speed.md).\n"
    )
    return "\n".join([head, *map(markdown, tables(results))])


def markdown(sheet: Sheet) -> str:
    """Return a table as Markdown."""
    lines = [sheet.header, ["---"] * len(sheet.header), *sheet.rows]
    return (
        f"**{sheet.title}**\n\n"
        + "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        + "\n"
    )


def terminal(sheet: Sheet) -> Table:
    """Return a table for the terminal."""
    table = Table(*sheet.header, title=sheet.title, title_justify="left")
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table
