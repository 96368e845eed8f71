"""The package is as `docs/architecture.md` says: no circles, no import into a higher layer, walks through its files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gam_yolo

PACKAGE = Path(gam_yolo.__file__).parent
MODULES = {
    ".".join(("gam_yolo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(source: str) -> Iterator[str]:
    """Yield what a module imports of the package: at its top, in functions, for type checkers, and by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and a.value in MODULES)


GRAPH = {
    name: {found for found in imports(path.read_text("utf-8")) if found not in ("gam_yolo", name)}
    for name, path in MODULES.items()
    if name != "gam_yolo"  # gathers the public names of all the others
}


@pytest.mark.parametrize(
    "source",
    [
        "import gam_yolo.io",
        "from gam_yolo import io",
        "from gam_yolo.io import write",
        "def f():\n    from gam_yolo.io import write",
        "if TYPE_CHECKING:\n    from gam_yolo.io import write",
        "importlib.import_module('gam_yolo.io')",
    ],
)
def test_every_form_of_an_import_is_seen(source: str) -> None:
    assert list(imports(source)) == ["gam_yolo.io"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert len(GRAPH) > 100
    TopologicalSorter(GRAPH).prepare()  # raises `CycleError`, which names a circle


def test_imports_go_into_lower_layers_only(root: Path) -> None:
    text = (root / "docs/architecture.md").read_text("utf-8")
    block = re.search(r"<!-- layers -->\n```text\n(.*?)```", text, re.S)
    assert block
    order = re.findall(r"\w+", block[1])
    assert set(order) == {name.split(".")[1] for name in GRAPH}
    upward = [
        f"{name} imports {found}"
        for name, own in GRAPH.items()
        for found in own
        if order.index(found.split(".")[1]) > order.index(name.split(".")[1])
    ]
    assert upward == []


@pytest.mark.parametrize("walk", ["Row to module", "Tensor to layer", "Box to interval", "Study file to report"])
def test_the_walks_name_files_that_exist_and_the_table_counts_them(root: Path, walk: str) -> None:
    text = (root / "docs/architecture.md").read_text("utf-8")
    described = text.partition(f"### {walk}\n")[2].partition("\n### ")[0]
    files = set(re.findall(r"`((?:\w+/)*\w+\.py)`", described))
    assert not [file for file in files if not (PACKAGE / file).is_file()]
    counted = re.search(rf"^\| {walk} \| (\d+) \|", text, re.M)
    assert counted
    assert int(counted[1]) == len(files)
