"""Sum up a gate's values over images, and say in plain words what they show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from gam_yolo.attention.gates import BY_CHANNEL, BY_POSITION
from gam_yolo.attention.schema import Gate
from gam_yolo.errors import UserError
from gam_yolo.report.formatting import listed

__all__ = ["GateValues", "chance_inside"]

Values = NDArray[np.float32]

_NEAR = 0.01  # closer to 0 or 1 than this counts as 0 or 1; a smaller relative spread counts as none
_NEARLY_ALL, _MOST, _MANY = 0.99, 0.9, 0.5
_FLAT = 0.0257  # this close to an end of its range, a sigmoid's slope is below a tenth of its largest
_SAMPLE = 8192  # values kept of each image, at equal distances
_QUANTILES, _BINS = (0.01, 0.25, 0.5, 0.75, 0.99), 40


class GateValues:
    """Collects one gate's values, image by image.

    Args:
        name: The gate's name.
        peak: The largest value that its sigmoid can have: 1, or 2 for a centred gate.
    """

    def __init__(self, name: str, peak: float) -> None:
        self.name, self.peak = name, peak
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.samples: list[Values] = []
        self.means: list[Values] = []  # (C,) of each image
        self.largest: list[Values] = []  # (C,) of each image: the largest absolute value
        self.spreads: list[float] = []
        self.inside: list[float] = []

    def add(self, gate: Tensor, boxes: NDArray[Any], size: tuple[int, int]) -> None:
        """Add the gate on one image.

        Args:
            gate: (1, C or 1, H or 1, W or 1).
            boxes: Detected boxes, left, top, right and bottom in pixels of the network's input, shape (n, 4).
            size: Height and width of the network's input.
        """
        values: Values = gate[0].float().cpu().numpy()
        self.shape = self.shape if self.samples else (values.shape[0], values.shape[1], values.shape[2])
        flat = values.reshape(len(values), -1)
        self.samples.append(flat.ravel()[:: -(-flat.size // _SAMPLE)])
        self.means.append(flat.mean(axis=1))
        self.largest.append(np.abs(flat).max(axis=1))
        self.spreads.append(float(flat.std(axis=1).mean()))
        self.inside.append(chance_inside(values.mean(axis=0), boxes, size))

    def summary(self) -> Gate:
        """Return what the values show."""
        sample, means = np.concatenate(self.samples), np.stack(self.means)
        low, high = float(sample.min()), float(sample.max())
        if not math.isfinite(high - low):
            raise UserError(
                f"gate '{self.name}' has values that are not finite",
                fix="The training has diverged: take another checkpoint",
            )
        unit = max(1.0, abs(low), abs(high))
        limits = (low, high) if high - low > 1e-6 * unit else (low - 0.05 * unit, low + 0.05 * unit)
        counts, edges = np.histogram(sample.astype(float), _BINS, limits)  # single precision may lack the edges
        dead = int((np.stack(self.largest).max(axis=0) < _NEAR).sum())
        spread = float(means.mean(axis=0).std()), float(np.mean(self.spreads)), float(means.std(axis=0).mean())
        inside = [value for value in self.inside if not math.isnan(value)]
        return Gate(
            name=self.name,
            shape=self.shape,
            finding=self._finding(sample, spread, dead),
            mean=float(sample.mean()),
            quantiles=tuple(map(float, np.quantile(sample, _QUANTILES))),
            over_channels=spread[0],
            over_positions=spread[1],
            over_images=spread[2] if len(means) > 1 else None,
            dead_channels=dead,
            inside=float(np.mean(inside)) if inside else None,
            edges=tuple(map(float, edges)),
            shares=tuple(map(float, counts / counts.sum())),
        )

    def _finding(self, sample: Values, spread: tuple[float, float, float], dead: int) -> str:
        def share(where: NDArray[np.bool_]) -> float:
            return float(where.mean())

        relative = self.name in (BY_POSITION, BY_CHANNEL)
        if share(np.abs(sample - 1) < _NEAR) >= _NEARLY_ALL:
            return "still the identity: 1 everywhere"
        if share(np.abs(sample) < _NEAR) >= _NEARLY_ALL:
            return "dead: 0 everywhere, nothing passes"
        bounded = not relative and sample.min() >= 0 and sample.max() <= self.peak
        ends = share(np.abs(sample / self.peak - 0.5) > 0.5 - _FLAT) if bounded else 0.0
        at_ends = f"{ends:.0%} of the values are close to 0 or {self.peak:g}, where a sigmoid hardly learns"
        if ends >= _MOST:
            return f"saturated: {at_ends}"
        scale = float(np.sqrt(np.mean(sample.astype(float) ** 2)))
        if float(sample.std()) < _NEAR * scale:
            return f"constant: {sample.mean():.2f} everywhere, it scales the map and selects nothing"
        axes = zip(("channels", "positions", "images"), spread, strict=True)
        varies = [name for name, value in axes if value >= _NEAR * scale]
        found = f"varies over {listed(varies)}" if varies else "varies a little"
        if len(self.means) > 1 and varies == ["channels"]:
            found = "a fixed scale for each channel: the same at every position and for every image"
        found += f"; {at_ends}" if ends >= _MANY else ""
        are = "is" if dead == 1 else "are"
        return f"{found}; {dead} of {len(self.means[0])} channels {are} dead" if dead else found


def chance_inside(values: Values, boxes: NDArray[Any], size: tuple[int, int]) -> float:
    """Return the chance that a map is larger inside boxes than outside, ties counted half (the area under ROC).

    Args:
        values: (H, W).
        boxes: Left, top, right and bottom in pixels of the network's input, shape (n, 4).
        size: Height and width of the network's input.

    Returns:
        0 to 1; NaN where no position, or every position, is inside.

    Examples:
        >>> round(chance_inside(np.eye(4, dtype=np.float32), np.array([[0, 0, 16, 16]]), (64, 64)), 2)
        0.9
    """
    y, x = ((np.arange(n) + 0.5) * side / n for n, side in zip(values.shape, size, strict=True))
    inside = np.zeros(values.shape, dtype=bool)
    for left, top, right, bottom in boxes:
        inside |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
    n, m = int(inside.sum()), int((~inside).sum())
    if not (n and m):
        return math.nan
    ranks = rankdata(values).reshape(values.shape)  # SciPy flattens, or keeps the shape, by release
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * m))
