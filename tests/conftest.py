"""What every test may use: the real images and weights beside the checkout, and a quiet, network-free Ultralytics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a test that needs a package says so; none comes behind its back
os.environ.setdefault("YOLO_OFFLINE", "true")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images, annotations and weights; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real images and weights in {SHARED}, which are not part of the repository")
    return SHARED
