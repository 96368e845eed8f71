"""What every test may use: the real images and weights, and an Ultralytics that installs and downloads nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import gam_yolo
from gam_yolo import ultralytics_api

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a missing package is an error; Ultralytics would install it
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("GAM_YOLO_TEST_DATA", str(ROOT.parent / "shared"))
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores, and so do the processes that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


SINCE = {"yolo11": "8.3.0", "C3k2": "8.3.0", "yolo12": "8.3.78", "yoloe": "8.3.99", "MuSGD": "8.4.0", "yolo26": "8.4.0"}
"""The first release of Ultralytics with something, by its name in the parameters of a test."""


def pytest_report_header() -> str:
    """Say which package is tested."""
    return f"gam_yolo {gam_yolo.__version__} from {Path(gam_yolo.__file__).parent}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that read the repository, which are those that use `root`, and start with the slowest files.

    Tests of what the installed Ultralytics does not have yet are skipped.

    Two workers (`-n 2`) take whole files, so the longest must not come last.
    """
    items.sort(key=lambda item: (item.path.name != "test_docs.py", item.path.parent.name != "study"))
    for item in items:
        if "root" in getattr(item, "fixturenames", ()):
            item.add_marker("checkout")
        needed = [mark.args[0] for mark in item.iter_markers("since")]
        needed += [release for name, release in SINCE.items() if name in item.name]
        newest = max(needed, key=ultralytics_api.numbers, default="0")
        if ultralytics_api.numbers(newest) > ultralytics_api.numbers(ultralytics_api.version()):
            item.add_marker(pytest.mark.skip(reason=f"needs ultralytics>={newest}"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give each test the same random numbers in every run: a random network can be one that amplifies rounding."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - Ultralytics and torch take from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's top folder; what a test reads there is not part of the installed package."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images, annotations and weights: `GAM_YOLO_TEST_DATA`, see CONTRIBUTING.md."""
    folder = Path(os.environ["GAM_YOLO_TEST_DATA"])
    if not folder.is_dir():
        pytest.skip(f"needs the real images and weights in {folder} (GAM_YOLO_TEST_DATA, see CONTRIBUTING.md)")
    return folder
