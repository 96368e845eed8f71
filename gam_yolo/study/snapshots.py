"""Snapshots of a training, from which it resumes exactly as if it had not been stopped.

Ultralytics' `last.pt` alone does not allow that. It is overwritten in place, holds weights and optimizer in half
precision, and has no random state. So after each checkpoint a snapshot is put beside the training: copies of `last.pt`,
`best.pt` and `results.csv`, and `state.pt` with what they lack. A snapshot is written under a temporary name and
renamed, so it is complete or absent. The two newest are kept.

With the process's own data loading (`workers=0`, always so on a CPU) and one optimizer step per batch (`nbs` not above
`batch`) a resumed training gives the same bits. With loader workers, gradient accumulation or several GPUs the
weights, averages and optimizer are restored exactly, but the order of images after the interruption differs.
"""

from __future__ import annotations

import random
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gam_yolo.graph.transfer import unwrapped
from gam_yolo.study.folder import RunFolder

__all__ = ["LAST", "attach", "newest", "restore_files", "wipe"]

LAST, BEST, RESULTS, STATE = "last.pt", "best.pt", "results.csv", "state.pt"
KEEP = 2
FILES = {LAST: "weights/last.pt", BEST: "weights/best.pt", RESULTS: "results.csv"}


def attach(model: Any) -> None:
    """Have an Ultralytics model take and use snapshots in its training; they lie beside the training's folder.

    The callbacks are functions of this module: multi-GPU training imports them by name in its processes.
    """
    model.add_callback("on_train_epoch_start", _start_epoch)
    model.add_callback("on_model_save", _take)
    model.add_callback("on_pretrain_routine_end", _restore)


def newest(run: RunFolder) -> tuple[Path | None, list[str]]:
    """Return a run's newest complete snapshot, or None, and a line about each damaged one.

    Damage is found by the checksums in every checkpoint's own archive, without unpickling. The state is then loaded, as
    data alone.
    """
    lines: list[str] = []
    for snapshot in _snapshots(run):
        damaged = [name for name in (LAST, BEST, STATE) if not _is_intact(snapshot / name)]
        damaged += [] if STATE in damaged or _is_state(snapshot / STATE) else [STATE]
        damaged += [] if _is_filled(snapshot / RESULTS) else [RESULTS]
        if not damaged:
            return snapshot, lines
        lines.append(f"{snapshot.name} is damaged ({', '.join(damaged)}) and skipped")
    return None, lines


def restore_files(run: RunFolder, snapshot: Path) -> bool:
    """Restore a training's folder as it was at a snapshot, and remove newer snapshots.

    Returns:
        Whether the training had ended by then.
    """
    for other in _snapshots(run):
        if _epoch(other) > _epoch(snapshot):
            shutil.rmtree(other)
    for name, place in FILES.items():
        (run.train / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, run.train / place)
    return bool(torch.load(snapshot / STATE, weights_only=True)["ended"])


def wipe(run: RunFolder) -> None:
    """Remove all snapshots of a run, partly written ones included."""
    shutil.rmtree(run.snapshots, ignore_errors=True)


def _snapshots(run: RunFolder) -> list[Path]:
    """Return a run's snapshots, the newest first. Whatever else lies in their folder is left alone."""
    named = (path for path in run.snapshots.glob("epoch-*") if re.fullmatch(r"epoch-\d+", path.name))
    return sorted((p for p in named if p.is_dir() and not p.is_symlink()), key=_epoch, reverse=True)


def _epoch(snapshot: Path) -> int:
    return int(snapshot.name.removeprefix("epoch-"))


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _is_state(path: Path) -> bool:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever else was put there
        return False
    return isinstance(state, dict) and isinstance(state.get("ended"), bool)


def _is_intact(path: Path) -> bool:
    read = torch._C.PyTorchFileReader  # not below: a torch without it must not make every snapshot look damaged
    try:
        read(str(path))  # it is stricter about headers than zipfile, and unpickles nothing
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive can raise anything
        return False


def _start_epoch(trainer: Any) -> None:
    """Draw each epoch's order from the state after the last epoch, not from an iterator that lives for several."""
    if trainer.train_loader.num_workers == 0:
        trainer.train_loader.reset()


def _take(trainer: Any) -> None:
    run = RunFolder(Path(trainer.save_dir).parent)
    final = run.snapshots / f"epoch-{trainer.epoch}"
    partial = run.snapshots / f".epoch-{trainer.epoch}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, place in FILES.items():
        shutil.copyfile(Path(trainer.save_dir) / place, partial / name)
    with (partial / STATE).open("wb") as file:  # given a path, PyTorch would not say why it cannot be written
        torch.save(_state(trainer), file)
    if final.exists():
        shutil.rmtree(final)
    partial.replace(final)
    for old in _snapshots(run)[KEEP:]:
        shutil.rmtree(old)


def _state(trainer: Any) -> dict[str, Any]:
    """Collect what Ultralytics' checkpoint lacks, in types that can be loaded without running code."""
    loader = trainer.train_loader
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # the generator that Ultralytics draws from
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "ended": bool(trainer.stop),
        "model": unwrapped(trainer.model).state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "possible_stop": bool(trainer.stopper.possible_stop),
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "order": loader.generator.get_state(),
        "mosaic": [int(i) for i in getattr(loader.dataset, "buffer", [])],
    }


def _restore(trainer: Any) -> None:
    if not trainer.resume:
        return
    state = torch.load(Path(trainer.args.model).with_name(STATE), map_location="cpu", weights_only=True)
    unwrapped(trainer.model).load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.stopper.possible_stop = state["possible_stop"]
    if trainer.world_size > 1:
        return  # each process has its own random state, and one process's was saved
    loader = trainer.train_loader
    if hasattr(loader.dataset, "buffer") and loader.num_workers == 0:
        loader.dataset.buffer.clear()
        for index in state["mosaic"]:
            loader.dataset.load_image(index)  # puts it into the buffer that mosaics are drawn from
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    loader.generator.set_state(state["order"])
