"""LayerCAM heat maps of a detector, and a test whether such a map is true.

The map is that of Ultralytics' `predict visualize=True` (P.-T. Jiang et al., "LayerCAM", IEEE TIP 30, 2021), which
newer releases have and which writes pictures only. Here it is an array, for every release. The test removes or shows
the pixels in the order of the map and watches the strongest detection's score (V. Petsiuk et al., "RISE", BMVC 2018,
arXiv 1806.07421; for detectors arXiv 2006.03204).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import box_convert, box_iou
from torchvision.transforms.functional import gaussian_blur

__all__ = ["faithfulness", "is_transformer", "layer_cam"]

_MOST = 16  # predictions explained per image, each by a backward pass; as in Ultralytics
_STEPS, _RANDOM, _CELLS = 10, 2, 8
_GREY = 114 / 255  # Ultralytics' padding


def layer_cam(network: nn.Module, image: Tensor, confidence: float = 0.25) -> Tensor:
    """Return where the evidence for the predictions is.

    The maps that enter the head are weighted by the positive gradients of a prediction's score. Maps of each prediction
    and level are scaled to a maximum of 1, and the largest of them counts.

    Args:
        network: An Ultralytics detection model in evaluation mode.
        image: (1, 3, H, W) from 0 to 1.
        confidence: Predictions from this score on are explained, the strongest 16 at most; always the strongest one.

    Returns:
        (H, W) from 0 to 1.
    """
    layers: Any = network.get_submodule("model")
    maps: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(  # YOLOE passes the classes' embeddings after the maps
        lambda _, inputs: maps.extend(each for each in inputs[0] if each.ndim == 4)
    )
    layers[-1].shape = layers[-1].shapes = None  # anchors from an inference would have no gradient
    try:
        with torch.inference_mode(False), torch.enable_grad():
            scores = _predictions(network, image.clone().requires_grad_())[1][0].amax(1)  # (predictions,)
            order = scores.argsort(descending=True)[:_MOST]
            chosen = order[: max(1, int((scores[order] >= confidence).sum()))]
            found = image.new_zeros(image.shape[2:])
            for index in chosen:
                gradients = torch.autograd.grad(scores[index], maps, retain_graph=True, allow_unused=True)
                for level, gradient in zip(maps, gradients, strict=True):
                    if gradient is not None:
                        cam = (gradient.clamp(min=0) * level).sum(1, keepdim=True).clamp(min=0)
                        cam = interpolate(cam, image.shape[2:], mode="bilinear", align_corners=False)[0, 0]
                        found = torch.maximum(found, cam / cam.max().clamp(min=1e-7))
    finally:
        handle.remove()
        layers[-1].shape = layers[-1].shapes = None
    return found.detach()


def faithfulness(network: nn.Module, image: Tensor) -> tuple[float, float, float, float] | None:
    """Test the heat map of the strongest detection.

    Args:
        network: An Ultralytics detection model in evaluation mode.
        image: (1, 3, H, W) from 0 to 1.

    Returns:
        Deletion and insertion of the map, then of random maps, as in `gam_yolo.attention.schema.Faithfulness`; None
        where the strongest score is 0.
    """
    cam = layer_cam(network, image, confidence=2.0)
    with torch.no_grad():
        boxes, scores = _predictions(network, image)
        best = int(scores[0].max(1).values.argmax())
        kind = int(scores[0, best].argmax())
        box, whole = boxes[0, best : best + 1], float(scores[0, best, kind])
        if not whole:
            return None
        blurred, grey = gaussian_blur(image, [31, 31], [10.0, 10.0]), torch.full_like(image, _GREY)
        generator = torch.Generator().manual_seed(0)
        random = [torch.rand(1, 1, _CELLS, _CELLS, generator=generator).to(image) for _ in range(_RANDOM)]
        smooth = [interpolate(r, image.shape[2:], mode="bicubic", align_corners=False)[0, 0] for r in random]
        areas = []
        for order in (cam, *smooth):
            rank = order.flatten().argsort(descending=True).argsort().view(image.shape[2:]) / order.numel()
            for start, end in ((image, grey), (blurred, image)):
                steps = torch.stack([torch.where(rank < i / _STEPS, end[0], start[0]) for i in range(_STEPS + 1)])
                at, by_class = _predictions(network, steps)
                same = torch.stack([box_iou(one, box)[:, 0] >= 0.5 for one in at])
                curve = (by_class[..., kind] * same).amax(1) / whole
                areas.append(float(torch.trapezoid(curve) / _STEPS))
        deletions, insertions = areas[2::2], areas[3::2]
    return areas[0], areas[1], sum(deletions) / _RANDOM, sum(insertions) / _RANDOM


def is_transformer(network: nn.Module) -> bool:
    """Say whether a detector is an RT-DETR: its images are stretched to a square, and its boxes are shares of it."""
    return type(network.get_submodule("model")[-1]).__name__ == "RTDETRDecoder"  # type: ignore[index]


def _predictions(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (B, predictions, 4) as left, top, right, bottom, and scores (B, predictions, classes)."""
    out = network(images)
    out = out[0] if isinstance(out, (tuple, list)) else out
    head: Any = network.get_submodule("model")[-1]  # type: ignore[index]
    queries = is_transformer(network)
    # A head without suppression gives box, score and class of the best predictions; so does RT-DETR in newer releases.
    best = hasattr(head, "postprocess") if queries else out.shape[-1] == 6
    if not queries and not best:
        out = out.transpose(1, 2)
    boxes, scores = out[..., :4], out[..., 4 : 4 + head.nc]
    if best:
        scores = torch.nn.functional.one_hot(out[..., 5].long(), head.nc) * out[..., 4:5]
    if queries:
        boxes = boxes * boxes.new_tensor(images.shape[:1:-1]).repeat(2)
    return (boxes if best and not queries else box_convert(boxes, "cxcywh", "xyxy")), scores
