"""What several tests of graphs use."""

from __future__ import annotations

from pathlib import Path

import pytest

from .samples import shipped


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """Every model YAML of the installed Ultralytics by name, without `.yaml`."""
    return {path.stem: path for path in shipped()}
