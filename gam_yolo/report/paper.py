"""A comparison for a paper: a LaTeX table, and the page's charts as PDF and SVG in the widths of journals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation, Text

from gam_yolo.errors import UserError, option
from gam_yolo.report import formatting
from gam_yolo.report.charts import STYLE, VARIABLES, Chart, stand_in
from gam_yolo.report.render import plan_charts
from gam_yolo.report.schema import ComparisonRecord, Difference, Value, VariantResult

__all__ = ["COLUMNS", "FIGURES", "TABLE", "has_table", "latex", "save_figures"]

COLUMNS = {"1col": 3.5, "2col": 7.16}
"""Widths in inches: IEEE's, which those of other publishers are close to."""

TABLE, FIGURES = "report.tex", "figures"
"""The table's file and the folder of the figures, in the folder of a report."""

_FIRST_WORDS = r"% Needs \usepackage{booktabs}"
_POINTS = 8  # size of the text, which the page has in 13 pixels
_HIGHEST = 9.0  # inches, of a page; a chart of more rows than it can hold is higher
_COLOURS = {
    "--ink": "#1c2126", "--soft": "#5d6871", "--line": "#d9dee3", "--c0": "#5d6871", "--c1": "#0072b2",
    "--c2": "#d55e00", "--c3": "#009e73", "--c4": "#cc79a7", "--c5": "#b8860b", "--c6": "#7b5ea7", "--c7": "#3b9fd6",
    "--c8": "#8c5a4b", "--c9": "#6b7d1e", "--c10": "#c2185b", "--c11": "#2f5fa8",
}  # fmt: skip  # the page's, in the light theme
_MATHS = {"AP": r"mAP$_{50\text{--}95}$", "AP50": r"mAP$_{50}$"}
_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def has_table(folder: Path) -> bool:
    """Return whether a folder has the table of an earlier comparison.

    Raises:
        UserError: Something else is in the place of the table or of the figures.
    """
    table, figures = folder / TABLE, folder / FIGURES
    ours = table.is_file() and table.read_bytes().startswith(_FIRST_WORDS.encode())
    other = [(table, "file")] if os.path.lexists(table) and not ours else []
    other += [(figures, "folder")] if os.path.lexists(figures) and not figures.is_dir() else []
    for path, kind in other:
        fix = f"Give another folder: {option('output')}"
        problem = "already exists and was not written by gam-yolo" if path.is_file() else f"is in the way of a {kind}"
        raise UserError(problem, at=path, fix=fix)
    return ours


