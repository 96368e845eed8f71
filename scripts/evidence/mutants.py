"""Change the code in small ways, and count how many changes the tests notice (mutation testing).

    python scripts/evidence/mutants.py
    python scripts/evidence/mutants.py registry arguments
    python scripts/evidence/mutants.py transfer --most 100 --seed 1

Each mutant has one change in one function: another comparison or operator, a negated condition, another constant, a
statement or `return` value left out. The tests are collected and run once, which records the statements that each
reaches. Then, for each mutant, a forked process gets the changed function and runs the tests that reach the changed
statement, the fastest first, until one fails. A mutant is killed if a test fails, or does not end, that passes when it
is repeated with nothing changed. `--most` takes a random sample of a module's mutants. To see whether new tests notice
what survived: `mutants.py identity --only 57 98 --tests tests/test_identity.py`, with the numbers that a run printed.

Not mutated: code outside functions, default values, docstrings, annotations, and the texts of messages. Tests that take
longer than `--slowest` seconds, those that start processes of their own, and those beyond a mutant's `--budget` do not
take part, so the figures are lower bounds. Linux only.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import functools
import gc
import importlib
import itertools
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "registry": (
        "gam_yolo/registry.py",
        (
            "tests/test_registry.py",
            "tests/plugin/test_block_training.py::test_blocks_inside_other_modules_are_found_and_counted_once",
        ),
    ),
    "arguments": ("gam_yolo/arguments.py", ("tests/test_arguments.py",)),
    "parser": ("gam_yolo/plugin/parse_model.py", ("tests/plugin/test_parse_small.py",)),
    "edit": (
        "gam_yolo/graph/edit.py",
        ("tests/graph/test_edit.py", "tests/graph/test_places.py::test_layouts_without_brackets_give_the_graph_back"),
    ),
    "transfer": ("gam_yolo/graph/transfer.py", ("tests/graph/test_transfer.py",)),
    "matching": ("gam_yolo/evaluation/matching.py", ("tests/evaluation/test_metrics.py",)),
    "metrics": ("gam_yolo/evaluation/metrics.py", ("tests/evaluation/test_metrics.py",)),
    "statistics": ("gam_yolo/evaluation/statistics.py", ("tests/evaluation/test_statistics.py",)),
    "identity": ("gam_yolo/identity.py", ("tests/test_identity.py",)),
}
"""The modules, and the tests of each; the examples in the module's docstrings are tests too."""
# Tests that start other processes, which would not notice a change in this one.
LEFT_OUT = ["ultralytics_is_imported", "files", "entry_point", "to_import", "documented", "worker"]
LEFT_OUT += ["every_single_and_double"]  # it takes a minute

REACHED = "__reached__"

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Mutant:
    """A changed function: the line of the changed statement, what was changed, and the code of the functions in it.

    A function that another returned earlier, such as a patch of Ultralytics, is changed too.
    """

    number: int
    line: int
    old: str
    new: str
    codes: dict[tuple[str, int], CodeType]


@dataclass
class Test:
    """A test, the seconds that it takes, the statements that it reaches, and whether it passes when repeated."""

    item: pytest.Item
    seconds: float
    reached: set[int]
    repeats: bool | None = None
    __test__ = False  # for pytest


