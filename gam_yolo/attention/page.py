"""From a look's result to its files: one self-contained page, a JSON file, and the drawings."""

from __future__ import annotations

import io
import re
from pathlib import Path

from markupsafe import Markup
from PIL.PngImagePlugin import PngInfo

from gam_yolo.attention.schema import Gate, LookRecord
from gam_yolo.report import formatting
from gam_yolo.report.gallery import as_url
from gam_yolo.report.records import map_text
from gam_yolo.report.render import environment

__all__ = ["drawings", "is_drawing", "page"]

_MARK = "Software", "gam-yolo look"  # in each drawing, which tells it from a user's own image
_WIDTH, _HEIGHT = 160, 36  # of a histogram, in pixels


def drawings(result: LookRecord) -> dict[str, bytes]:
    """Return each drawing as a PNG file: number and name of the image, model, and what is shown."""
    found, mark = {}, PngInfo()
    mark.add_text(*_MARK)
    for number, picture in enumerate(result.pictures, 1):
        for model, tiles in picture.models.items():
            named = [*zip(("detections", "heat-map"), tiles, strict=True)]
            for block, gates in picture.gates[model].items():
                named += [(f"{block} {tile.caption.partition(':')[0]}", tile) for tile in gates]
            stem = f"{number} {Path(picture.name).stem[:60]} {model}"
            for what, tile in named:
                png, name = io.BytesIO(), re.sub(r"[^\w.-]+", "-", f"{stem} {what}")
                tile.image.save(png, "PNG", pnginfo=mark)
                found[f"pictures/{name}.png"] = png.getvalue()
    return found


def is_drawing(file: Path) -> bool:
    """Return whether a PNG file is a drawing of `look`."""
    with file.open("rb") as stream:
        return "\0".join(_MARK).encode() in stream.read(200)  # after the header


def page(result: LookRecord) -> str:
    """Return the text of `look.html`."""
    templates = environment("gam_yolo.attention")
    templates.filters.update(url=as_url, histogram=_histogram)
    shown = map_text(result, formatting.printable)
    return templates.get_template("look.html.j2").render(look=shown)


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
