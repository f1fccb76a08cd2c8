"""Would a test notice? Changes one operator at a time and runs the tests of its room.

Draws changes by a seed from all of ``eexit_cli`` (comparisons, arithmetic, boolean operators,
``not``, whole numbers), applies each to a throw-away copy of the tree, and prints those that no
test caught. A change that no test can catch, because the program does the same with it, stands in
``EQUIVALENT`` with a reason and does not count; one whose tests did not end in time counts as
escaped. Tests that failed are run once more without the change: what fails there proves nothing.

    python tools/mutate.py --count 100 --seed 1
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "eexit_cli"

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}

TESTS = {
    "attacks": ["tests/unit/attacks", "tests/contracts/test_contracts_attacks.py"],
    "calibration": ["tests/unit/calibration", "tests/contracts/test_contracts_p_values.py"],
    "confidence": ["tests/unit/confidence", "tests/unit/exits", "tests/unit/seq2seq"],
    "config": [
        *("tests/contracts/test_contracts_options.py", "tests/contracts/test_contracts_plugins.py"),
        *("tests/test_api.py", "tests/cli"),
    ],
    "core": ["tests/unit/core", "tests/unit/exits", "tests/unit/plots"],
    "data": ["tests/unit/data", "tests/contracts/test_contracts_tasks.py"],
    "engine": ["tests/unit/engine"],
    "exits": ["tests/unit/exits", "tests/unit/seq2seq"],
    "families": [
        "tests/golden",
        *("tests/unit/pipelines", "tests/unit/training", "tests/unit/calibration"),
    ],
    "metrics": ["tests/unit/metrics", "tests/unit/pipelines"],
    "models": ["tests/unit/models", "tests/unit/seq2seq"],
    "pipelines": [
        "tests/golden",
        *("tests/unit/pipelines", "tests/unit/attacks", "tests/unit/calibration"),
    ],
    "plots": ["tests/unit/plots", "tests/contracts/test_contracts_figures.py"],
    "store": ["tests/unit/store", "tests/cli/test_cli_resume.py"],
    "training": ["tests/unit/training"],
    "ui": ["tests/unit/report", "tests/cli"],
    "commands": ["tests/cli"],
}
"""Room -> where its tests are."""

HEAVY = ("torch", "transformers", "scipy.stats", "pandas", "matplotlib.figure")
"""Imported once, before the first test; a child process inherits them."""

PASSED = "passed"

EQUIVALENT: dict[tuple[str, str, str], str] = {}
"""(file, before, after) -> why the program does the same with it."""


@dataclass(frozen=True)
class Mutation:
    """One change: a file, a place in it, and the text of the file afterwards."""

    path: str
    line: int
    before: str
    after: str
    source: str

    @property
    def reason(self) -> str | None:
        """Why no test can notice; None where one could."""
        return EQUIVALENT.get((self.path, self.before, self.after))

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.before}  ->  {self.after}"


def mutations(path: Path) -> Iterator[Mutation]:
    """Every change of a file, one operator each."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        for now in _changes(node):
            assert isinstance(node, ast.expr)
            segment = ast.get_source_segment(text, node)
            if segment is None or not _says(segment, node):
                continue  # inside an f-string, where Python 3.11 gives no places
            line = lines[node.lineno - 1].encode()[: node.col_offset].decode()
            start = sum(map(len, lines[: node.lineno - 1])) + len(line)
            # In parentheses, so that what stands around it keeps its meaning.
            source = f"{text[:start]}({ast.unparse(now)}){text[start + len(segment) :]}"
            name = path.relative_to(ROOT).as_posix()
            yield Mutation(name, node.lineno, ast.unparse(node), ast.unparse(now), source)


def _says(segment: str, node: ast.expr) -> bool:
    try:
        return ast.dump(ast.parse(f"({segment})", mode="eval").body) == ast.dump(node)
    except SyntaxError:
        return False


def _changes(node: ast.AST) -> Iterator[ast.expr]:
    """The expression with one operator changed."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield _with(node, op=SWAPS[type(op)]())
        case ast.Compare(ops=ops):
            for at, kind in enumerate(map(type, ops)):
                if kind in SWAPS:
                    yield _with(node, ops=[*ops[:at], SWAPS[kind](), *ops[at + 1 :]])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=value) if type(value) is int and value < 1000:
            yield ast.Constant(value + 1)


def _with(node: ast.expr, **fields: object) -> ast.expr:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def drawn(count: int, seed: int) -> list[Mutation]:
    """So many changes of the package; each of all changes is as likely as any other."""
    files = sorted(
        path
        for path in (ROOT / PACKAGE).rglob("*.py")
        if path.relative_to(ROOT / PACKAGE).parts[0] in TESTS
    )
    return random.Random(seed).sample([each for path in files for each in mutations(path)], count)


def tests_of(path: str) -> list[str]:
    """Where the tests of a module are: those of its room that name it, then all of its room."""
    room = TESTS[path.split("/")[1]]
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    spelt = re.compile(
        rf"\b{re.escape(module)}\b(?!\.)|from {re.escape(package)} import .*\b{name}\b"
    )
    naming = [
        each.relative_to(ROOT).as_posix()
        for each in sorted((ROOT / "tests").rglob("test_*.py"))
        if not {"bench", "slow"} & set(each.parts) and spelt.search(each.read_text("utf-8"))
    ]
    return [*([name for name in naming if name.startswith(tuple(room))] or naming), *room]


class Failures:
    """A pytest plug-in: the names of the tests that failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid.partition("::")[0])


def failed(tree: Path, tests: Iterable[str], seconds: float) -> str | None:
    """The first of the tests that fails in a tree; None where all pass.

    A child process runs them: it inherits what is slow to import.

    Raises:
        TimeoutError: they had not ended after so many seconds.
        RuntimeError: they could not be run.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, _first_failure(tree, tests).encode())
        finally:
            os._exit(0)  # whatever happened: the rest of this program is the parent's
    os.close(write)
    try:
        if not select.select([read], [], [], seconds)[0]:
            raise TimeoutError
        said = os.read(read, 4096).decode()
        if not said:
            raise RuntimeError("pytest did not run")
        return None if said == PASSED else said
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _first_failure(tree: Path, tests: Iterable[str]) -> str:
    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ |= {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    failures = Failures()
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=120"]
    # Plug-ins whose modules HEAVY has imported.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *tests], plugins=[failures])
    if code == pytest.ExitCode.OK:
        return PASSED
    return failures.names[0] if failures.names else f"pytest's code {int(code)}"


def outcome(mutation: Mutation, tree: Path, seconds: float) -> str | None:
    """The test that catches a change; None where none does in so many seconds."""
    place = tree / mutation.path
    kept = place.read_text(encoding="utf-8")
    tests = tests_of(mutation.path)
    place.write_text(mutation.source, encoding="utf-8")
    try:
        first = failed(tree, tests, seconds)
    except TimeoutError:
        return None
    finally:
        place.write_text(kept, encoding="utf-8")
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one change")
    asked = parser.parse_args()
    for name in HEAVY:
        importlib.import_module(name)
    chosen = drawn(asked.count, asked.seed)
    counts: Counter[str] = Counter()
    catching: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv*", "results"))
        for number, mutation in enumerate(chosen, start=1):
            if mutation.reason is not None:
                said, why = "same", mutation.reason
            else:
                why = outcome(mutation, tree, asked.timeout) or ""
                if why and why not in catching:
                    catching[why] = failed(tree, [why], asked.timeout) is None
                said = "caught" if catching.get(why) else "ESCAPED"
            counts[said] += 1
            print(f"{number:3} {said:7} {mutation}  ({why})", flush=True)
    judged = counts["caught"] + counts["ESCAPED"]
    share = f"{100 * counts['caught'] / max(judged, 1):.0f} %"
    print(f"{counts['caught']} of {judged} caught ({share}), seed {asked.seed}")


if __name__ == "__main__":
    main()
