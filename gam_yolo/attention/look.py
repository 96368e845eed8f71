"""`look`: see what the attention blocks of trained detectors do. The function behind `gam-yolo look`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gam_yolo import ultralytics_api
from gam_yolo.annotations.images import image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.attention import drawing
from gam_yolo.attention.gates import attention_blocks, read_gates
from gam_yolo.attention.heatmap import faithfulness, is_transformer, layer_cam
from gam_yolo.attention.result import LookResult
from gam_yolo.attention.schema import Block, Faithfulness, LookedModel, LookedPicture, Tile
from gam_yolo.attention.statistics import GateValues
from gam_yolo.attention.worth import measure_worth
from gam_yolo.blocks.parts import Start
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, option, reason
from gam_yolo.io import output_path
from gam_yolo.movement import STILL
from gam_yolo.report.files import output_folder
from gam_yolo.report.formatting import printable
from gam_yolo.report.predictions import Settings, check_device, load
from gam_yolo.report.schema import check_replicates
from gam_yolo.report.variants import Paths, find_files, name_arguments

__all__ = ["look", "split_arguments"]


class _Frame(NamedTuple):
    """One image as a model saw it: its file, the network's input, the blocks' inputs, and the detections."""

    path: str
    image: Tensor
    inputs: dict[str, Tensor]
    boxes: NDArray[Any]  # left, top, right, bottom in pixels of `image`, score, class
    content: tuple[int, int, int, int]  # left, top, right, bottom of `image` without its padding

    @property
    def name(self) -> str:
        return Path(self.path).name


def look(
    models: Mapping[str, Paths] | Sequence[str | Path] | str | Path,
    images: str | Path | Sequence[str | Path] | None = None,
    *,
    data: str | Path | None = None,
    split: str = "val",
    imgsz: int | None = None,
    batch: int = 16,
    device: str = "",
    confidence: float = 0.25,
    limit: int = 100,
    pictures: int = 4,
    vid_stride: int = 1,
    replicates: int = 1000,
    trust: bool = False,
    output: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> LookResult:
    """Look at the gates of attention blocks on images, at heat maps, and at what each block is worth.

    Args:
        models: One checkpoint or run folder or several, by name or as a list, such as a baseline and a variant.
        images: Whatever Ultralytics predicts on: an image, a folder, a video, a pattern, or a list; by default the
            images of `data`.
        data: Dataset YAML. With it, the mAP that is lost without each block is measured.
        split: Split of the dataset.
        imgsz: Image size in pixels; None for the size the checkpoint was trained at.
        batch: Images per batch of the validation.
        device: Where to run, as Ultralytics names it: "0", "cpu"; "" for its choice.
        confidence: Detections from this score on are drawn and explained.
        limit: The most images, or frames, whose gates are read.
        pictures: Number of images that are drawn, the first ones.
        vid_stride: Take every n-th frame of a video.
        replicates: Bootstrap samples of the images, for the intervals.
        trust: Let checkpoints run code, for layers of your own that are not registered. By default they are rejected.
        output: Folder for the page, the JSON file and the drawings; None to write nothing.
        progress: Called with a line of text at each step.

    Returns:
        The result; `print` shows it in words.

    Raises:
        UserError: A checkpoint or the images cannot be read.
    """
    settings = Settings(str(data) if data is not None else None, split, imgsz, batch, device)
    for name, value, least in (("limit", limit, 1), ("pictures", pictures, 0), ("vid_stride", vid_stride, 1)):
        if value < least:
            raise UserError(f"{option(name)} is {value}", expected=f"{least} or more")
    check_replicates(replicates)
    if not 0 <= confidence <= 1:
        raise UserError(f"--conf (in Python confidence=) is {confidence}", expected="a number from 0 to 1")
    folder = output_path(output, "the folder of the page") if output is not None else None
    files = _checkpoints(models)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError("is a file", at=folder, expected="a folder for the page")
    source = _source(images, data, split, limit)
    if data is not None:
        dataset(data, split)
    check_device(device)
    say = progress or (lambda _: None)
    options = {"device": device or None, "conf": confidence, "vid_stride": vid_stride}
    found: list[LookedModel] = []
    drawn: list[LookedPicture] = []
    count, more, seen = 0, False, set[str]()
    files_of_look = ("look.html", "look.json"), ("pictures",)
    with output_folder(folder, *files_of_look) if folder is not None else contextlib.nullcontext():
        with trusting(trust):  # all of them before anything takes time
            loaded = {name: load(file) for name, file in files.items()}
        for name, yolo in loaded.items():
            say(f"{name}: reading gates")
            reader = _Reader(yolo)
            frames = reader.frames(source, {**options, "imgsz": imgsz or yolo.model.args.get("imgsz", 640)})
            for count, frame in enumerate(itertools.islice(frames, limit), 1):
                reader.read(frame)
                seen.add(frame.path)
                if count <= pictures:
                    say(f"{name}: drawing {frame.name}")
                    if len(drawn) < count:
                        drawn.append(LookedPicture(frame.name, frame.path, {}, {}))
                    drawn[count - 1].models[name], drawn[count - 1].gates[name] = reader.draw(frame, confidence)
            more = next(frames, None) is not None
            if not count:
                raise UserError(f"there is no image in {source}", expected="images, or a video")
            looked = LookedModel(name, str(files[name]), reader.blocks(), reader.faithfulness())
            if data is not None and looked.blocks:
                whole, worth = measure_worth(
                    files[name], looked.blocks, settings, replicates=replicates, trust=trust, progress=say
                )
                looked = replace(looked, AP=whole, worth=worth)
            found.append(looked)
        notes = (*_notes(found, count, more), *(() if more else _unread(source, seen)))
        result = LookResult(count, tuple(found), notes, tuple(drawn))
        if folder is not None:
            result.save(folder)
    return result


def split_arguments(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell checkpoints and run folders from images, folders of images and videos.

    Examples:
        >>> split_arguments(["plain=a/best.pt", "b/best.pt", "bus.jpg"])
        (['plain=a/best.pt', 'b/best.pt'], ['bus.jpg'])
    """
    models: list[str] = []
    images: list[str] = []
    for path in paths:
        is_model = path.endswith(".pt") or (Path(path.rpartition("=")[2]) / "weights").is_dir()
        (models if is_model else images).append(path)
    return models, images


