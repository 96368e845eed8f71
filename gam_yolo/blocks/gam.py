"""GAM, the Global Attention Mechanism."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gam_yolo.blocks.checkpointing import economical
from gam_yolo.blocks.parts import (
    ChannelShuffle,
    ConvBN,
    Scale,
    Sigmoid,
    Start,
    check_choice,
    check_divides,
    hidden_channels,
    times,
)
from gam_yolo.errors import UserError

__all__ = ["GAM", "PRESETS"]

PRESETS: dict[str, dict[str, Any]] = {
    "blog": {"reduction": 4, "gate": "none", "groups": 1, "shuffle": "none", "conv": "dense"},
    "paper": {"reduction": 16, "gate": "sigmoid", "groups": 1, "shuffle": "none", "conv": "dense"},
    "paper-grouped": {"reduction": 16, "gate": "sigmoid", "groups": 4, "shuffle": "between", "conv": "dense"},
    "forks": {"reduction": 4, "gate": "none", "groups": 4, "shuffle": "after", "conv": "dense"},
    "separable": {"reduction": 4, "gate": "sigmoid", "groups": 1, "shuffle": "none", "conv": "separable"},
    "strips": {"reduction": 8, "gate": "sigmoid", "groups": 1, "shuffle": "none", "conv": "strips"},
    "grouped": {"reduction": 4, "gate": "sigmoid", "groups": 16, "shuffle": "between", "conv": "dense"},
}
"""The published variants: the articles' reference code, the paper for ResNet18 and MobileNetV2, the paper for ResNet50
"with gc" (group convolution), and the YOLO forks' `GAM_Attention`. The last three are our own. They keep the idea, two
gates without pooling and a view of 13 x 13 pixels, for less than a tenth of the multiply-adds of `blog`: 4 to 6 %, 9 %
and 8 % with 64 channels and more."""

CONVS = ("dense", "separable", "strips")


class GAM(nn.Module):
    """Global Attention Mechanism: (B, C, H, W) -> (B, C, H, W).

        F2 = Mc(F1) * F1          Mc: per pixel, a two-layer MLP over channels, C -> C/r -> C; no pooling
        F3 = Ms(F2) * F2          Ms: conv 7x7 C -> C/r, BN, ReLU, conv 7x7 C/r -> C, BN, sigmoid; no pooling

    Paper: Liu, Shao, Hoffmann, "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial
    Interactions", arXiv 2112.05561, equations 1 and 2. The paper permutes to (B, H, W, C) for the MLP; a linear layer
    over the last axis is a 1x1 convolution, so nothing is permuted here. The paper puts it on each residual block's
    output before the addition.

    Parameters: 2Cm + 98Cm/g + 4(C + m), multiply-adds: HW (2Cm + 98Cm/g), with m = C // r. With `conv="separable"`
    98Cm/g becomes 2Cm + 98m, with `strips` 14Cm + 14m². For detection it is known to cost much (C 256, r 4: 1.6 M
    parameters per block) and to gain little or nothing. With the `default` start, the raw gate of `blog` and `forks`
    flips the sign of about half the features, and a pretrained detector needs many epochs to recover. `start="zero"`
    and `start="identity"` avoid that.

    An argument that is None takes its value from the preset.

    Args:
        c: Channels C of the input and of the output.
        reduction: The ratio r of both bottlenecks.
        gate: Activation of the channel gate: `none` (a raw gate) or `sigmoid`.
        groups: Groups g of both 7x7 convolutions.
        shuffle: Channel shuffle, so that groups mix: `none`, `between` the convolutions, or `after` the spatial gate.
        channel: Whether the block has the channel branch (the paper's ablation).
        spatial: Whether the block has the spatial branch (the paper's ablation).
        pool: `max` puts a 3x3 max-pool of stride 1 between the 7x7 convolutions. That is our reading of the paper's
            ablation "with max-pooling", which states neither size nor place. `none` is GAM.
        start: `default`, `identity` or `zero` (the last layer of Mc starts at weight 0 and bias 1, or bias 0 with a
            sigmoid; the scale of the last batch norm starts at 0), see `Start`.
        preset: A named choice of the other arguments, which override it.
        shuffle_groups: Groups of the shuffle, if not `groups`. The forks always shuffle by 4.
        conv: Form of the 7x7 convolutions: `dense`; `separable`, a depthwise 7x7 on the C/r channels and a 1x1
            convolution (MobileNet, arXiv 1704.04861); or `strips`, a 1x7 and a 7x1 convolution (Inception-v3, arXiv
            1512.00567).
        residual: Whether the output is added to the input, as in ResGAM, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If a name is unknown, the reduction exceeds C, groups do not divide the channels, or `gain` is
            invalid.

    Examples:
        >>> import torch
        >>> GAM(64)(torch.rand(2, 64, 20, 20)).shape
        torch.Size([2, 64, 20, 20])
        >>> sum(p.numel() for p in GAM(256).parameters())
        1639680
    """

    def __init__(
        self,
        c: int,
        reduction: int | None = None,
        gate: str | None = None,
        groups: int | None = None,
        shuffle: str | None = None,
        channel: bool = True,
        spatial: bool = True,
        pool: str = "none",
        start: str = "default",
        preset: str = "blog",
        shuffle_groups: int | None = None,
        conv: str | None = None,
        residual: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("preset", preset, PRESETS)
        given = {"reduction": reduction, "gate": gate, "groups": groups, "shuffle": shuffle, "conv": conv}
        chosen = PRESETS[preset] | {key: value for key, value in given.items() if value is not None}
        r, g = chosen["reduction"], chosen["groups"]
        mixes = g if shuffle_groups is None else shuffle_groups
        check_choice("gate", chosen["gate"], ("none", "sigmoid"))
        check_choice("shuffle", chosen["shuffle"], ("none", "between", "after"))
        check_choice("conv", chosen["conv"], CONVS)
        check_choice("pool", pool, ("none", "max"))
        if not (channel or spatial):
            raise UserError("channel and spatial are both off", expected="at least one branch", fix="Or remove the row")
        if chosen["conv"] != "dense" and g != 1:
            raise UserError(f"conv is {chosen['conv']!r} and groups {g}", expected="groups 1 with it, or conv dense")
        m = hidden_channels(c, r)

        peak, slope = (2.0, gain) if start == "zero" else (1.0, 1.0)  # of the gates; `Start` has the rest
        last: list[nn.Module] = []
        raw: nn.Module | None = None

        self.channel: nn.Sequential | None = None
        if channel:
            self.channel = nn.Sequential(nn.Conv2d(c, m, 1), nn.ReLU(inplace=True), nn.Conv2d(m, c, 1))
            if chosen["gate"] == "sigmoid":
                last.append(self.channel[2])
                self.channel.append(Sigmoid(peak, slope))
            else:
                raw = self.channel[2]
                if slope != 1:
                    self.channel.append(Scale(slope))
        self.spatial: nn.Sequential | None = None
        if spatial:
            check_divides("groups", g, c, "channels of the block's input")
            check_divides("groups", g, m, f"channels of the bottleneck ({c} by reduction {r})")
            between: list[nn.Module] = [nn.MaxPool2d(3, 1, 1)] if pool == "max" else []
            after: list[nn.Module] = []
            if chosen["shuffle"] == "between":
                check_divides("shuffle_groups", mixes, m, "channels to shuffle")
                between.append(ChannelShuffle(m, mixes))
            elif chosen["shuffle"] == "after":
                check_divides("shuffle_groups", mixes, c, "channels to shuffle")
                after.append(ChannelShuffle(c, mixes))
            squeeze, expand = _convolution(chosen["conv"], c, m, g), _convolution(chosen["conv"], m, c, g)
            last.append(expand[-1])
            self.spatial = nn.Sequential(
                *squeeze,
                nn.ReLU(inplace=True),
                *between,
                *expand,
                Sigmoid(peak, slope),
                *after,
            )
        self.start = Start(c, start, *last, raw=raw, residual=residual, gain=gain)

    @economical
    def forward(self, f1: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `f1`."""
        f2 = f1 if self.channel is None else times(self.channel(f1), f1)
        f3 = f2 if self.spatial is None else times(self.spatial(f2), f2)
        out: Tensor = self.start(f1, f3)
        return out


def _convolution(form: str, c1: int, c2: int, groups: int) -> list[nn.Module]:
    """Return a 7x7 convolution with batch norm, in one of `CONVS`; two layers share the smaller number of channels."""
    if form == "dense":
        return [ConvBN(c1, c2, 7, groups)]
    m = min(c1, c2)
    if form == "strips":
        return [nn.Conv2d(c1, m, (1, 7), padding=(0, 3), bias=False), ConvBN(m, c2, (7, 1))]
    if c1 > c2:
        return [nn.Conv2d(c1, m, 1, bias=False), ConvBN(m, c2, 7, groups=m)]
    return [nn.Conv2d(c1, m, 7, padding=3, groups=m, bias=False), ConvBN(m, c2, 1)]
