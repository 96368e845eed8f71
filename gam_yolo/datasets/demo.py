"""A detection set rendered on the spot: no download, seconds to make, the same bits for the same seed.

Each scene is a stack of layers over a textured ground: objects of six classes, and distractors (slabs and domes with
the classes' textures). They are shaded and have shadows. The scene is lit unevenly, blurred and given noise. Colours
are drawn at random for every layer, so only shape and texture tell a class. Boxes enclose what is visible of an object,
as in COCO and VOC; an object of which less than `VISIBLE_SHARE` is visible gets none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.rules import class_index
from gam_yolo.datasets.prepared import Picture, Split, write_dataset, yaml_name
from gam_yolo.errors import UserError

__all__ = ["CLASSES", "SIZE", "VISIBLE_SHARE", "Layer", "Scene", "prepare_demo", "read_demo", "render"]

SIZE = 320  # pixels, width and height of a scene
VISIBLE_SHARE = 0.35  # of an object's area, cut off by the border or hidden by other layers, to get a box
CLASSES = ("ball", "ring", "crate", "star", "cross", "cone")
DISTRACTORS = ("slab", "dome")

Field = NDArray[np.floating[Any]]
Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layer:
    """One painted thing: a shape of unit size, stretched by (rx, ry), turned by `angle`, moved to (x, y).

    Attributes:
        kind: One of `CLASSES`, or a distractor: "slab" (rectangle), "dome" (half a disc).
        texture: The class whose texture it wears; an object wears its own.
        x: Centre in pixels from the left.
        y: Centre in pixels from the top.
        rx: Stretch along the shape's own first axis, in pixels.
        ry: Stretch along its second axis, in pixels.
        angle: Turn in radians, from the first image axis towards the second.
    """

    kind: str
    texture: str
    x: float
    y: float
    rx: float
    ry: float
    angle: float


class Scene(NamedTuple):
    """A rendered image with its truth.

    Attributes:
        image: (SIZE, SIZE, 3) uint8, channels in OpenCV's order (BGR).
        layers: What was painted, the lowest first.
        boxes: Class name, edges (left, top, right, bottom) and visible area in pixels of each labelled object.
    """

    image: NDArray[np.uint8]
    layers: list[Layer]
    boxes: list[tuple[str, Edges, int]]


def prepare_demo(data: Mapping[str, Any]) -> None:
    """Render the demo set; for the `download:` key of its YAML.

    Args:
        data: The YAML as Ultralytics hands it over, with `scenes` (number of images of each split) and `seed`.

    Raises:
        UserError: If `scenes` or `seed` is not what it should be, or if the folder cannot be written.
    """
    scenes, seed = data.get("scenes"), data.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"is {seed!r:.80}", at=f"{yaml_name(data)}, key 'seed'", expected="a whole number from 0")

    def read(split: Split) -> Iterator[Picture]:
        count = scenes.get(split.name) if isinstance(scenes, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UserError(
                f"is {scenes!r:.80}",
                at=f"{yaml_name(data)}, key 'scenes'",
                expected=f"a number of images for split '{split.name}'",
            )
        return read_demo(split, count, seed)

    write_dataset(data, read, f"scenes of gam_yolo.datasets.demo, seed {seed}")


def read_demo(split: Split, count: int, seed: int) -> Iterator[Picture]:
    """Yield `count` rendered pictures; beside them, write their truth in COCO's format for evaluators that read it."""
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index + 1, "name": name} for name, index in split.classes.items()],
    }
    for number in range(count):
        # One stream per image: a longer split begins with the shorter one's images. crc32 is `hash` without its salt.
        scene = render(np.random.default_rng([seed, zlib.crc32(split.name.encode()), number]))
        name = f"{number:06d}.jpg"
        truth["images"].append({"id": number, "file_name": name, "width": SIZE, "height": SIZE})
        labels = []
        for kind, (left, top, right, bottom), area in scene.boxes:
            box = (left, top, right - left, bottom - top)
            index = class_index(kind, split.classes, "the demo set")
            labels.append((index, box))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": index + 1,
                    "bbox": list(box),
                    "area": area,
                    "iscrowd": 0,
                }
            )
        split.tally.images += 1
        split.tally.boxes += len(labels)
        split.tally.empty += not labels
        jpeg = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        yield Picture(name, jpeg, SIZE, SIZE, labels)
    split.annotations.mkdir(exist_ok=True)
    (split.annotations / f"instances_{split.name}.json").write_text(json.dumps(truth), encoding="utf-8")


