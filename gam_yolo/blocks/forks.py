"""GAM under the names and with the arguments that YOLO forks gave it, so that their YAML rows build their block."""

from __future__ import annotations

from typing import Any

import torch

from gam_yolo.blocks.gam import GAM

__all__ = ["FEWEST_CHANNELS", "GAM_Attention"]

FEWEST_CHANNELS = 32  # a smaller number in a row is a ratio, a kernel or a number of groups


class GAM_Attention(GAM):  # noqa: N801  # the forks' own spelling, which their YAMLs use
    """The forks' GAM, raw gate, of either family: (B, C, H, W) -> (B, C, H, W).

    Classes of this name differ, and a row's arguments tell which one it was written for:

    - (c1, c2, group=True, rate=4): grouped convolutions and a shuffle after the spatial gate. The parser scales the
      row's first number by the model's width and passes it as c2. A row `[512, 512]` therefore reads
      (c2=512, group=512): the second number counts as true and switches group convolution on.
    - (in_channels, rate=4): no groups, no shuffle. Its rows are `[]` and `[4]`.

    A third class, (in_channels, out_channels, rate=4), has no groups either. Its rows look like those of the first, as
    which they are read; the warning says so.

    Classes with the same arguments differ too. Some have a sigmoid on the channel gate, some no batch norms. The number
    of parameters shows the second, but not the first.

    A row is of the second family if it has at most one number, below 32, and does not name `group`.

    Args:
        c1: Channels of the input.
        c2: The first family's output channels, or the second family's rate. A gate cannot change the channels, so the
            forks fail unless c2 equals `c1`; here it is not used.
        group: Whether the first family's convolutions are grouped, by `rate` groups; by default they are.
        rate: The reduction ratio; by default 4.

    Raises:
        UserError: `rate` exceeds the channels or does not divide them.

    Examples:
        >>> [sum(p.numel() for p in GAM_Attention(256, *row).parameters()) for row in ([], [4], [256], [256, False])]
        [1639680, 1639680, 435456, 1639680]
    """

    def __init__(self, c1: int, c2: int | None = None, group: Any = None, rate: int | None = None) -> None:
        grouped, r = _family(c2, group, rate)
        if grouped is None:
            super().__init__(c1, reduction=r)
            return
        super().__init__(c1, reduction=r, groups=r if grouped else 1, shuffle="after", shuffle_groups=4, preset="forks")

    @staticmethod
    def advice(c1: int, c2: int | None = None, group: Any = None, rate: int | None = None) -> str:
        """Return what a row's arguments mean, and the row that says the same plainly, for the warning about it."""
        grouped, r = _family(c2, group, rate)
        other = ""
        if grouped is None:
            read, row = f"(in_channels={c1}, rate={r!r}), no groups", "" if r == 4 else f"{r}"
        else:
            groups = f"{r} groups" if grouped else "no groups"
            read = (
                f"c2={c2!r} (not used: the block keeps its input's {c1} channels), "
                f"group={True if group is None else group!r} ({groups}), rate={r!r}"
            )
            other = _other_reading(group, rate)
            row = "{preset: forks}"
            if not grouped or r != 4:
                reduction = "" if r == 4 else f"reduction: {r}, "
                row = f"{{preset: forks, {reduction}groups: {r if grouped else 1}, shuffle_groups: 4}}"
        with torch.device("meta"):
            parameters = sum(p.numel() for p in GAM_Attention(c1, c2, group, rate).parameters())
        return (
            f"is read as {read}; this is [-1, 1, GAM, [{row}]]{other}. It has {parameters:,} "
            "parameters and no sigmoid on the channel gate; forks' classes differ in both, so compare with yours"
        )


def _other_reading(group: Any, rate: Any) -> str:
    """Return how a third class, (in_channels, out_channels, rate=4), reads a row that fits it as well."""
    if isinstance(group, bool) or rate is not None:
        return ""
    is_rate = isinstance(group, int) and group < FEWEST_CHANNELS and group != 4  # else a number of channels, or none
    row = f"[{group}]" if is_rate else "[]"
    return f", or [-1, 1, GAM, {row}] where the fork's class is (in_channels, out_channels, rate=4), without groups"


def _family(c2: Any, group: Any, rate: Any) -> tuple[bool | None, Any]:
    """Return whether the convolutions are grouped (None for the family that has no groups), and the rate."""
    small = isinstance(c2, int) and not isinstance(c2, bool) and c2 < FEWEST_CHANNELS
    if group is None and (c2 is None or (small and rate is None)):
        return None, next((given for given in (c2, rate) if given is not None), 4)
    return True if group is None else bool(group), 4 if rate is None else rate
