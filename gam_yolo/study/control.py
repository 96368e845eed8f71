"""The cost-matched control: a plain model widened until it costs as many GFLOPs as another model.

A width multiplier cannot do that. Ultralytics rounds channels up to multiples of 8, so at scale n all layers jump by a
half at once. Here, rows of one section with the same nominal channel number form a group. Each group's channels are
written into the YAML as they are, in multiples of 8. The groups first grow together by a common factor. Then single
groups grow by 8 more, the one that has grown least first, while the cost stays below the target. Widths that cannot be
built are skipped: attention layers split their channels into heads. The depth does not change.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.graph.shapes import harmless, measure
from gam_yolo.report.tasks import TaskName

__all__ = ["TOLERANCE", "gflops", "only_scale", "widened"]

TOLERANCE = 0.01
DIVISOR = 8
MOST = 4.0  # times the width of the plain model

Group = tuple[str, int]
Channels = dict[Group, int]
Cost = Callable[[Channels], float | None]


def gflops(config: Mapping[str, Any], imgsz: int, pretrained: Any = None, task: TaskName = "detect") -> float:
    """Return a model's GFLOPs for one square image, as Ultralytics' `model.info()` counts them.

    No code from the YAML runs: its `activation:` is left out, and activation functions count nothing.

    Args:
        config: A model YAML of one scale, see `only_scale`.
        imgsz: The image's side in pixels.
        pretrained: The model whose weights it takes before it is trained, or None. Ultralytics builds the class
            branches as wide as this model's where they fit.
        task: What the model does.

    Raises:
        UserError: If they cannot be counted.
    """
    with ultralytics_api.quiet():  # its table of layers is not wanted here
        kind = ultralytics_api.get("DetectionModel" if task == "detect" else "ClassificationModel")
        model = kind(harmless(config, config.get("scale", "")), verbose=False)
        if pretrained is not None:
            model.load(pretrained, verbose=False)
        count = float(ultralytics_api.get("get_flops")(model, imgsz))
    if not count:
        raise UserError("GFLOPs cannot be counted", fix="Install the package ultralytics-thop")
    return count


def only_scale(config: Mapping[str, Any], letter: str) -> dict[str, Any]:
    """Return a copy of a model YAML that offers one scale only, so that no file name can choose another.

    Args:
        config: The parsed YAML.
        letter: The scale, or an empty string for the first one.
    """
    scales = config.get("scales")
    if not scales:
        return dict(config)
    letter = letter or next(iter(scales))
    if letter not in scales:
        raise UserError(f"there is no scale '{letter}'", expected=f"one of {', '.join(scales)}")
    return {**config, "scales": {letter: scales[letter]}, "scale": letter}


def widened(
    config: Mapping[str, Any],
    target: float,
    imgsz: int,
    name: str,
    pretrained: Any = None,
    task: TaskName = "detect",
) -> tuple[dict[str, Any], str]:
    """Widen a model to a given cost.

    Args:
        config: A model YAML of one scale, see `only_scale`.
        target: GFLOPs to reach.
        imgsz: The image size at which they count, in pixels.
        name: What error messages call the model.
        pretrained: As in `gflops`.
        task: What the model does.

    Returns:
        The widened model YAML, and a sentence that describes the change.

    Raises:
        UserError: If the target is below the model's own cost, or cannot be reached within `TOLERANCE`.
    """
    explicit, rows, plain = _explicit(config, name)
    costs: dict[tuple[int, ...], float | None] = {}

    def cost(channels: Channels) -> float | None:
        key = tuple(channels.values())
        if key not in costs:
            try:
                costs[key] = gflops(_with(explicit, rows, channels), imgsz, pretrained, task)
            except (RuntimeError, AssertionError, ValueError):  # its attention layers cannot split these into heads
                costs[key] = None
        return costs[key]

    def scaled(factor: float) -> Channels:
        return {group: DIVISOR * round(c * factor / DIVISOR) for group, c in plain.items()}

    own = cost(plain)
    if own is None or own > target * (1 + TOLERANCE):
        raise UserError(
            f"costs {own or 0:.2f} GFLOPs",
            at=name,
            expected=f"less than the {target:.2f} to match",
            fix="Match a costlier variant, or leave the control out",
        )
    channels = _largest_below(plain, scaled, cost, own, target)
    open_groups = set(channels)
    while open_groups:  # the group that has grown least grows next, while one can
        group = min(open_groups, key=lambda g: ((channels[g] + DIVISOR) / plain[g], g))
        wider = {**channels, group: channels[group] + DIVISOR}
        if (more := cost(wider)) is not None and more <= target:
            channels = wider
        else:
            open_groups.remove(group)
    reached = cost(channels) or own
    if abs(reached / target - 1) > TOLERANCE:
        raise UserError(f"widened to {reached:.3f} GFLOPs", at=name, expected=f"{target:.3f} within {TOLERANCE:.0%}")
    changes = [f"{plain[g]} to {c}" for g, c in channels.items() if c != plain[g]]
    return _with(explicit, rows, channels), (
        f"{name}: {own:.3f} GFLOPs at {imgsz} px widened to {reached:.3f}, {(reached / target - 1):+.2%} off "
        f"{target:.3f}; channels {', '.join(changes) or 'unchanged'}; depth unchanged"
    )


def _explicit(config: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[int, Group], Channels]:
    """Write each row's actual channels into it, with width 1; also return which rows form which group."""
    letter, (depth, width, limit) = next(iter((config.get("scales") or {"": [1.0, 1.0, math.inf]}).items()))
    shapes = measure(config, name, letter)
    explicit = copy.deepcopy(dict(config))
    explicit["scales"] = {letter or "n": [depth, 1.0, 1 << 16]}
    explicit["scale"] = letter or "n"
    rows: dict[int, Group] = {}
    plain: Channels = {}
    for index, (section, row) in enumerate(_rows(explicit)):
        shape, args = shapes[index], row[3]
        if shape is None or not args or type(args[0]) is not int:
            continue
        if shape.channels == DIVISOR * math.ceil(min(args[0], limit) * width / DIVISOR):
            group = (section, args[0])
            rows[index], plain[group] = group, shape.channels
            args[0] = shape.channels
    if measure(explicit, name, letter or "n") != shapes:
        raise UserError("cannot be widened", at=name, expected="rows whose first argument is their channels")
    return explicit, rows, plain


def _with(explicit: Mapping[str, Any], rows: Mapping[int, Group], channels: Channels) -> dict[str, Any]:
    config = copy.deepcopy(dict(explicit))
    for index, (_, row) in enumerate(_rows(config)):
        if index in rows:
            row[3][0] = channels[rows[index]]
    return config


def _rows(config: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    return [(section, row) for section in ("backbone", "head") for row in config[section]]


def _largest_below(
    plain: Channels, scaled: Callable[[float], Channels], cost: Cost, own: float, target: float
) -> Channels:
    """Return the channels of the largest common factor whose cost does not exceed the target.

    Cost grows with the square of the factor, which gives the first guess; each step then halves the range.
    """
    best, low, high = plain, 1.0, MOST
    factor = math.sqrt(target / own)
    for _ in range(5):
        channels = scaled(factor)
        reached = cost(channels)
        if reached is not None and reached <= target:
            best, low = channels, factor
        else:
            high = min(high, factor)
        high = min(high, low * math.sqrt(target / (cost(best) or own)) * 1.25)
        factor = (low + high) / 2
    return best