def mutants(file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    source = file.read_text(encoding="utf-8")
    original = {_key(code): code for code in _codes(compile(source, str(file), "exec"))}
    for number in itertools.count():
        tree = ast.parse(source)
        changer = _Changer(number)
        for function in _functions(tree):
            changer.change_body(function)
            if changer.changed:
                break
        if changer.changed is None:
            return
        ast.fix_missing_locations(tree)
        # Python counts a function from its first decorator.
        key = function.name, min([function.lineno, *(d.lineno for d in function.decorator_list)])
        try:
            code = next(c for c in _codes(compile(tree, str(file), "exec")) if _key(c) == key)
        except (SyntaxError, ValueError):  # what Python rejects at once
            continue
        if code.co_freevars == original[key].co_freevars:
            inner = {_key(c): c for c in _codes(code) if not c.co_name.startswith("<")}
            yield Mutant(number, *changer.changed, {key: code, **inner})


def marked(file: Path) -> dict[tuple[str, int], CodeType]:
    """Return the code of a module's functions, changed so that each statement first says that it was reached."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in [node for function in _functions(tree) for node in ast.walk(function)]:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                marks = [ast.parse(f"{REACHED}({statement.lineno})").body[0] for statement in block]
                setattr(node, name, [line for pair in zip(marks, block, strict=True) for line in pair])
    ast.fix_missing_locations(tree)
    return {_key(code): code for code in _codes(compile(tree, str(file), "exec"))}


def _functions(tree: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Yield the functions of a module and the methods of its classes; what is inside a function is a part of it."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


class _Changer(ast.NodeTransformer):
    """Makes the change with a given number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.line = 0  # of the statement that is visited
        self.changed: tuple[int, str, str] | None = None

    def change_body(self, function: Function) -> None:
        """Change a function, without its annotations, default values and docstring."""
        start = 1 if ast.get_docstring(function) is not None else 0
        function.body[start:] = [self.visit(node) for node in function.body[start:]]

    def _replace(self, old: ast.AST, new: ast.AST) -> ast.AST:
        """Return the new node if this is the change to make."""
        if self.changed is None:
            if not self.number:
                self.changed = self.line, ast.unparse(old).splitlines()[0][:90], ast.unparse(new).splitlines()[0][:90]
                return ast.copy_location(new, old)
            self.number -= 1
        return old

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.stmt):
            self.line = node.lineno
        return super().visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if self.changed is not None:
            return node
        for made in _changes(node):
            replaced = self._replace(node, made)
            if self.changed is not None:
                return replaced
        super().generic_visit(node)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self._replace(node, ast.Pass())  # without the texts of its message

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.change_body(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value:
            node.value = self.visit(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the changes of one node, each a copy."""
    new: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in SWAPPED:
                new = copy.deepcopy(node)
                new.ops[i] = SWAPPED[type(operator)]()
                yield new
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPPED:
        new.op = SWAPPED[type(node.op)]()
        yield new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield new.operand
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield SWAPPED[type(node)]()
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        new.test = ast.UnaryOp(ast.Not(), new.test)
        yield new
    elif isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        new.value = ast.Constant(None)
        yield new
    elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Yield, ast.YieldFrom)):
        yield ast.Pass()
    elif isinstance(node, ast.comprehension) and node.ifs:
        new.ifs = []
        yield new
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield ast.Constant(not value)
        elif isinstance(value, (int, float)):
            yield ast.Constant(value + 1)
        elif isinstance(value, str):
            yield ast.Constant(f"{value}XX")


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class Runner:
    """A pytest plug-in that runs the collected tests once, and then those of each mutant in a forked process."""

    def __init__(self, file: Path, options: argparse.Namespace) -> None:
        self.file, self.options = file, options
        self.module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        self.all = 0
        self.killed: list[Mutant] = []
        self.survived: list[Mutant] = []
        self.tests: list[Test] = []
        self.report = os.fdopen(os.dup(2), "w")  # standard error, which pytest captures
        self.caches: list[Any] = []
        self.functions: list[FunctionType] = []
        self.position = mmap.mmap(-1, 4)  # of the test that a forked process runs

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        begin = time.monotonic()
        self._find()
        self._change(marked(self.file))
        signal.signal(signal.SIGVTALRM, lambda *_: pytest.skip("too slow to take part"))
        self.tests = sorted(filter(None, map(self._timed, session.items)), key=lambda test: test.seconds)
        self._find()  # also the functions that a test defined
        gc.freeze()  # a forked process then copies less
        made = [*mutants(self.file)]
        self.all = len(made)
        chosen = self._chosen(made)
        self._say(f"{len(self.tests)} tests, {time.monotonic() - begin:.0f} s; {len(chosen)} of {self.all} mutants")
        begin = time.monotonic()
        for mutant in chosen:
            seconds = time.monotonic() - begin
            if 0 < 60 * self.options.minutes < seconds:
                break
            self._say(f"{len(self.killed)} killed, {len(self.survived)} survived, {seconds:.0f} s", "\r")
            (self.killed if self._is_killed(mutant) else self.survived).append(mutant)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """End a test that is too slow, while the tests are timed."""
        signal.setitimer(signal.ITIMER_VIRTUAL, 0 if self.tests else self.options.slowest)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _find(self) -> None:
        """Find the functions of the module, and the caches, which each test empties."""
        found = gc.get_objects()
        self.functions = [
            one for one in found if type(one) is FunctionType and one.__code__.co_filename == str(self.file)
        ]
        self.caches = [
            one
            for one in found
            if type(one) is functools._lru_cache_wrapper and str(one.__module__).startswith("gam_yolo")
        ]

    def _change(self, codes: dict[tuple[str, int], CodeType]) -> None:
        for function in self.functions:
            code = codes.get(_key(function.__code__))
            if code and function.__code__.co_freevars == code.co_freevars:
                function.__code__ = code

    def _timed(self, item: pytest.Item) -> Test | None:
        """Run a test; return None if it does not take part."""
        reached: set[int] = set()
        vars(builtins)[REACHED] = reached.add
        begin = time.process_time()  # as other work may run beside it
        passed = self._passes(item)
        seconds = time.process_time() - begin
        return Test(item, seconds, reached) if passed and reached and seconds < self.options.slowest else None

    def _chosen(self, made: list[Mutant]) -> list[Mutant]:
        """Return the mutants to run; a sample is in random order, so that `--minutes` leaves a random sample too."""
        if self.options.only is not None:
            return [mutant for mutant in made if mutant.number in self.options.only]
        if not 0 < self.options.most < len(made):
            return made
        return random.Random(self.options.seed).sample(made, self.options.most)  # noqa: S311

    def _is_killed(self, mutant: Mutant) -> bool:
        tests = [test for test in self.tests if mutant.line in test.reached]
        spent = itertools.accumulate(test.seconds for test in tests)
        tests = [test for test, seconds in zip(tests, spent, strict=True) if seconds < self.options.budget]
        while killer := self._first_to_fail(tests, mutant.codes):
            if killer.repeats is None:
                killer.repeats = self._first_to_fail([killer], {}) is None
            if killer.repeats:
                return True
            tests.remove(killer)
            self.tests.remove(killer)
        place = f"mutant {mutant.number}, {self.file.name}:{mutant.line}"
        self._say(f"{place}: {mutant.old}  ->  {mutant.new}   ({len(tests)} tests)")
        return False

    def _first_to_fail(self, tests: list[Test], codes: dict[tuple[str, int], CodeType]) -> Test | None:
        """Run tests with functions changed, in a forked process, until one fails or does not end; return this one."""
        self.position[:] = bytes(4)
        child = os.fork()
        if not child:
            status = 1  # of an error outside a test
            try:
                resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
                self._change(codes)
                for position, test in enumerate(tests):
                    self.position[:] = position.to_bytes(4, "big")
                    signal.setitimer(signal.ITIMER_PROF, 5 + 5 * test.seconds)  # ends this process
                    signal.setitimer(signal.ITIMER_REAL, 100 + 100 * test.seconds)
                    if not self._passes(test.item):
                        break
                else:
                    status = 0
            finally:
                os._exit(status)
        failed = os.waitpid(child, 0)[1]
        return tests[int.from_bytes(self.position[:], "big")] if failed else None

    def _passes(self, item: pytest.Item) -> bool:
        for cache in self.caches:
            cache.cache_clear()
        if isinstance(item, pytest.DoctestItem) and item.dtest:  # a doctest empties its globals at its end
            item.dtest.globs.update(vars(importlib.import_module(self.module)))
        return all(report.passed for report in runtestprotocol(item, nextitem=None, log=False))

    def _say(self, text: str, end: str = "\n") -> None:
        self.report.write(f"{text:<80}{end}")
        self.report.flush()


def main() -> int:
    """Run the mutants of each module, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=[*TARGETS], help=f"some of: {', '.join(TARGETS)}")
    parser.add_argument("--slowest", type=float, default=1, help="seconds that a test may take to take part")
    parser.add_argument("--budget", type=float, default=8, help="seconds that the tests of a mutant may take together")
    parser.add_argument("--only", type=int, nargs="+", help="run the mutants with these numbers")
    parser.add_argument("--tests", nargs="+", help="use these tests in place of the module's")
    parser.add_argument("--minutes", type=float, default=0, help="stop each module after this time")
    parser.add_argument("--most", type=int, default=0, help="run a random sample of so many mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the random sample")
    options = parser.parse_args()
    if len(options.modules) > 1:  # each in a process of its own, as tests share what they import
        same = [f"--{key}={getattr(options, key)}" for key in ("slowest", "budget", "minutes", "most", "seed")]
        again = [sys.executable, __file__, *same]
        return max([subprocess.run([*again, module], check=False).returncode for module in options.modules])
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutants", database=None, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate]
    )
    settings.load_profile("mutants")
    (name,) = options.modules
    file, tests = TARGETS[name]
    tests = options.tests or tests
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a forked process waits forever for its parent's threads
    os.environ.setdefault("EXAMPLES", "25")  # of the comparisons with pycocotools
    sys.path.insert(0, str(ROOT))  # the checkout's package, whatever is installed
    runner = Runner(ROOT / file, options)
    flags = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:warnings", "--doctest-modules", "--no-header"]
    flags += ["-o", "addopts="]  # which are for several processes
    flags += ["-k", f"not ({' or '.join(LEFT_OUT)})"]
    status = pytest.main([*flags, file, *tests], plugins=[runner])
    killed, survived = len(runner.killed), len(runner.survived)
    table = Table("module", "tests", "mutants", "run", "killed", "survived", "killed, %")
    share = f"{100 * killed / max(1, killed + survived):.0f}"
    table.add_row(file, *map(str, (len(runner.tests), runner.all, killed + survived, killed, survived)), share)
    Console(width=120).print(table)
    return int(status) if status not in (0, 5) else 0


if __name__ == "__main__":
    sys.exit(main())
