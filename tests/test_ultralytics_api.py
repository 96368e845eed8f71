"""What we assume of Ultralytics holds in the installed release, and where it would not, the error says so in words."""

from __future__ import annotations

import logging
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.graph.lint import check
from gam_yolo.graph.shapes import unknown_module
from gam_yolo.plugin.autoload import PATCHES
from gam_yolo.ultralytics_api import ASSUMPTIONS, Assumption


def test_every_assumption_holds_in_the_installed_release() -> None:
    assert ultralytics_api.broken_assumptions() == []


@pytest.mark.parametrize("assumption", ASSUMPTIONS.values(), ids=lambda a: a.name)
def test_a_renamed_name_is_reported_in_words(monkeypatch: pytest.MonkeyPatch, assumption: Assumption) -> None:
    *path, last = assumption.name.split(".")
    owner: Any = assumption._import_module()
    for part in path:
        owner = getattr(owner, part)
    if last not in vars(owner) or any(last in vars(base) for base in getattr(owner, "__mro__", [owner])[1:]):
        pytest.skip("inherited or made on demand, so that it cannot be taken away for a moment")
    monkeypatch.delattr(owner, last)
    name = f"{assumption.module}.{assumption.name}"
    assert assumption.problem() == (
        f"Ultralytics {ultralytics_api.version()} has no {name}, needed to {assumption.purpose}. "
        "Install a release that docs/compatibility.md lists, or update gam-yolo."
    )
    assert assumption.problem() in ultralytics_api.broken_assumptions()


def test_a_lost_parameter_is_reported_in_words() -> None:
    module = types.ModuleType("ultralytics.nn.tasks")
    module.parse_model = lambda config, ch: (config, ch)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"has a ultralytics.nn.tasks.parse_model without the parameter d, needed to"):
        ASSUMPTIONS["parse_model"].get(module)


def test_what_the_plugin_patches_is_declared_as_wrapped() -> None:
    assert {a.module for a in ASSUMPTIONS.values() if a.wrapped} == set(PATCHES)
    for assumption in ASSUMPTIONS.values():
        assert hasattr(assumption.get(), "__wrapped__") or not assumption.wrapped, assumption.name


def test_the_table_has_a_row_for_each() -> None:
    lines = ultralytics_api.as_markdown().splitlines()
    assert len(lines) == 2 + len(ASSUMPTIONS)
    assert "| `ultralytics.nn.tasks.parse_model` | `d`, `ch` | wrapped to build rows that name a block |" in lines


def test_the_table_in_the_documents_is_current(root: Path) -> None:
    text = (root / "docs" / "compatibility.md").read_text("utf-8")
    table = text.partition("<!-- assumptions -->\n")[2].partition("<!-- /assumptions -->")[0]
    assert table == ultralytics_api.as_markdown()


def shapes(name: str) -> list[Any]:
    with ultralytics_api.quiet(), torch.device("meta"):
        layers = tasks.parse_model(tasks.yaml_model_load(name), 3, verbose=True)[0]
    return [(key, tuple(tensor.shape)) for key, tensor in layers.state_dict().items()]


def test_models_built_in_four_threads_are_those_built_one_by_one_and_the_logger_stays_as_it_was() -> None:
    names = ["yolov8n-gam.yaml", "yolov8s-cbam.yaml", "yolov8n-eca-backbone.yaml", "yolov8m-gam-backbone.yaml"]
    before = (LOGGER.disabled, LOGGER.level, [*LOGGER.filters], LOGGER.propagate)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    LOGGER.addHandler(handler)
    try:
        want = {name: shapes(name) for name in names}
        with ThreadPoolExecutor(4) as pool:
            found = [*pool.map(shapes, names * 3)]
        assert lines == []
        LOGGER.info("still heard")
        assert lines == ["still heard"]
    finally:
        LOGGER.removeHandler(handler)
    assert found == [want[name] for name in names * 3]
    assert (LOGGER.disabled, LOGGER.level, [*LOGGER.filters], LOGGER.propagate) == before


def test_another_thread_is_heard_while_one_is_quiet() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    LOGGER.addHandler(handler)
    try:
        with ultralytics_api.quiet(), ThreadPoolExecutor(1) as pool:
            LOGGER.info("dropped")
            pool.submit(LOGGER.info, "heard").result()
    finally:
        LOGGER.removeHandler(handler)
    assert lines == ["heard"]


def test_a_module_of_a_newer_release_is_named_with_its_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In Ultralytics 8.2.103 there is no C3k2, and `yolo11n-gam.yaml` cannot be built."""
    monkeypatch.setattr("ultralytics.__version__", "8.2.103")
    monkeypatch.delattr(tasks, "C3k2", raising=False)
    advice = "Install ultralytics>=8.3.0, the first release with C3k2; 8.2.103 is installed"
    error = unknown_module("mine.yaml", 2, [-1, 2, "C3k2", [256, False, 0.25]])
    assert (
        str(error) == f"mine.yaml, row 2 [-1, 2, C3k2, [256, False, 0.25]]: there is no module named 'C3k2'. {advice}."
    )
    found = {finding.remedy for finding in check("yolo11n-gam.yaml") if finding.code == "unknown-module"}
    assert {remedy for remedy in found if "C2PSA" not in remedy} == {advice}


@pytest.mark.parametrize(
    ("installed", "module", "arguments", "first"),
    [
        ("8.3.253", "SPPF", 4, "8.4.0"),
        ("8.3.253", "SPPF", 2, ""),
        ("8.4.0", "SPPF", 4, ""),
        ("8.3.9", "A2C2f", 4, "8.3.78"),
        ("8.3.78", "A2C2f", 4, ""),
        ("8.2.103", "C2f", 2, ""),
    ],
)
def test_which_release_a_row_needs(
    monkeypatch: pytest.MonkeyPatch, installed: str, module: str, arguments: int, first: str
) -> None:
    monkeypatch.setattr("ultralytics.__version__", installed)
    advice = ultralytics_api.newer_release(module, arguments)
    assert f"ultralytics>={first}, " in advice if first else advice == ""
