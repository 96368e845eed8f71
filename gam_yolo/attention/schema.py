"""The layout of `look.json` as frozen records, from the checkpoint down to the single gate; and the drawings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from PIL import Image

from gam_yolo.report.schema import Difference

__all__ = ["Block", "Faithfulness", "Gate", "LookRecord", "LookedModel", "LookedPicture", "Tile", "Worth"]

SCHEMA, SCHEMA_VERSION = "gam-yolo/look", 1


@dataclass(frozen=True)
class Gate:
    """The values of one gate over all images.

    Attributes:
        name: What it selects, or what is shown in its place.
        shape: Channels, height and width of the gate on the first image.
        finding: What the values say, in words.
        mean: Mean of the values.
        quantiles: The 1, 25, 50, 75 and 99 % quantiles.
        over_channels: Standard deviation over the channels, of the mean over images and positions.
        over_positions: Standard deviation over the positions of one image, mean over images and channels.
        over_images: Standard deviation over the images, of the mean over positions, mean over channels; None with one
            image.
        dead_channels: Number of channels whose gate is 0 on every image.
        inside: The chance that the gate, averaged over channels, is larger at a position inside a detected box than at
            one outside; 0.5 if it does not follow the objects. None without detections or without positions.
        edges: The 40 bins of the histogram, 41 numbers.
        shares: The share of the values in each bin.
    """

    name: str
    shape: tuple[int, int, int]
    finding: str
    mean: float
    quantiles: tuple[float, ...]
    over_channels: float
    over_positions: float
    over_images: float | None
    dead_channels: int
    inside: float | None
    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Block:
    """One attention block.

    Attributes:
        path: Where it is in the model, such as `model.16`.
        kind: Its class.
        start: How it started its training, `default`, `identity` or `zero`; None for blocks of others.
        change: The size of what it adds to its input, relative to its input: the mean of |y - x| / |x|.
        finding: What that says, in words.
        gates: Its gates.
    """

    path: str
    kind: str
    start: str | None
    change: float
    finding: str
    gates: tuple[Gate, ...]

    @property
    def label(self) -> str:
        """Row and class, such as `16 GAM`."""
        return f"{self.path.removeprefix('model.')} {self.kind}"


@dataclass(frozen=True)
class Faithfulness:
    """Whether a heat map marks what a detection depends on; mean over the pictures.

    Pixels are removed (deletion) or shown (insertion) in the order of the map. Each number is the area under the curve
    of the strongest detection's score, relative to its score on the whole image.

    Attributes:
        deletion: A true map makes it small.
        insertion: A true map makes it large.
        random_deletion: The same for random maps.
        random_insertion: The same for random maps.
        images: Number of images with a detection.
    """

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    images: int

    @property
    def finding(self) -> str:
        """What the numbers say, in words."""
        better = self.deletion < self.random_deletion, self.insertion > self.random_insertion
        if all(better):
            return "the maps mark what the detections depend on"
        return "doubtful: only one of the two tests is passed" if any(better) else "no better than random maps"


@dataclass(frozen=True)
class Worth:
    """What a block is worth on a dataset.

    Attributes:
        block: The block's label, or `all blocks`.
        lost: mAP 50-95 of the model minus mAP without the block, with its paired interval.
        AP: mAP 50-95 without the block.
    """

    block: str
    lost: Difference
    AP: float | None


@dataclass(frozen=True)
class LookedModel:
    """One checkpoint.

    Attributes:
        name: Its name.
        path: Its file.
        blocks: Its attention blocks.
        faithfulness: Of its heat maps; None where nothing was detected.
        AP: mAP 50-95 on the dataset; None without a dataset.
        worth: What each block is worth there.
    """

    name: str
    path: str
    blocks: tuple[Block, ...]
    faithfulness: Faithfulness | None
    AP: float | None = None
    worth: tuple[Worth, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One drawing: a caption, and the image."""

    caption: str
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class LookedPicture:
    """The drawings of one image.

    Attributes:
        name: Its file name.
        path: Its file, or that of the video.
        models: The detections and the heat map of each model, by its name.
        gates: The gates of each model, by its name and the label of the block.
    """

    name: str
    path: str
    models: dict[str, tuple[Tile, ...]]
    gates: dict[str, dict[str, tuple[Tile, ...]]]


@dataclass(frozen=True)
class LookRecord:
    """The result of `look`: what `look.json` holds.

    Attributes:
        images: Number of images whose gates were read.
        models: The checkpoints.
        notes: What to know before trusting it.
        pictures: The drawings; not in `look.json`.
    """

    images: int
    models: tuple[LookedModel, ...]
    notes: tuple[str, ...] = ()
    pictures: tuple[LookedPicture, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `look.json`."""
        content = asdict(replace(self, pictures=()))
        del content["pictures"]
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **content}