def _checkpoints(models: Any) -> dict[str, Path]:
    """Return the checkpoint of each model by name."""
    named = models if isinstance(models, Mapping) else [models] if isinstance(models, (str, Path)) else models
    named = named if isinstance(named, Mapping) else name_arguments(named)
    if not named:
        expected = "a checkpoint (.pt) or a run folder; an exported model has no blocks to look at"
        raise UserError("there are no models to look at", expected=expected)
    found = {}
    for name, paths in named.items():
        files = find_files(name, paths)
        if len(files) > 1 or files[0].suffix != ".pt":
            raise UserError(f"model '{name}' is {files[0]}", expected="one checkpoint")
        found[name] = files[0]
    return found


def _source(images: Any, data: str | Path | None, split: str, limit: int) -> Any:
    """Return what Ultralytics is to predict on."""
    if images is None:
        if data is None:
            raise UserError("there are no images", fix=f"Give images, a folder or a video, or {option('data')}")
        return [str(path) for path in sorted(image_files(dataset(data, split)[split], str(data)))[: limit + 1]]
    if not isinstance(images, (str, Path, Sequence)):
        raise UserError(f"the images are a {type(images).__name__}", expected="a path, or a list of paths")
    if isinstance(images, (str, Path)) or len(images) == 1:
        return str(images if isinstance(images, (str, Path)) else images[0])
    folders = [image for image in images if Path(image).is_dir()]
    if folders:
        raise UserError(f"{folders[0]} is a folder among other images", expected="one folder, or images by name")
    return [str(image) for image in images]


def _notes(found: Sequence[LookedModel], count: int, more: bool) -> tuple[str, ...]:
    notes = [f"{model.name} has no attention blocks." for model in found if not model.blocks]
    if more:
        read = "image was" if count == 1 else f"{count} images were"
        notes.append(f"Only the first {read} read. Use {option('limit')} for more.")
    if count == 1:
        notes.append("One image was read. Whether a gate depends on the image is seen on several.")
    if any(model.worth for model in found):
        notes.append(
            "What a block is worth is how much the trained model relies on it. The model was not trained without the "
            "block, and could learn to do without it: compare it with one that was."
        )
    return tuple(notes)


def _unread(source: Any, seen: set[str]) -> Iterator[str]:
    """Yield a note on the images of a list or a folder that Ultralytics skipped, if there are any."""
    if isinstance(source, list):
        images = [Path(path) for path in source]
    else:
        inside = sorted(Path(source).iterdir()) if Path(source).is_dir() else ()
        images = [path for path in inside if path.suffix[1:].lower() in ultralytics_api.image_formats()]
    read = {Path(path).resolve() for path in seen}
    skipped = [path.name for path in images if path.resolve() not in read]
    if skipped:
        more = [f"{len(skipped) - 5} more"] if len(skipped) > 5 else []
        yield f"{len(skipped)} of {len(images)} images could not be read: {', '.join(skipped[:5] + more)}."


