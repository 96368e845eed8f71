"""Snapshots of a training from which it goes on exactly as if it had not been stopped.

Ultralytics' `last.pt` alone does not allow that: it is overwritten in place, and it keeps weights and optimizer in half
precision and no random state. So after each of its checkpoints a snapshot is put beside the training: copies of
`last.pt`, `best.pt` and `results.csv`, and `state.pt` with what those lack. A snapshot is written under a temporary
name and renamed, so there is no half of one; the two newest are kept.

With the process's own data loading (`workers=0`, always so on a CPU) and one optimizer step a batch (`nbs` not above
`batch`) a resumed training gives the same bits. With loader workers, gradient accumulation or several GPUs the
weights, averages and optimizer are restored exactly, but the order of images after the interruption is another.
"""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gam_yolo import ultralytics_api

__all__ = ["FOLDER", "LAST", "attach", "newest", "put_back", "wipe"]

FOLDER = "snapshots"
LAST = "last.pt"
STATE = "state.pt"
KEEP = 2
FILES = {LAST: "weights/last.pt", "best.pt": "weights/best.pt", "results.csv": "results.csv"}


def attach(model: Any) -> None:
    """Have an Ultralytics model take and use snapshots in its training; they lie beside the training's folder.

    The callbacks are functions of this module, which is how multi-GPU training carries them into its processes.
    """
    model.add_callback("on_train_epoch_start", _start_epoch)
    model.add_callback("on_model_save", _take)
    model.add_callback("on_pretrain_routine_end", _restore)


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """Return a run's newest whole snapshot, or None, and what is to be said about damaged ones.

    Damage is found by the checksums that every checkpoint's own archive has; nothing is unpickled.
    """
    told = []
    for snapshot in _snapshots(run):
        if damaged := [name for name in (LAST, "best.pt", STATE) if not _whole(snapshot / name)]:
            told.append(f"{snapshot.name} is damaged ({', '.join(damaged)}) and passed over")
        else:
            return snapshot, told
    return None, told


def put_back(run: Path, train: Path, snapshot: Path) -> bool:
    """Make a training's folder what it was when the snapshot was taken; drop newer ones.

    Returns:
        Whether the training had ended then.
    """
    for other in _snapshots(run):
        if _epoch(other) > _epoch(snapshot):
            shutil.rmtree(other)
    for name, place in FILES.items():
        (train / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, train / place)
    return bool(torch.load(snapshot / STATE, weights_only=True)["ended"])


def wipe(run: Path) -> None:
    """Remove all snapshots of a run, and what an interrupted writing of one has left."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _snapshots(run: Path) -> list[Path]:
    """Return a run's snapshots, the newest first."""
    return sorted((run / FOLDER).glob("epoch-*"), key=_epoch, reverse=True)


def _epoch(snapshot: Path) -> int:
    return int(snapshot.name.removeprefix("epoch-"))


def _whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever a damaged archive makes of its reader
        return False


def _start_epoch(trainer: Any) -> None:
    """Draw each epoch's order from the state the last epoch has left, not from an iterator that outlives epochs."""
    if trainer.train_loader.num_workers == 0:
        trainer.train_loader.reset()


def _take(trainer: Any) -> None:
    run = Path(trainer.save_dir).parent
    final = run / FOLDER / f"epoch-{trainer.epoch}"
    partial = run / FOLDER / f".epoch-{trainer.epoch}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, place in FILES.items():
        shutil.copyfile(Path(trainer.save_dir) / place, partial / name)
    with (partial / STATE).open("wb") as file:  # of a path, PyTorch would not say why it cannot be written
        torch.save(_state(trainer), file)
    if final.exists():
        shutil.rmtree(final)
    partial.replace(final)
    for old in _snapshots(run)[KEEP:]:
        shutil.rmtree(old)


def _state(trainer: Any) -> dict[str, Any]:
    """Collect what a checkpoint of Ultralytics lacks, in types that can be loaded without running code."""
    unwrap_model = ultralytics_api.get("unwrap_model")
    loader = trainer.train_loader
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # the generator that Ultralytics draws from
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "ended": bool(trainer.stop),
        "model": unwrap_model(trainer.model).state_dict(),
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
    unwrap_model = ultralytics_api.get("unwrap_model")
    if not trainer.resume:
        return
    state = torch.load(Path(trainer.args.model).with_name(STATE), map_location="cpu", weights_only=True)
    unwrap_model(trainer.model).load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.stopper.possible_stop = state["possible_stop"]
    if trainer.world_size > 1:
        return  # each process has its own random state, and only one process's was kept
    loader = trainer.train_loader
    if hasattr(loader.dataset, "buffer") and loader.num_workers == 0:
        loader.dataset.buffer.clear()
        for index in state["mosaic"]:
            loader.dataset.load_image(index)  # puts it into the buffer that mosaics are made from
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    loader.generator.set_state(state["order"])