def latex(comparison: ComparisonRecord) -> str:
    """Return the main table for LaTeX, with the package booktabs: values in points with their intervals.

    A star marks a difference that Holm's correction leaves significant.
    """
    references = comparison.references
    costed = any(variant.cost for variant in comparison.variants.values())
    level = f"{100 * comparison.statistics.level:g}"
    main, second = comparison.about.main, comparison.about.second
    head = ["Model", "Seeds", _heading(main), *(f"minus {_escaped(name)}" for name in references), _heading(second)]
    head += ["Params (M)", "GFLOPs", "Latency (ms)"] if costed else []
    body = [_row(variant, references, costed, main, second) for variant in comparison.variants.values()]
    lines = [" & ".join(row) + r" \\" for row in (head, *body)]
    task = "Detection" if comparison.task == "detect" else "Classification"
    groups = f" in {comparison.data.groups.number} groups" if comparison.data.groups else ""
    seeds = (
        ", and the spread of the training seeds" if any(len(v.runs) > 1 for v in comparison.variants.values()) else ""
    )
    caption = (
        f"{task} on {comparison.data.images} images. Values are in points, with {level}\\,\\% intervals in brackets: "
        f"paired bootstrap of the images{groups}{seeds}. A star marks a difference that is significant at "
        f"{1 - comparison.statistics.level:g} after Holm's correction."
    )
    devices = {variant.cost.device for variant in comparison.variants.values() if variant.cost}
    if len(devices) == 1:
        size = f" of {comparison.protocol.imgsz} pixels" if comparison.protocol.imgsz else ""
        caption += f" Latency: the forward pass of one image{size} ({_escaped(devices.pop())})."
    return "\n".join(
        [
            f"{_FIRST_WORDS} and \\usepackage{{amsmath}}.",
            r"\begin{table*}",
            r"\centering",
            r"\small",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _heading(metric: str) -> str:
    return _MATHS.get(metric) or _escaped(formatting.METRIC_NAMES[metric])


def _row(variant: VariantResult, references: tuple[str, ...], costed: bool, main: str, second: str) -> list[str]:
    cells = [_escaped(variant.name), str(len(variant.runs)), _cell(variant.metrics[main])]
    cells += [_cell(variant.differences[name][main]) if name in variant.differences else "" for name in references]
    cells.append(_cell(variant.metrics[second]))
    if costed:
        cost = variant.cost
        numbers = (cost.parameters / 1e6, cost.gflops, cost.latency_median) if cost else (None, None, None)
        cells += ["--" if n is None else f"{n:.{digits}f}" for n, digits in zip(numbers, (2, 1, 1), strict=True)]
    return cells


def _cell(found: Value | Difference) -> str:
    """Write a value and its interval, a difference with its sign, and a star where it is significant."""
    if found.value is None:
        return "--"
    sign = "+" if isinstance(found, Difference) else ""
    star = r"^{*}" if isinstance(found, Difference) and found.verdict in ("better", "worse") else ""
    ends = [] if found.low is None or found.high is None else [found.low, found.high]
    span = r"\ [" + r",\,".join(f"{100 * end:{sign}.1f}" for end in ends) + "]" if ends else ""
    return f"${100 * found.value:{sign}.1f}{star}{span}$"


def _escaped(text: str) -> str:
    """Escape what LaTeX takes for commands."""
    return "".join(_SPECIAL.get(c, c) for c in formatting.printable(text))


def save_figures(comparison: ComparisonRecord, folder: Path) -> list[Path]:
    """Write the page's charts as PDF and SVG, in both widths of `COLUMNS`, with text of 8 points.

    Returns:
        The files.

    Raises:
        UserError: They cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, plan in plan_charts(comparison).items():
            chart = plan()
            for column, width in COLUMNS.items():
                for kind in ("pdf", "svg"):
                    path = folder / f"{name.replace('_', '-')}-{column}.{kind}"
                    _save(chart, width, path)
                    written.append(path)
    except OSError as error:
        raise UserError(f"the figures cannot be written there ({error.strerror})", at=folder) from None
    return written


def _save(chart: Chart, width: float, path: Path) -> None:
    scale = _POINTS / STYLE["font.size"]
    figure = chart.figure(72 * width / scale)
    _shrink(figure, scale)
    if len(chart.names) > 1:
        longest = max(map(len, chart.names.values()))
        columns = max(1, int(72 * width / (0.6 * _POINTS * longest + 3.5 * _POINTS)))
        handles = [Patch(color=_real(stand_in(i)), label=name) for i, name in sorted(chart.names.items())]
        key = {"fontsize": _POINTS, "handlelength": 1.2, "handleheight": 0.8, "columnspacing": 1.2, "frameon": False}
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), **key)
        rows = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 1.5 * _POINTS * rows / 72)
    needed = 1.25 * _POINTS * (len(figure.axes[0].get_yticks()) + 4) / 72  # each row keeps its line of text
    figure.set_figheight(min(figure.get_figheight(), max(needed, _HIGHEST)))
    # Fonts that can be edited and searched in a PDF, outlines in an SVG, which carries no fonts; no date in either.
    kept: dict[Any, Any] = STYLE | {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": chart.title}
    with mpl.rc_context(kept):
        figure.savefig(path, transparent=True, metadata={"CreationDate" if path.suffix == ".pdf" else "Date": None})


def _shrink(figure: Figure, scale: float) -> None:
    """Scale a figure with all that has a size of its own, and give it the light theme's colours."""
    figure.set_size_inches(*(scale * figure.get_size_inches()))
    for artist in figure.findobj():
        if isinstance(artist, Line2D):
            artist.set(linewidth=scale * artist.get_linewidth(), markersize=scale * artist.get_markersize())
            artist.set_color(_real(artist.get_color()))
        elif isinstance(artist, Text):
            artist.set(fontsize=scale * float(artist.get_fontsize()), color=_real(artist.get_color()))
        elif isinstance(artist, Patch):
            _shrink_patch(artist, scale)
        if isinstance(artist, Annotation):
            artist.xyann = scale * artist.xyann[0], scale * artist.xyann[1]
            if artist.arrow_patch is not None:
                _shrink_patch(artist.arrow_patch, scale)
    for axes in figure.axes:  # last, as it also sizes the labels of ticks
        axes.tick_params(labelsize=scale * 12, pad=scale * 7)
        axes.xaxis.labelpad *= scale
        axes.yaxis.labelpad *= scale


def _shrink_patch(patch: Patch, scale: float) -> None:
    patch.set_linewidth(scale * patch.get_linewidth())
    for colour, change in ((patch.get_facecolor(), patch.set_facecolor), (patch.get_edgecolor(), patch.set_edgecolor)):
        if to_hex(colour) in VARIABLES:  # setting any other would set its transparency
            change(_real(colour))


def _real(colour: Any) -> Any:
    """Return the colour that a stand-in of the page's charts means."""
    name = VARIABLES.get(to_hex(colour))
    return _COLOURS[name] if name else colour