class _Reader:
    """Runs one model on images and gathers what its blocks do.

    Args:
        yolo: Ultralytics' model.
    """

    def __init__(self, yolo: Any) -> None:
        self._yolo, self._network = yolo, yolo.model
        self._blocks: dict[str, nn.Module] = attention_blocks(yolo.model)
        self._gates: dict[str, dict[str, GateValues]] = {path: {} for path in self._blocks}
        self._changes: dict[str, list[float]] = {path: [] for path in self._blocks}
        self._tests: list[tuple[float, float, float, float]] = []

    def frames(self, source: Any, options: dict[str, Any]) -> Iterator[_Frame]:
        """Yield the images as the network gets them, with the detections."""
        image: list[Tensor] = []
        inputs: dict[str, Tensor] = {}
        hooks = [self._network.register_forward_pre_hook(lambda _, args: image.__setitem__(slice(None), args[:1]))]
        for path, block in self._blocks.items():
            hooks.append(
                block.register_forward_pre_hook(lambda _, args, path=path: inputs.__setitem__(path, args[0].clone()))
            )
        try:
            with ultralytics_api.quiet():
                for one in source if isinstance(source, list) else [source]:  # a list would be a single batch
                    for result in self._yolo.predict(one, stream=True, verbose=False, save=False, **options):
                        yield _frame(result, image[0], dict(inputs), is_transformer(self._network))
        except (OSError, AssertionError, ValueError, ImportError) as error:
            if isinstance(error, UserError):
                raise
            why = reason(error).partition(". Supported formats")[0]
            raise UserError(f"the images {source} cannot be read ({why})") from None
        finally:
            for hook in hooks:
                hook.remove()

    def read(self, frame: _Frame) -> None:
        """Add what the blocks do on an image."""
        height, width = frame.image.shape[2:]
        for path, block in self._blocks.items():
            x = frame.inputs[path]
            gates, y = read_gates(block, x)
            self._changes[path].append(float((y - x).norm() / x.norm().clamp(min=1e-12)))
            peak = 2.0 if getattr(getattr(block, "start", None), "centred", False) else 1.0
            for name, gate in gates.items():
                values = self._gates[path].setdefault(name, GateValues(name, peak))
                values.add(gate, frame.boxes[:, :4], (height, width))

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks with what their gates showed."""
        found = []
        for path, block in self._blocks.items():
            change = float(np.mean(self._changes[path]))
            what = "still the identity: it changes" if change < STILL else "changes"
            gates = tuple(values.summary() for values in self._gates[path].values())
            finding = f"{what} its input by {100 * change:.{1 if change < 0.1 else 0}f} %"
            found.append(Block(path, type(block).__name__, _start(block), change, finding, gates))
        return tuple(found)

    def faithfulness(self) -> Faithfulness | None:
        """Return how true the heat maps drawn were."""
        if not self._tests:
            return None
        deletion, insertion, *random = map(float, np.mean(self._tests, axis=0))
        return Faithfulness(deletion, insertion, random[0], random[1], len(self._tests))

    def draw(self, frame: _Frame, confidence: float) -> tuple[tuple[Tile, ...], dict[str, tuple[Tile, ...]]]:
        """Draw detections, heat map and gates of an image."""
        with torch.inference_mode(False):
            image = frame.image.clone().float()
        tested = faithfulness(self._network, image) if len(frame.boxes) else None
        if tested:
            self._tests.append(tested)
        photo = drawing.photo(image, frame.content)
        names = {int(i): printable(name) for i, name in self._yolo.names.items()}
        count, size = len(frame.boxes), (image.shape[2], image.shape[3])
        boxes = drawing.boxes(photo, frame.boxes, names, frame.content)
        cam = layer_cam(self._network, image, confidence).cpu().numpy()
        heat = drawing.boxes(drawing.overlay(photo, cam, frame.content), frame.boxes, {}, frame.content)
        tiles = (
            Tile(f"{count} detection{'s' if count != 1 else ''} from confidence {confidence:g}", boxes),
            Tile(
                "heat map (LayerCAM)" + (f", deletion {tested[0]:.2f}, random {tested[2]:.2f}" if tested else ""), heat
            ),
        )
        gates = {
            f"{path.removeprefix('model.')} {type(block).__name__}": tuple(
                drawing.gate(name, gate[0].float().cpu().numpy(), photo, frame.boxes, size, frame.content)
                for name, gate in read_gates(block, frame.inputs[path])[0].items()
            )
            for path, block in self._blocks.items()
        }
        return tiles, gates


def _frame(result: Any, image: Tensor, inputs: dict[str, Tensor], stretched: bool) -> _Frame:
    """Bring Ultralytics' result for an image into the pixels of the network's input, which is padded or stretched."""
    (rows, columns), (height, width) = result.orig_shape, image.shape[2:]
    scales = np.array([width / columns, height / rows])
    if not stretched:
        scales[:] = scales.min()
    across, down = (round(float(size)) for size in scales * (columns, rows))
    left, top = round((width - across) / 2 - 0.1), round((height - down) / 2 - 0.1)  # as Ultralytics rounds
    boxes = result.boxes.data.cpu().numpy().astype(float)
    boxes[:, :4] = boxes[:, :4] * np.tile(scales, 2) + np.array([left, top, left, top])
    return _Frame(result.path, image, inputs, boxes, (left, top, left + across, top + down))


def _start(block: nn.Module) -> str | None:
    """Return how a block of ours started, by its part `Start`."""
    start: Any = getattr(block, "start", None)
    if not isinstance(start, Start):
        return None
    return "identity" if start.gain is not None else "zero" if start.centred else "default"