def render(rng: np.random.Generator) -> Scene:
    """Render one scene from a random stream."""
    image = _ground(rng)
    layers = _layers(rng)
    owner = np.full((SIZE, SIZE), -1)  # which layer each pixel shows
    areas = [_paint(image, owner, number, layer, rng) for number, layer in enumerate(layers)]
    return Scene(_photograph(image, rng), layers, _visible_boxes(layers, areas, owner))


def _layers(rng: np.random.Generator) -> list[Layer]:
    """Draw what is in a scene: clutter at the bottom, then objects, with a few distractors between and above them."""
    clutter = [_distractor(rng) for _ in range(rng.integers(2, 6))]
    above = [_object(rng) for _ in range(rng.integers(3, 8))] + [_distractor(rng) for _ in range(rng.integers(0, 3))]
    return clutter + [above[i] for i in rng.permutation(len(above))]


def _object(rng: np.random.Generator) -> Layer:
    kind = CLASSES[rng.integers(len(CLASSES))]
    radius = float(np.exp(rng.uniform(np.log(14), np.log(64))))  # as many small objects as large ones
    stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
    x, y = rng.uniform(0, SIZE, 2)
    return Layer(kind, kind, x, y, radius * stretch, radius / stretch, rng.uniform(-np.pi, np.pi))


def _distractor(rng: np.random.Generator) -> Layer:
    kind, texture = DISTRACTORS[rng.integers(len(DISTRACTORS))], CLASSES[rng.integers(len(CLASSES))]
    long, short = rng.uniform(30, 110), rng.uniform(4, 16)
    if kind == "dome":
        long = short = rng.uniform(12, 40)
    x, y = rng.uniform(0, SIZE, 2)
    return Layer(kind, texture, x, y, long, short, rng.uniform(-np.pi, np.pi))


def _visible_boxes(layers: list[Layer], areas: list[float], owner: NDArray[np.int_]) -> list[tuple[str, Edges, int]]:
    boxes = []
    for number, (layer, area) in enumerate(zip(layers, areas, strict=True)):
        rows, columns = np.nonzero(owner == number)
        if layer.kind in CLASSES and len(rows) and len(rows) >= VISIBLE_SHARE * area:
            box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            boxes.append((layer.kind, box, len(rows)))
    return boxes


def _paint(image: Field, owner: NDArray[np.int_], number: int, layer: Layer, rng: np.random.Generator) -> float:
    """Paint one layer into the image and note its pixels; return its whole area in pixels, beyond the border too."""
    reach = int(np.hypot(layer.rx, layer.ry)) + 2
    left, top = int(layer.x) - reach, int(layer.y) - reach
    across, down = np.meshgrid(
        np.arange(left, left + 2 * reach + 1, dtype=np.float32) + 0.5,
        np.arange(top, top + 2 * reach + 1, dtype=np.float32) + 0.5,
    )
    across, down = across - np.float32(layer.x), down - np.float32(layer.y)
    cos, sin = np.float32(np.cos(layer.angle)), np.float32(np.sin(layer.angle))
    u = (across * cos + down * sin) / np.float32(layer.rx)
    v = (down * cos - across * sin) / np.float32(layer.ry)
    outside = _outside(layer.kind, u, v)
    # A function divided by its slope is, to first order, the distance to where it is zero: pixels inside the outline.
    depth = -outside / np.maximum(np.hypot(*np.gradient(outside)), np.float32(1e-6))
    area = float(np.count_nonzero(depth >= 0))

    window = slice(max(top, 0), max(top + len(u), 0)), slice(max(left, 0), max(left + len(u), 0))
    canvas = image[window]
    crop = slice(max(-top, 0), max(-top, 0) + canvas.shape[0]), slice(max(-left, 0), max(-left, 0) + canvas.shape[1])
    u, v, depth = u[crop], v[crop], depth[crop]

    soft = np.clip(0.5 + depth / 8, 0, 1)  # a shadow that reaches a little further than the layer
    canvas *= 1 - 0.45 * soft[..., None]
    dark, light = _colours(rng)
    paint = dark + (light - dark) * _texture(layer.texture, u, v)[..., None]
    alpha = np.clip(0.5 + depth, 0, 1)[..., None]
    canvas += alpha * (paint - canvas)
    owner[window][depth >= 0] = number
    return area


