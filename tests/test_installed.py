"""What is tested is what users get: the package of the environment, with everything that it ships."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gam_yolo

DISTRIBUTION = importlib.metadata.distribution("gam-yolo")
SHIPPED = ("py.typed", "cfg/yolov8-gam.yaml", "cfg/studies/demo.yaml", "data/gam-demo.yaml", "report/templates")
WHERE = "import gam_yolo; print(gam_yolo.__file__)"


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder of the installed package; skips an editable install, which .ci/run does not allow here."""
    editable = json.loads(DISTRIBUTION.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable", False)
    if editable and "GAM_YOLO_TEST_WHEEL" not in os.environ:
        pytest.skip("an editable install; .ci/run tests the wheel")
    return Path(str(DISTRIBUTION.locate_file("gam_yolo"))).resolve()


def test_the_installed_package_is_the_one_under_test(installed: Path, root: Path) -> None:
    assert Path(gam_yolo.__file__).resolve().parent == installed
    assert not installed.is_relative_to(root) or "site-packages" in installed.parts
    assert str(root) not in sys.path


def test_its_commands_import_it_too(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WHERE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve().parent == installed


def test_it_carries_its_files(installed: Path) -> None:
    assert [name for name in SHIPPED if not (installed / name).exists()] == []


def test_one_version(root: Path) -> None:
    version = gam_yolo.__version__
    assert DISTRIBUTION.version == version
    assert re.findall(r"^version: (.*)$", (root / "CITATION.cff").read_text("utf-8"), re.M) == [version]
    assert re.findall(r"^## \[?([\d.]+)", (root / "CHANGELOG.md").read_text("utf-8"), re.M)[0] == version
