"""Make a dataset ready as training would, and write a dataset YAML for annotations that have none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gam_yolo import ultralytics_api
from gam_yolo.annotations.coco import ROBOFLOW, read_coco_file, split_files, split_of
from gam_yolo.annotations.images import exists, image_files, is_file, is_folder, shared_images
from gam_yolo.annotations.rules import Tally, apply_rules
from gam_yolo.annotations.voc import image_lists, read_voc_file
from gam_yolo.annotations.yolo import class_names, dataset, entries, no_dataset_yaml, read_labels
from gam_yolo.datasets.coco import prepare_coco
from gam_yolo.datasets.demo import prepare_demo
from gam_yolo.datasets.prepared import read_summary, splits_of
from gam_yolo.datasets.voc import prepare_voc
from gam_yolo.errors import UserError, brief, find_cause
from gam_yolo.io import read_yaml

__all__ = ["PreparedDataset", "init_yaml", "prepare"]

_OWN: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "prepare_coco": prepare_coco,
    "prepare_demo": prepare_demo,
    "prepare_voc": prepare_voc,
}
_KEYS = ("train", "val", "test")


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that is ready to train on.

    Attributes:
        yaml: The dataset YAML.
        folder: The folder that its paths start from.
        splits: The counts of each split, by the split's name.
        warnings: What should be looked at, a sentence each.
    """

    yaml: Path
    folder: Path
    splits: dict[str, Tally]
    warnings: tuple[str, ...]


def prepare(data: str | Path) -> PreparedDataset:
    """Make the dataset of a YAML ready, as training would, and count what is in it.

    A YAML whose `download:` entry calls `prepare_coco`, `prepare_demo` or `prepare_voc` of this package is prepared
    without executing the entry. Any other entry is left to Ultralytics, which downloads an archive or executes it.
    Nothing is done where the images are there already.

    Args:
        data: The dataset YAML: a path, or a name that `yolo data=` takes.

    Raises:
        UserError: The YAML, its source or a file in it is missing or wrong.
    """
    file = ultralytics_api.find_yaml(str(data))
    if file is None:
        if Path(data).suffix not in {".yaml", ".yml"} and exists(Path(data)):
            raise UserError(
                "is not a dataset YAML", at=data, fix="For annotations without one: gam-yolo prepare --init"
            )
        raise no_dataset_yaml(data)
    content = read_yaml(file, "a dataset YAML")
    if function := _own_function(content):
        prepared = _as_training_reads(content, file)
        if not all(exists(path) for key in _KEYS for path in entries(prepared.get(key) or [])):
            with ultralytics_api.quiet():
                function(prepared)
    else:
        try:
            ultralytics_api.load_dataset_yaml(str(file), download=True)
        except Exception as error:
            if ours := find_cause(error, UserError):
                raise ours from None
            if isinstance(content, dict) and "source" in content and not content.get("download"):
                kind = content.get("protocol", "coco")
                raise UserError(
                    "its images are missing, and key 'source' has no effect without 'download'",
                    at=file,
                    expected=f"download: from gam_yolo.datasets import prepare_{kind}; prepare_{kind}(yaml)",
                    fix="See what `gam-yolo prepare --init` prints for the source",
                ) from None
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"cannot be prepared ({reason})", at=file) from None
    return _count(file)


def _own_function(content: Any) -> Callable[[Mapping[str, Any]], None] | None:
    """Return our function that a YAML's `download:` entry calls, if it does nothing else."""
    entry = str(content.get("download")) if isinstance(content, dict) else ""
    found = re.fullmatch(r"\s*from gam_yolo\.datasets import (\w+)[\s;]+(\w+)\(yaml\)\s*", entry)
    return _OWN.get(found[1]) if found and found[1] == found[2] else None


