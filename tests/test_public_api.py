"""What `import gam_yolo` offers: every verb and block by name, typed, and nothing heavy imported before it is used."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import gam_yolo

VERBS = (
    "blocks",
    "check",
    "compare",
    "export_plain",
    "look",
    "place",
    "power",
    "prepare",
    "register",
    "remove_blocks",
    "run_study",
    "transfer",
)


def test_dir_lists_every_public_name() -> None:
    assert set(VERBS) | {"CBAM", "GAM", "Comparison", "Finding", "UserError", "__version__"} <= set(dir(gam_yolo))


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(dir(gam_yolo)) - {"__version__", "BLOCKS"}:
        found = getattr(gam_yolo, name)
        assert inspect.getdoc(found), name


def test_every_block_of_the_package_can_be_taken_by_name() -> None:
    import gam_yolo.blocks as package

    assert set(package.__all__) <= set(dir(gam_yolo))
    assert gam_yolo.CBAM is package.CBAM


def test_blocks_is_a_function_and_a_package() -> None:
    """Whichever comes first, the call or the import."""
    from gam_yolo.blocks import GAM
    from gam_yolo.describe import blocks

    assert gam_yolo.blocks(["GAM"], channels=64) == blocks(["GAM"], channels=64)
    assert gam_yolo.blocks(["GAM"], channels=64)[0].parameters == sum(p.numel() for p in GAM(64).parameters())


def test_blocks_shows_its_signature_and_its_help() -> None:
    from gam_yolo.describe import blocks

    assert inspect.signature(gam_yolo.blocks) == inspect.signature(blocks)
    shown = pydoc.plain(pydoc.render_doc(gam_yolo.blocks))
    assert f"blocks{inspect.signature(blocks)}" in shown
    assert "Describe the named blocks, or all that are registered" in shown
    assert "Attention blocks, one per file" in shown


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        _ = gam_yolo.compair  # type: ignore[attr-defined]


def test_a_documented_name_of_0_1_0_still_works_with_a_warning() -> None:
    from gam_yolo import evaluation

    old = "multiplicities"
    with pytest.warns(FutureWarning, match="now called draw_weights"):
        assert getattr(evaluation, old) is evaluation.draw_weights


def test_importing_the_package_imports_neither_torch_nor_ultralytics() -> None:
    code = "import gam_yolo, sys; assert not {'torch', 'ultralytics', 'numpy'} & set(sys.modules); dir(gam_yolo)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_parses_calls_and_prints() -> None:
    """What it does is a function's; the command is short."""
    from gam_yolo.cli import app

    for command in app.registered_commands:
        assert command.callback is not None
        (function,) = ast.parse(inspect.getsource(command.callback)).body
        assert isinstance(function, ast.FunctionDef)
        statements = sum(isinstance(node, ast.stmt) for part in function.body for node in ast.walk(part))
        assert statements <= 17, function.name


def test_a_users_typed_program_passes_a_strict_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import gam_yolo\n"
        "model = gam_yolo.place('yolov8n.yaml', block='GAM', at='head-inputs')\n"
        "text: str = model.text\n"
        "names: list[str] = [info.name for info in gam_yolo.blocks()]\n"
        "levels: list[str] = [finding.level for finding in gam_yolo.check('yolov8n.yaml')]\n"
        "result = gam_yolo.compare({'plain': 'a.json', 'gam': ['b.json', 'c.json']}, gt='truth.json')\n"
        "gain: float | None = result.variants['gam'].minus('plain')['AP'].value\n"
        "study: gam_yolo.Comparison | gam_yolo.StudyResult | None = gam_yolo.run_study('demo.yaml', workers=1)\n"
        "block = gam_yolo.GAM(64)\n"
    )
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout
