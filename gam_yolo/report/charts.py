"""Charts as inline SVG. matplotlib draws them in the page's own colours, so they follow its light and dark theme.

Colours are CSS variables (`--c0` for the baseline, `--c1`, `--c2`, ... for the others); every chart carries a title and
a description for screen readers.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, BboxBase

__all__ = [
    "STYLE",
    "VARIABLES",
    "Chart",
    "Interval",
    "Line",
    "bars",
    "colour",
    "curves",
    "forest",
    "forest_groups",
    "scatter",
    "stand_in",
]

_Side = Literal["left", "right"]
_WIDTHS = {"wide": 720, "narrow": 400}  # in pixels, of the forms for screens and for phones
_COLOURS = 12  # as many as the page's style has
_INK, _SOFT, _LINE = "#0000e0", "#0000e1", "#0000e2"  # stand for CSS variables until the SVG is written
VARIABLES = {_INK: "--ink", _SOFT: "--soft", _LINE: "--line"} | {f"#0000c{i:x}": f"--c{i}" for i in range(_COLOURS)}
_LETTER, _ASIDE = (7.5, 15.0), 10  # about a letter's width and height, and a name's distance from its point, in pixels
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a variant's name may hold dollars
    "figure.dpi": 72,  # so that a point is a pixel
    "font.size": 13,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.labelsize": 12,
    "axes.edgecolor": _LINE,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 1,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.pad": 7,
}


@dataclass(frozen=True)
class Interval:
    """A value with its interval, if it has one, and the variant it belongs to (for its colour).

    A pooled value is one over several others, and is drawn as a diamond.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    variant: int
    note: str = ""
    pooled: bool = False


@dataclass(frozen=True)
class Line:
    """A curve of one variant."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    variant: int


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn at any width.

    Attributes:
        title: What it shows.
        description: Its content in words, for screen readers.
        height: In pixels.
        draw: Draws it.
        names: The variants that only a colour tells apart; the page has a key for them.
    """

    title: str
    description: str
    height: float
    draw: Callable[[Axes], None]
    names: Mapping[int, str] = field(default_factory=dict)

    def figure(self, width: float) -> Figure:
        """Return it as a figure in the page's style, with stand-ins for its colours; the width is in pixels."""
        with mpl.rc_context(STYLE):
            figure = Figure((width / 72, self.height / 72), layout="constrained")
            self.draw(figure.subplots())
        return figure

    def html(self) -> str:
        """Return it as two elements for a page, in the page's colours: one for screens, one for phones."""
        said = escape(f"{self.title}: {self.description}")
        elements = []
        for kind, width in _WIDTHS.items():
            out = io.StringIO()
            # The salt keeps what one chart names apart from another's on the page, and the same from run to run.
            with mpl.rc_context(STYLE | {"svg.hashsalt": f"{self.title} {kind}"}), warnings.catch_warnings():
                # The page has the browser's fonts, which have more characters than the one that text is measured with.
                warnings.filterwarnings("ignore", "Glyph .* missing")
                self.figure(width).savefig(out, format="svg", transparent=True, metadata={"Date": None})
            opening = (
                f'<svg class="chart {kind}" viewBox="0 0 {width} {self.height:.0f}" role="img" aria-label="{said}">'
            )
            elements.append(f"{opening}<title>{escape(self.title)}</title>{_inner(out.getvalue())}</svg>")
        return "\n".join(elements)


def colour(variant: int) -> str:
    """Name the CSS variable that is a variant's colour; no other variant has that of the baseline, variant 0."""
    return f"--c{_number(variant)}"


def forest(title: str, rows: Sequence[Interval], unit: str) -> Chart:
    """Draw differences with their intervals around a line at zero."""
    return forest_groups(title, [("", rows)], unit)


def forest_groups(title: str, groups: Sequence[tuple[str, Sequence[Interval]]], unit: str) -> Chart:
    """Draw groups of differences with their intervals around a line at zero, each group under its name."""
    lines: list[tuple[str, Interval | None]] = []
    for name, rows in groups:
        lines += ([(name, None)] if name else []) + [(row.label, row) for row in rows]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=_INK, linewidth=1.4)
        for i, (_, row) in enumerate(lines):
            if row:
                (_diamond if row.pooled else _point)(axes, row.value, i, row, across=True)
                axes.annotate(
                    row.note, (1, i), (10, 0), ("axes fraction", "data"), "offset points", va="center", color=_SOFT
                )
        axes.set_xlabel(unit)
        _name_rows(axes, [(i, label) for i, (label, _) in enumerate(lines)], len(lines) - 0.4)
        for label, (_, row) in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if row is None or row.pooled else "normal")

    said = "; ".join(
        f"{name}: " * bool(name) + ", ".join(f"{r.label} {_spoken(r)}" for r in rows) for name, rows in groups
    )
    return Chart(title, said, 28 * len(lines) + 60, draw)


def bars(title: str, groups: Sequence[tuple[str, Sequence[Interval]]], unit: str) -> Chart:
    """Draw a bar for each variant in each group, with its interval."""
    thick, gap = 11, 10

    def draw(axes: Axes) -> None:
        names, top = [], 0.0
        for label, rows in groups:
            names.append((top + thick * len(rows) / 2, label))
            for row in rows:
                middle = top + thick / 2
                axes.barh(middle, row.value, thick - 2, color=_colour(row), alpha=0.75)
                _whisker(axes, row.value, middle, row, _INK, across=True)
                top += thick
            top += gap
        axes.set_xlim(left=0)
        axes.set_xlabel(unit)
        _name_rows(axes, names, top - gap / 2)

    said = "; ".join(f"{label}: " + ", ".join(f"{r.label} {_spoken(r)}" for r in rows) for label, rows in groups[:12])
    names = {row.variant: row.label for _, rows in groups for row in rows}
    return Chart(title, said, sum(thick * len(rows) + gap for _, rows in groups) + 60, draw, names)


def scatter(title: str, points: Sequence[tuple[float, Interval]], x_unit: str, y_unit: str) -> Chart:
    """Draw values with their intervals against a cost."""

    def draw(axes: Axes) -> None:
        for x, row in points:
            _point(axes, x, row.value, row, across=False)
        low, high = min(x for x, _ in points), max(x for x, _ in points)
        room = max(0.2 * (high - low), 0.02 * high)  # for the names
        axes.set_xlim(low - room, high + 1.75 * room)
        axes.set_xlabel(x_unit)
        axes.set_ylabel(y_unit)
        _name_points(axes, points)

    said = "; ".join(f"{r.label} at {x:.3g} {x_unit}: {_spoken(r)}" for x, r in points)
    return Chart(title, said, 340, draw)


def curves(title: str, lines: Sequence[Line], x_unit: str, y_unit: str) -> Chart:
    """Draw curves of several variants; those of one variant share a colour."""

    def draw(axes: Axes) -> None:
        for line in lines:
            axes.plot(line.x, line.y, color=_colour(line), linewidth=2)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        if all(isinstance(x, int) for line in lines for x in line.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no epoch 2.5
        axes.set_xlabel(x_unit)
        axes.set_ylabel(y_unit)

    said = "; ".join(f"{line.label}: from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    return Chart(title, said, 340, draw, {line.variant: line.label.partition(", seed ")[0] for line in lines})


def _inner(document: str) -> str:
    """Return the part of matplotlib's SVG document that goes into the page."""
    end = "</metadata>"
    inner = document[document.index(end) + len(end) : document.rindex("</svg>")]
    inner = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inner, flags=re.DOTALL)  # it would style the whole page
    inner = re.sub(r' id="[\w.]+_\d+"', "", inner)  # nothing refers to these
    inner = re.sub(r"font-family: [^;\"]*;? ?|(?<=px) '[^;\"]*", "", inner).replace("font: ", "font-size: ")
    return re.sub(r"#0000[ce][\da-f]", lambda found: f"var({VARIABLES[found[0]]})", inner)


def stand_in(variant: int) -> str:
    """Return what stands for a variant's colour while a chart is drawn, a key of `VARIABLES`."""
    return f"#0000c{_number(variant):x}"


def _colour(of: Interval | Line) -> str:
    return stand_in(of.variant)


def _number(variant: int) -> int:
    return variant and 1 + (variant - 1) % (_COLOURS - 1)


def _point(axes: Axes, x: float, y: float, row: Interval, across: bool) -> None:
    _whisker(axes, x, y, row, _colour(row), across)
    axes.plot(x, y, "o", color=_colour(row), markersize=10)


def _diamond(axes: Axes, x: float, y: float, row: Interval, across: bool) -> None:  # noqa: ARG001  # as `_point`
    ends = (x if row.low is None else row.low, x if row.high is None else row.high)
    axes.fill((ends[0], x, ends[1], x), (y, y - 0.3, y, y + 0.3), color=_colour(row))


def _whisker(axes: Axes, x: float, y: float, row: Interval, colour: str, across: bool) -> None:
    if row.low is not None and row.high is not None:
        ends = (row.low, row.high)
        axes.plot(ends if across else (x, x), (y, y) if across else ends, color=colour, linewidth=2)


def _name_rows(axes: Axes, names: Sequence[tuple[float, str]], bottom: float) -> None:
    """Write names in place of the numbers of the vertical axis, which runs downwards."""
    axes.set_yticks([place for place, _ in names], [name for _, name in names], color=_INK, fontsize=13)
    axes.set_ylim(bottom, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _name_points(axes: Axes, points: Sequence[tuple[float, Interval]]) -> None:
    """Write each point's name beside it, clear of all names and points; a line leads to it from a distance."""
    axes.figure.canvas.draw()  # which settles where the points lie
    spots = [axes.transData.transform((x, row.value)) for x, row in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in spots]
    for (across, up), (x, row) in sorted(zip(spots, points, strict=True), key=lambda found: -found[0][1]):
        places = list(_beside(across, up, row.label, axes.bbox))
        box, side, rise = next((place for place in places if not place[0].count_overlaps(taken)), places[0])
        taken.append(box)
        line = {"arrowstyle": "-", "color": _SOFT, "shrinkA": 0, "shrinkB": 5} if abs(rise) >= _LETTER[1] else None
        offset = (_ASIDE if side == "left" else -_ASIDE, rise)
        axes.annotate(
            row.label, (x, row.value), offset, textcoords="offset points", ha=side, va="center", arrowprops=line
        )


def _beside(x: float, y: float, label: str, inside: BboxBase) -> Iterator[tuple[Bbox, _Side, int]]:
    """Yield places for a label by a point, nearest first: its box, its alignment and how far up, in pixels."""
    width, height = _LETTER[0] * len(label), _LETTER[1]
    for distance in range(0, int(inside.height), 5):
        for rise in (distance, -distance):
            sides: tuple[tuple[_Side, float], ...] = (("left", x + _ASIDE), ("right", x - _ASIDE - width))
            for side, left in sides:
                box = Bbox.from_bounds(left, y + rise - height / 2, width, height)
                if inside.x0 <= box.x0 and inside.y0 <= box.y0 and box.y1 <= inside.y1:
                    yield box, side, rise


def _spoken(row: Interval) -> str:
    span = "" if row.low is None or row.high is None else f" ({row.low:.1f} to {row.high:.1f})"
    return f"{row.value:.1f}{span}"
