"""GAM under the names and with the signature that YOLO forks gave it, so that their YAML rows build what they build."""

from __future__ import annotations

from gam_yolo.blocks.gam import GAM

__all__ = ["GAM_Attention"]


class GAM_Attention(GAM):  # noqa: N801  # the forks' own spelling: it is what their YAMLs say
    """The forks' GAM, raw gate, grouped convolutions, shuffled spatial gate: (B, C, H, W) -> (B, C, H, W).

    The forks' parsers put the input's channels in front of a row's arguments and scale the first of these by the
    model's width. A row `[-1, 1, GAM_Attention, [512, 512]]` therefore reads (c1, c2=512 scaled, group=512): the
    second number is taken for a truth value and switches group convolution on. Write `[-1, 1, GAM, [{preset:
    forks}]]` to say it plainly.

    Args:
        c1: Channels of the input.
        c2: The forks' output channels. A gate cannot change the channels, so the forks fail unless it equals `c1`;
            here it is read and not used.
        group: Whether the convolutions are grouped, by `rate` groups as the forks do.
        rate: The reduction ratio.

    Raises:
        UserError: If `rate` exceeds the channels or does not divide them.
    """

    def __init__(self, c1: int, c2: int | None = None, group: bool = True, rate: int = 4) -> None:
        del c2
        super().__init__(
            c1, reduction=rate, groups=rate if group else 1, shuffle="after", shuffle_groups=4, preset="forks"
        )

    @staticmethod
    def advice(c1: int, c2: int | None = None, group: object = True, rate: int = 4) -> str:
        """Say what a row's arguments were bound to and which row says the same plainly."""
        grouped = f"{rate} groups" if group else "no groups"
        plain = "{preset: forks}" if group else "{preset: forks, groups: 1, shuffle_groups: 4}"
        if rate != 4:
            plain = f"{{preset: forks, reduction: {rate}, groups: {rate if group else 1}, shuffle_groups: 4}}"
        return (
            f"was read as the forks read it: c2={c2!r} (not used: the block keeps its input's {c1} channels), "
            f"group={group!r} ({grouped}), rate={rate!r}; the same in plain words is [-1, 1, GAM, [{plain}]]"
        )
