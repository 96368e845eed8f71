"""From a look's result to its files: one self-contained page, a JSON file, and the drawings."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gam_yolo.attention.result import Gate, LookResult, Tile
from gam_yolo.errors import UserError
from gam_yolo.io import write as write_file
from gam_yolo.report import charts, formatting
from gam_yolo.report.gallery import as_url
from gam_yolo.report.records import map_text

__all__ = ["page", "write"]

_WIDTH, _HEIGHT = 160, 36  # of a histogram, in pixels


def write(result: LookResult, folder: Path) -> Path:
    """Write `look.html`, `look.json`, and the drawings as PNG files in `pictures`; return the path of the page.

    Raises:
        UserError: They cannot be written.
    """
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        for name, tile in _tiles(result):
            tile.image.save(folder / "pictures" / name)
    except OSError as error:
        raise UserError(f"the page cannot be written there ({error.strerror})", at=folder) from None
    write_file(folder / "look.json", result.to_json())
    write_file(folder / "look.html", page(result))
    return folder / "look.html"


def _tiles(result: LookResult) -> list[tuple[str, Tile]]:
    """Return each drawing with its file name: number and name of the image, model, and what is shown."""
    found = []
    for number, picture in enumerate(result.pictures, 1):
        for model, tiles in picture.models.items():
            named = [*zip(("detections", "heat-map"), tiles, strict=True)]
            for block, gates in picture.gates[model].items():
                named += [(f"{block} {tile.caption.partition(':')[0]}", tile) for tile in gates]
            stem = f"{number} {Path(picture.name).stem[:60]} {model}"
            found += [(re.sub(r"[^\w.-]+", "-", f"{stem} {what}") + ".png", tile) for what, tile in named]
    return found


def page(result: LookResult) -> str:
    """Return the text of `look.html`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("gam_yolo.attention"), PackageLoader("gam_yolo.report")]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=formatting.points, signed=formatting.signed, signed_span=formatting.signed_span,
        colour=charts.colour, url=as_url, histogram=_histogram,
    )  # fmt: skip
    shown = map_text(result, formatting.printable)
    return environment.get_template("look.html.j2").render(look=shown)


def _histogram(gate: Gate, colour: str) -> Markup:
    """Draw the distribution of a gate's values, with a mark at 1 where it is in range."""
    highest, step = max(gate.shares), _WIDTH / len(gate.shares)
    heights = [_HEIGHT * share / highest for share in gate.shares]
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{_HEIGHT - height:.1f}" width="{step:.1f}" height="{height:.1f}"/>'
        for i, height in enumerate(heights)
        if height
    )
    low, high = gate.edges[0], gate.edges[-1]
    at = _WIDTH * (1 - low) / (high - low)
    mark = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}" stroke="var(--ink)"/>' if 0 <= at <= _WIDTH else ""
    label = f"{gate.name}: values from {low:.2f} to {high:.2f}"
    return Markup(
        '<svg class="histogram" viewBox="0 0 {w} {h}" role="img" aria-label="{label}" '
        'fill="var({colour})">{inner}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, label=label, colour=colour, inner=Markup(bars + mark))  # noqa: S704