def _as_training_reads(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return a dataset YAML's content with absolute paths and names by index, as Ultralytics hands it over."""
    names = content.get("names")
    if not (content.get("train") and content.get("val")):
        raise UserError("has no 'train' and 'val'", at=file, expected="a dataset YAML")
    folder = ultralytics_api.dataset_folder(content.get("path") or file.parent)
    splits = {}
    for key in _KEYS:
        value = content.get(key) or []
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise UserError(f"is {value!r:.80}", at=f"{file}, key '{key}'", expected="a path or a list of paths")
        if values:
            splits[key] = [str(Path(os.path.realpath(folder / one))) for one in values]
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(named, dict) or not all(isinstance(index, int) for index in named):
        raise UserError(f"is {brief(names)}", at=f"{file}, key 'names'", expected="a list of class names")
    return {**content, **splits, "path": folder, "names": named, "yaml_file": str(file)}


def _count(file: Path) -> PreparedDataset:
    """Count what is in a dataset that is ready: from its summary, or from its label files."""
    content = dataset(file, "val")
    found = {key: content[key] for key in _KEYS if content.get(key)}
    warnings = []
    for key, value in list(found.items()):
        missing = [path for path in entries(value) if not exists(path)]
        if missing and key == "test":  # training does without
            warnings.append(f"the 'test' images are missing at {missing[0]}")
            del found[key]
        elif missing:
            raise UserError(f"there is no {missing[0]}", at=f"{file}, key '{key}'", expected="images or a list of them")
    folder = Path(content["path"]).resolve()
    wanted = splits_of(path for value in found.values() for path in entries(value))
    if (folder / "summary.txt").is_file():
        tallies, noted = read_summary(folder)
        if set(wanted) <= set(tallies):
            return PreparedDataset(file, folder, tallies, (*warnings, *noted))
    classes = class_names(content, file)
    tallies, files = {}, {}
    for key, value in found.items():
        listed = image_files(value, f"{file}, split '{key}'")
        files[key] = list(dict.fromkeys(listed))
        tallies[key] = Tally(repeated=len(listed) - len(files[key]))
        if "kpt_shape" in content:  # label files of another format
            tallies[key].images = len(files[key])
            continue
        for image in read_labels(files[key], classes):
            apply_rules(image, tallies[key])
        warnings += [f"{key}: {warning}" for warning in tallies[key].warnings()]
    return PreparedDataset(file, folder, tallies, (*warnings, *shared_images(files)))


def init_yaml(source: str | Path) -> str:
    """Return a dataset YAML for annotations that have none.

    Args:
        source: A COCO file, a folder of COCO files (COCO's layout or Roboflow's), or a VOC folder.

    Raises:
        UserError: It is none of these.
    """
    source = Path(source)
    if is_file(source):
        root = source.parent.parent if source.parent.name == "annotations" or source.name == ROBOFLOW else source.parent
        files = split_files(root)
        if source not in files.values():
            files = {split_of(source): source}
        alike = {
            s: f for s, f in files.items() if f.name.startswith("instances_") == source.name.startswith("instances_")
        }
        return _coco_yaml(root, alike)
    if not is_folder(source):
        raise UserError("no such file or folder", at=source, expected="a COCO file, a folder of them, or a VOC folder")
    if lists := image_lists(source):
        return _voc_yaml(source, lists)
    files = split_files(source)
    official = {s: f for s, f in files.items() if f.name.startswith("instances_") or f.name == ROBOFLOW}
    if not files:
        raise UserError(
            "has no annotations that can be read",
            at=source,
            expected=f"annotations/instances_<split>.json, <split>/{ROBOFLOW}, or Annotations/ with ImageSets/Main/",
        )
    return _coco_yaml(source, official or files)


def _coco_yaml(source: Path, files: dict[str, Path]) -> str:
    names: dict[str, None] = {}
    for file in files.values():
        content = read_coco_file(file)
        names |= dict.fromkeys(name for i, name in content.categories.items() if i != content.placeholder)
    return _yaml(source, files, list(names), "coco")


def _voc_yaml(source: Path, lists: Iterable[Path]) -> str:
    tally, names = Tally(), set()
    for folder in dict.fromkeys(path.parents[2] for path in lists):
        for file in sorted((folder / "Annotations").glob("*.[xX][mM][lL]")):
            names |= {o.name for o in read_voc_file(file, None, 1, tally).objects}
    return _yaml(source, [path.stem for path in lists], sorted(names), "voc", tally.warnings())


def _yaml(source: Path, splits: Iterable[str], names: list[str], protocol: str, notes: Iterable[str] = ()) -> str:
    """Write the YAML's text."""
    ordered = sorted(dict.fromkeys(splits), key=lambda split: (len(split), split))
    keys = {key: next((split for split in ordered if split.startswith(key)), None) for key in _KEYS}
    only = keys["train"] or keys["val"] or ordered[0]
    lines = [
        *(f"# {note}" for note in notes),
        f"source: {_scalar(str(source.resolve()))}",
        f"path: {_scalar(source.resolve().name + '-prepared')} # relative to the datasets_dir of `yolo settings`",
        *(f"{key}: {_scalar(f'images/{keys[key] or only}')}" for key in ("train", "val")),
        *([f"test: {_scalar('images/' + keys['test'])}"] if keys["test"] else []),
        f"protocol: {protocol} # evaluate with the original annotations",
        "names:",
        *(f"  {index}: {_scalar(name)}" for index, name in enumerate(names)),
        "download: |",
        f"  from gam_yolo.datasets import prepare_{protocol}",
        f"  prepare_{protocol}(yaml)",
    ]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """Return a text as YAML writes it on one line, quoted where needed."""
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).removesuffix("...\n").strip()
