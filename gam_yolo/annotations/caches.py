"""Caches beside a dataset, which Ultralytics reads in place of labels and images that have changed since."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gam_yolo.annotations.images import is_file
from gam_yolo.errors import UserError

__all__ = ["settle_caches"]


def settle_caches(images: Sequence[Path], labels: Sequence[Path]) -> None:
    """Remove a cache of labels that is older than any file, and check the arrays beside images that are.

    Releases of Ultralytics before 8.4 take a cache of labels for current by the files' sizes alone: a class number that
    was edited would be read as it was. `cache=disk` writes the pixels of `a.jpg` to `a.npy`. Older releases read that
    in any case, later ones where the image's modification time is not newer, as after a copy that keeps it.

    Args:
        images: The images of a split.
        labels: Their label files.

    Raises:
        UserError: An array has other pixels than its image.
    """
    cache = labels[0].parent.with_suffix(".cache")
    if is_file(cache) and any(_changed_since(file, cache) for file in (*images, *labels)):
        with contextlib.suppress(OSError):  # a folder that is read-only
            cache.unlink()
    for image in images:
        array = image.with_suffix(".npy")
        if is_file(array) and _changed_since(image, array) and not _same_pixels(image, array):
            raise UserError(
                f"has other pixels than {image.name}, and Ultralytics may read it instead", at=array, fix="Remove it"
            )


def _changed_since(file: Path, cache: Path) -> bool:
    """Return whether a file, or its place in its folder, was changed after the cache was written."""
    if not is_file(file):
        return False
    status = file.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns) > cache.stat().st_mtime_ns


def _same_pixels(image: Path, array: Path) -> bool:
    """Return whether an array holds an image; True where either cannot be read, which Ultralytics finds out."""
    import cv2

    try:
        cached = np.load(array, mmap_mode="r", allow_pickle=False)
        grey = cached.ndim == 2 or cached.shape[-1:] == (1,)
        if cached.dtype != np.uint8 or cached.ndim < 2 or not (grey or cached.shape[-1] == 3):  # more spectral bands
            return True
        read = cv2.imdecode(np.fromfile(image, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    except (OSError, EOFError, ValueError, cv2.error):
        return True
    return read is None or np.array_equal(cached.reshape(cached.shape[:2] if grey else cached.shape), read)
