"""Draw what `look` found on an image: detections, heat maps and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gam_yolo.attention.schema import Tile
from gam_yolo.report.gallery import Box, draw_boxes

__all__ = ["boxes", "gate", "overlay", "photo"]

Corners = tuple[int, int, int, int]
Map = NDArray[np.floating[Any]]

_SIDE = 420  # longer side of a photograph in pixels
_CHANNELS = 3  # the most active ones that are drawn
_LEAST_RANGE = 0.02  # narrower ranges of values look flat, as they are
_GAP, _BARS = 4, 110  # between the maps of a gate; the height of a bar chart; in pixels


def photo(image: Tensor, content: Corners) -> Image.Image:
    """Return the network's input (1, 3, H, W) as an image, without its padding."""
    pixels = (image[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
    cut = Image.fromarray(pixels).crop(content)
    scale = _SIDE / max(cut.size)
    return cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))))


def boxes(
    picture: Image.Image,
    detections: Map,
    names: Mapping[int, str],
    content: Corners,
    colour: tuple[int, int, int] = (0, 158, 115),
) -> Image.Image:
    """Draw detections: left, top, right, bottom in pixels of the network's input, score, class."""
    scale = picture.width / (content[2] - content[0])
    drawn = []
    for left, top, right, bottom, score, kind, *_ in detections:
        x, y = (left - content[0]) * scale, (top - content[1]) * scale
        place = (x, y, (right - left) * scale, (bottom - top) * scale)
        drawn.append(Box(place, f"{names[int(kind)]} {score:.2f}" if names else "", colour))
    return draw_boxes(picture, drawn)


def overlay(picture: Image.Image, heat: Map, content: Corners) -> Image.Image:
    """Lay a heat map (H, W) from 0 to 1 over a photograph: the hotter, the less of the photograph shows."""
    cut = Image.fromarray((255 * heat).astype(np.uint8)).crop(content).resize(picture.size)
    share = np.asarray(cut, dtype=float)[..., None] / 255
    grey = np.asarray(picture.convert("L"), dtype=float)[..., None].repeat(3, axis=2) * 0.8
    colours = mpl.colormaps["inferno"](share[..., 0])[..., :3] * 255
    weight = 0.25 + 0.5 * share
    return Image.fromarray(((1 - weight) * grey + weight * colours).astype(np.uint8))


def gate(
    name: str, values: Map, picture: Image.Image, detections: Map, whole: tuple[int, int], content: Corners
) -> Tile:
    """Draw a gate: the mean over channels and the most active channels as maps, or a bar for each channel.

    Each map has its own range of colours, which the caption gives.

    Args:
        name: Its name.
        values: (C or 1, H or 1, W or 1).
        picture: The photograph.
        detections: As for `boxes`; they are drawn on the mean.
        whole: Height and width of the network's input.
        content: The part of the input that is not padding.
    """
    if values[0].size == 1:
        return Tile(f"{name}: a bar for each of {len(values)} channels, {_span(values)}", _bars(values.ravel()))
    spread = values.reshape(len(values), -1).std(axis=1)
    active = np.argsort(-spread)[: _CHANNELS if len(values) > 1 else 0]
    shown = [values.mean(axis=0), *values[active]]
    width = (2 * picture.width - _GAP * _CHANNELS) // (1 + _CHANNELS)
    size = width, max(1, round(width * picture.height / picture.width))
    maps = [_coloured(one, whole, content).resize(size, Image.Resampling.NEAREST) for one in shown]
    maps[0] = boxes(maps[0], detections, {}, content, (255, 255, 255))
    joined = Image.new("RGBA", (len(maps) * (width + _GAP) - _GAP, size[1]), (0, 0, 0, 0))
    for i, one in enumerate(maps):
        joined.paste(one, (i * (width + _GAP), 0))
    caption = ", ".join(f"channel {c} {_span(one)}" for c, one in zip(active, shown[1:], strict=True))
    return Tile(
        f"{name}: mean over channels {_span(shown[0])}, {caption}" if caption else f"{name}: {_span(shown[0])}", joined
    )


def _coloured(values: Map, whole: tuple[int, int], content: Corners) -> Image.Image:
    """Colour a map (H or 1, W or 1), stretched to the size of the input, without the padding."""
    low, high = float(values.min()), float(values.max())
    span = max(high - low, _LEAST_RANGE)
    share = 0.5 + (values - (low + high) / 2) / span
    pixels = Image.fromarray((mpl.colormaps["viridis"](share)[..., :3] * 255).astype(np.uint8))
    return pixels.resize((whole[1], whole[0]), Image.Resampling.NEAREST).crop(content)


def _bars(values: Map) -> Image.Image:
    """Draw a bar for each value, from 0, on a transparent ground."""
    step = max(2, round(2 * _SIDE / len(values)))
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()), 1e-6)
    pixels = np.zeros((_BARS, step * len(values), 4), dtype=np.uint8)
    rows = _BARS - 1 - np.round((values - low) / (high - low) * (_BARS - 1)).astype(int)
    zero = _BARS - 1 - round((0 - low) / (high - low) * (_BARS - 1))
    for i, row in enumerate(rows):
        first, last = sorted((int(row), zero))
        pixels[first : last + 1, i * step : (i + 1) * step - (step > 2)] = (0, 114, 178, 255)
    return Image.fromarray(pixels, "RGBA")


def _span(values: Map) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"
