"""Attention in residual blocks, as the papers place it, and a ResNet classifier that a model YAML can name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from gam_yolo import registry
from gam_yolo.arguments import bind
from gam_yolo.blocks.parts import check_choice
from gam_yolo.errors import UserError, similar

__all__ = ["AttendedBasicBlock", "AttendedBottleneck", "AttentionResNet", "attend", "cifar_stem"]

STEMS = ("imagenet", "cifar")


class AttendedBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """torchvision's `BasicBlock` with `attention` on its output before the addition."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for `x`."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.attention(self.bn2(self.conv2(out)))
        y: Tensor = self.relu(out + identity)
        return y


class AttendedBottleneck(Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """torchvision's `Bottleneck` with `attention` on its output before the addition."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for `x`."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.attention(self.bn3(self.conv3(out)))
        y: Tensor = self.relu(out + identity)
        return y


_ATTENDED: dict[type, type[nn.Module]] = {BasicBlock: AttendedBasicBlock, Bottleneck: AttendedBottleneck}


def attend(resnet: nn.Module, block: str, **arguments: Any) -> nn.Module:
    """Put a registered block on the output of every residual block of a torchvision ResNet, before the addition.

    The network is changed in place and stays a torchvision `ResNet`. Each residual block gets a child `attention` and a
    forward pass that uses it. All names and values of its state are kept. Weights of the plain network can be loaded
    before, or afterwards with `strict=False`; then only the keys of `attention` are missing.

    Args:
        resnet: A torchvision ResNet, ResNeXt or Wide ResNet, or any module that holds one.
        block: The block's registered name.
        arguments: The block's arguments, without its channels.

    Returns:
        The same network.

    Raises:
        UserError: If there is no such block, it rejects its arguments, or the network has no residual block of
            torchvision's without attention.

    Examples:
        >>> from torchvision.models import resnet18
        >>> gam = attend(resnet18(), "GAM", preset="paper")
        >>> sum(p.numel() for p in gam.parameters())
        16049672
    """
    kind = registry.get(block)
    residual = [m for m in resnet.modules() if type(m) in _ATTENDED]
    if not residual:
        raise UserError(
            f"{type(resnet).__name__} has no residual block to put {block} on",
            expected="torchvision's BasicBlock or Bottleneck, as in resnet18 or resnet50, without attention yet",
        )
    lasts: list[Any] = [m.conv2 if isinstance(m, BasicBlock) else m.conv3 for m in residual]
    built = [
        kind(*bind(block, kind, last.out_channels, [arguments])) for last in lasts
    ]  # all of them before the first is inserted
    for m, last, attention in zip(residual, lasts, built, strict=True):
        m.attention = attention.to(last.weight).train(m.training)
        m.__class__ = _ATTENDED[type(m)]
    return resnet


def cifar_stem(resnet: nn.Module) -> nn.Module:
    """Replace the stem of a torchvision ResNet by the one that papers use for 32x32 images, in place.

    It is one 3x3 convolution of stride 1 instead of a 7x7 one of stride 2, without max-pooling. The first stage works
    at full resolution.

    Returns:
        The same network.
    """
    resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
    resnet.maxpool = nn.Identity()
    return resnet


class AttentionResNet(nn.Module):
    """A torchvision ResNet as the one row of a classification model's YAML: (B, 3, H, W) -> (B, nc).

    `[-1, 1, AttentionResNet, [nc, resnet50, {block: GAM, arguments: {preset: paper}, stem: cifar}]]` is the paper's
    ResNet50 for CIFAR. Without `block` it is the plain network. Like Ultralytics' `Classify`, it returns logits in
    training and `(probabilities, logits)` otherwise.

    Args:
        nc: Number of classes; a row writes `nc`.
        model: Name of a torchvision model of the ResNet family, such as `resnet18` or `resnext50_32x4d`.
        block: Registered name of the block on every residual block's output, or None.
        arguments: The block's arguments by name.
        stem: `imagenet`, torchvision's own, or `cifar`, see `cifar_stem`.
        weights: Name of torchvision's pretrained weights, such as `DEFAULT`, which torchvision downloads. Tensors of
            another shape (the classes, a CIFAR stem) keep their random start. None starts from scratch.

    Raises:
        UserError: If a name is unknown, or the block rejects its arguments.
    """

    def __init__(
        self,
        nc: int,
        model: str = "resnet50",
        block: str | None = None,
        arguments: dict[str, Any] | None = None,
        stem: str = "imagenet",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        family = [name for name in models.list_models() if "resne" in name and "quantized" not in name]
        family = [name for name in family if models.get_model_builder(name).__module__ == ResNet.__module__]
        check_choice("model", model, family)
        check_choice("stem", stem, STEMS)
        if arguments and not block:
            raise UserError(f"arguments are {arguments!r}, but no block", fix="Write {block: GAM, arguments: ...}")
        self.resnet: nn.Module = models.get_model(model, num_classes=nc)
        if stem == "cifar":
            cifar_stem(self.resnet)
        if weights:
            _load(self.resnet, model, weights)
        if block:
            attend(self.resnet, block, **(arguments or {}))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, nc) in training, and `(probabilities, logits)` otherwise."""
        logits: Tensor = self.resnet(x)
        return logits if self.training else (logits.softmax(1), logits)


def _load(resnet: nn.Module, model: str, weights: str) -> None:
    """Load the tensors of torchvision's pretrained weights whose shapes fit."""
    known = models.get_model_weights(model)
    if weights not in known.__members__:
        names = list(known.__members__)
        expected = f"one of {', '.join(names)} of {model}"
        raise UserError(f"weights are {weights!r}", expected=expected, similar=similar(weights, names))
    own = resnet.state_dict()
    if own["conv1.weight"].is_meta:
        return  # built only to check arguments and shapes
    loaded = known[weights].get_state_dict(progress=True, check_hash=True)
    resnet.load_state_dict({k: v for k, v in loaded.items() if v.shape == own[k].shape}, strict=False)


torch.serialization.add_safe_globals([AttentionResNet, AttendedBasicBlock, AttendedBottleneck, *_ATTENDED, ResNet])
