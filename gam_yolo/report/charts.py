"""Charts as inline SVG, drawn in the page's own colours so that they follow its light and dark theme.

Colours are CSS variables (`--c0`, `--c1`, ... for the variants); every chart carries a title and a description for
those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Interval", "Line", "bars", "curves", "forest", "scatter"]

_WIDTH = 720
_COLOURS = 8


@dataclass(frozen=True)
class Interval:
    """A value with its interval, if it has one, and the variant it belongs to (for its colour)."""

    label: str
    value: float
    low: float | None
    high: float | None
    variant: int
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A curve of one variant."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    variant: int


_LETTER, _LINE = 7.5, 15  # a label's width for each letter, and height


def forest(title: str, rows: Sequence[Interval], unit: str) -> str:
    """Draw differences and their intervals about a line at zero."""
    ends = [0.0, *(v for r in rows for v in (r.value, r.low, r.high) if v is not None)]
    scale = _Scale(min(ends), max(ends), 230, _WIDTH - 120)
    height = 28 * len(rows) + 60
    out = [_x_axis(scale, 8, height - 48, unit), _rule(scale(0), 8, scale(0), height - 48, "zero")]
    for i, row in enumerate(rows):
        y = 22 + 28 * i
        out.append(_text(222, y + 4, row.label, "end"))
        out.append(_whisker(scale, row, y))
        out.append(f'<circle cx="{scale(row.value):.1f}" cy="{y}" r="5" {_fill(row.variant)}/>')
        out.append(_text(_WIDTH - 108, y + 4, row.note, "start", "small"))
    said = "; ".join(f"{r.label} {_spoken(r)}" for r in rows)
    return _svg(title, said, height, out)


def bars(title: str, groups: Sequence[tuple[str, Sequence[Interval]]], unit: str) -> str:
    """Draw a bar for each variant in each group, with its interval."""
    ends = [0.0, *(v for _, rows in groups for r in rows for v in (r.value, r.high) if v is not None)]
    scale = _Scale(0.0, max(ends), 170, _WIDTH - 30)
    thick, gap = 11, 10
    height = sum(thick * len(rows) + gap for _, rows in groups) + 60
    out, y = [_x_axis(scale, 4, height - 48, unit)], 8.0
    for label, rows in groups:
        out.append(_text(162, y + thick * len(rows) / 2 + 4, label, "end"))
        for row in rows:
            width = max(scale(row.value) - scale(0), 0.5)
            out.append(
                f'<rect x="{scale(0):.1f}" y="{y:.1f}" width="{width:.1f}" height="{thick - 2}" {_fill(row.variant)} '
                'opacity=".75">'
                f"<title>{escape(f'{label}, {row.label}: {_spoken(row)}')}</title></rect>"
            )
            out.append(_whisker(scale, row, y + thick / 2 - 1, own_colour=False))
            y += thick
        y += gap
    said = "; ".join(f"{label}: " + ", ".join(f"{r.label} {_spoken(r)}" for r in rows) for label, rows in groups[:12])
    return _svg(title, said, height, out)


def scatter(title: str, points: Sequence[tuple[float, Interval]], x_unit: str, y_unit: str) -> str:
    """Draw values with intervals over a cost."""
    height = 340
    xs = [x for x, _ in points]
    ends = [v for _, r in points for v in (r.value, r.low, r.high) if v is not None]
    across = _Scale(min(0.0, *xs), max(xs), 60, _WIDTH - 120)
    up = _Scale(min(ends), max(ends), height - 56, 14)
    out = [_x_axis(across, 14, height - 56, x_unit), _y_axis(up, 60, _WIDTH - 20, y_unit)]
    labels: list[tuple[float, float, str]] = []
    for x, row in sorted(points, key=lambda point: -point[1].value):
        if row.low is not None and row.high is not None:
            out.append(_rule(across(x), up(row.low), across(x), up(row.high), "whisker", row.variant))
        out.append(f'<circle cx="{across(x):.1f}" cy="{up(row.value):.1f}" r="6" {_fill(row.variant)}/>')
        left, base = across(x) + 10, up(row.value) + 4
        for other, taken, text in labels:  # from the top down; what would lie on another label moves below it
            if left < other + _LETTER * len(text) and other < left + _LETTER * len(row.label):
                base = max(base, taken + _LINE)
        labels.append((left, base, row.label))
    out += [_text(left, base, text, "start") for left, base, text in labels]
    said = "; ".join(f"{r.label} at {x:.3g} {x_unit}: {_spoken(r)}" for x, r in points)
    return _svg(title, said, height, out)


def curves(title: str, lines: Sequence[Line], x_unit: str, y_unit: str) -> str:
    """Draw curves of several variants; those of one variant share a colour."""
    height = 340
    across = _Scale(min(min(line.x) for line in lines), max(max(line.x) for line in lines), 60, _WIDTH - 20)
    up = _Scale(0.0, max(max(line.y) for line in lines), height - 56, 14)
    out = [_x_axis(across, 14, height - 56, x_unit), _y_axis(up, 60, _WIDTH - 20, y_unit)]
    for line in lines:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        out.append(
            f'<polyline points="{path}" class="line" style="stroke:var(--c{line.variant % _COLOURS})">'
            f"<title>{escape(line.label)}</title></polyline>"
        )
    said = "; ".join(f"{line.label}: from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    return _svg(title, said, height, out)


class _Scale:
    """A linear map from data to pixels, with round ticks."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        span = (high - low) or abs(high) or 1.0
        raw = span / 5
        power = 10.0 ** math.floor(math.log10(raw))
        self.step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
        self.low = math.floor(low / self.step + 1e-9) * self.step
        self.high = math.ceil(high / self.step - 1e-9) * self.step
        if self.high <= self.low:
            self.high = self.low + self.step
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}: '
        f'{escape(description)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _x_axis(scale: _Scale, top: float, bottom: float, unit: str) -> str:
    grid = "".join(_rule(scale(t), top, scale(t), bottom, "grid") for t in scale.ticks())
    labels = "".join(_text(scale(t), bottom + 18, _short(t), "middle", "small") for t in scale.ticks())
    return grid + labels + _text((scale(scale.low) + scale(scale.high)) / 2, bottom + 40, unit, "middle", "small")


def _y_axis(scale: _Scale, left: float, right: float, unit: str) -> str:
    grid = "".join(_rule(left, scale(t), right, scale(t), "grid") for t in scale.ticks())
    labels = "".join(_text(left - 6, scale(t) + 4, _short(t), "end", "small") for t in scale.ticks())
    middle = (scale(scale.low) + scale(scale.high)) / 2
    place = f'transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle" class="small"'
    return f"{grid}{labels}<text {place}>{escape(unit)}</text>"


def _whisker(scale: _Scale, row: Interval, y: float, own_colour: bool = True) -> str:
    if row.low is None or row.high is None:
        return ""
    return _rule(scale(row.low), y, scale(row.high), y, "whisker", row.variant if own_colour else None)


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str, variant: int | None = None) -> str:
    style = "" if variant is None else f' style="stroke:var(--c{variant % _COLOURS})"'
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{style}/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _fill(variant: int) -> str:
    return f'style="fill:var(--c{variant % _COLOURS})"'


def _short(value: float) -> str:
    return f"{value:.10g}" if abs(value) >= 1e-9 else "0"


def _spoken(row: Interval) -> str:
    span = "" if row.low is None or row.high is None else f" ({row.low:.1f} to {row.high:.1f})"
    return f"{row.value:.1f}{span}"