def _outside(kind: str, u: Field, v: Field) -> Field:
    """Return how far each point lies outside a shape's outline, in units of the shape; negative inside."""
    outside: Field
    a, b, radius = np.abs(u), np.abs(v), np.hypot(u, v)
    match kind:
        case "ball":
            outside = radius - 1
        case "ring":
            outside = np.abs(radius - 0.75) - 0.25
        case "crate":
            outside = np.maximum(a, b) - 0.8
        case "cross":
            outside = np.minimum(np.maximum(a - 0.32, b - 0.95), np.maximum(a - 0.95, b - 0.32))
        case "star":  # fold the plane into half a point: its edge runs from the tip (1, 0) to 0.45 at 36 degrees
            fold = np.abs(_folded_angle(u, v))
            tip_x, tip_y = 0.45 * np.cos(np.pi / 5) - 1, 0.45 * np.sin(np.pi / 5)
            outside = ((radius * np.cos(fold) - 1) * tip_y - radius * np.sin(fold) * tip_x) / np.hypot(tip_x, tip_y)
        case "cone":  # tip (0, -1), base from (-0.8, 0.8) to (0.8, 0.8)
            outside = np.maximum(v - 0.8, (1.8 * a - 0.8 * (v + 1)) / np.hypot(1.8, 0.8))
        case "slab":
            outside = np.maximum(a, b) - 1
        case _:  # dome
            outside = np.maximum(radius - 1, v)
    return outside


def _folded_angle(u: Field, v: Field) -> Field:
    """Return the angle to the nearest of a star's five tips, between -36 and 36 degrees."""
    sector = 2 * np.pi / 5
    angle: Field = (np.arctan2(v, u) + sector / 2) % sector - sector / 2
    return angle


def _texture(kind: str, u: Field, v: Field) -> Field:
    """Return how light each point of a class's texture is, 0 to 1."""
    light: Field
    radius = np.hypot(u, v)
    match kind:
        case "ball":  # a lit sphere with a wavy band
            lit = np.clip(1 - np.hypot(u + 0.35, v + 0.35) * 0.7, 0, 1)
            light = np.where(np.abs(v - 0.2 * np.sin(4 * u)) < 0.16, 0.15, lit)
        case "ring":  # a lit tube with spokes of light
            light = np.clip(1 - 3.2 * np.abs(radius - 0.72), 0, 1) * (0.7 + 0.3 * np.cos(10 * np.arctan2(v, u)))
        case "crate":  # planks in a frame
            planks = np.where(np.abs((u * 2.5) % 1 - 0.5) > 0.4, 0.1, 0.75)
            frame = np.maximum(np.abs(u), np.abs(v)) > 0.62
            light = np.where(frame | (np.abs(u - v) < 0.14), 1.0, planks)
        case "cross":
            light = np.where((np.floor(u * 3) + np.floor(v * 3)) % 2 == 0, 0.05, 0.95)
        case "star":  # facets: one side of each point in the light
            light = np.where(_folded_angle(u, v) > 0, 0.9, 0.15)
        case _:  # cone: hoops
            light = np.where((v * 2.2) % 1 < 0.45, 0.95, 0.1)
    return light


def _colours(rng: np.random.Generator) -> tuple[Field, Field]:
    """Draw a dark and a light colour, any hue each, far enough apart in lightness to show a texture."""
    dark, light = rng.uniform(0, 110, 3), rng.uniform(130, 255, 3)
    return dark.astype(np.float32), light.astype(np.float32)


def _ground(rng: np.random.Generator) -> Field:
    """Draw a textured ground: two colours mixed by noise of several scales, under one of three weaves."""
    height = np.zeros((SIZE, SIZE), np.float32)
    for octave, cells in enumerate((3, 7, 19, 53, 131)):
        noise = rng.random((cells, cells), dtype=np.float32) - 0.5
        height += cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) * np.float32(0.75**octave)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.15, 0.6)
    across, down = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    along = np.float32(pitch) * (across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle)))
    aside = np.float32(pitch) * (down * np.float32(np.cos(angle)) - across * np.float32(np.sin(angle)))
    weave = (np.zeros_like(along), np.sin(along), np.sin(along) * np.sin(aside))[rng.integers(3)]
    mix = np.clip(0.5 + 0.5 * height + np.float32(rng.uniform(0.05, 0.15)) * weave, 0, 1)[..., None]
    dark, light = _colours(rng)
    return dark + (light - dark) * (0.25 + 0.5 * mix)


def _photograph(image: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light a painted scene from one side, darken its corners, blur it a little and add a sensor's noise."""
    across, down = np.meshgrid(np.linspace(-1, 1, SIZE, dtype=np.float32), np.linspace(-1, 1, SIZE, dtype=np.float32))
    angle = rng.uniform(-np.pi, np.pi)
    slope = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
    light = (
        rng.uniform(0.7, 1.15) * (1 + rng.uniform(0, 0.4) * slope) * (1 - rng.uniform(0, 0.2) * (across**2 + down**2))
    )
    image = np.asarray(cv2.GaussianBlur(image * light[..., None], (0, 0), rng.uniform(0.3, 0.9)))
    image += rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32) * np.float32(rng.uniform(1, 7))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
