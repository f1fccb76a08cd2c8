"""Would a test notice? Changes one operator at a time and runs the tests of its room.

Draws changes by a seed from all of ``eexit_cli`` (comparisons, arithmetic, boolean operators,
``not``, whole numbers), applies each to a throw-away copy of the tree, and prints those that no
test caught. Equivalent changes, which no test can catch, are for a reader to tell.

    python tools/mutate.py --count 100 --seed 1
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
    "config": ["tests/contracts/test_contracts_options.py", "tests/test_api.py", "tests/cli"],
    "core": ["tests/unit/core", "tests/unit/exits", "tests/unit/plots"],
    "data": ["tests/unit/data", "tests/contracts/test_contracts_tasks.py"],
    "exits": ["tests/unit/exits", "tests/unit/seq2seq"],
    "families": ["tests/golden", "tests/unit/pipelines", "tests/unit/calibration"],
    "metrics": ["tests/unit/metrics", "tests/unit/pipelines"],
    "models": ["tests/unit/models", "tests/unit/seq2seq"],
    "pipelines": ["tests/golden", "tests/unit/pipelines", "tests/unit/calibration"],
    "plots": ["tests/unit/plots", "tests/contracts/test_contracts_figures.py"],
    "store": ["tests/unit/store", "tests/cli/test_cli_resume.py"],
    "training": ["tests/unit/training"],
    "ui": ["tests/cli"],
    "commands": ["tests/cli"],
}
"""Room -> where its tests are."""


@dataclass(frozen=True)
class Mutation:
    """One change: a file, a place in it, and the text that stands there afterwards."""

    path: str
    line: int
    before: str
    after: str
    source: str


def mutations(path: Path) -> Iterator[Mutation]:
    """Every change of a file, one operator each."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for changed, undo in _changes(node):
            assert isinstance(changed, (ast.expr, ast.stmt))
            now = ast.unparse(changed)
            undo()
            was = ast.unparse(changed)
            segment = ast.get_source_segment(text, changed)
            if segment is None or text.count(segment) < 1 or now == was:
                continue
            start = _offset(text, changed.lineno, changed.col_offset)
            # In parentheses, so that what stands around it keeps its meaning.
            source = f"{text[:start]}({now}){text[start + len(segment) :]}"
            name = path.relative_to(ROOT).as_posix()
            yield Mutation(name, changed.lineno, was, now, source)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, Callable[[], None]]]:
    """The node as it stands changed, with what puts it back."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
        yield from _swapped(node, "op")
    if isinstance(node, ast.Compare):
        for at, kind in enumerate(node.ops):
            if type(kind) in SWAPS:
                node.ops[at] = SWAPS[type(kind)]()  # type: ignore[call-overload]
                yield node, partial(node.ops.__setitem__, at, kind)
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 1000:
        value = node.value
        node.value = value + 1
        yield node, partial(setattr, node, "value", value)


def _swapped(
    node: ast.BinOp | ast.BoolOp, name: str
) -> Iterator[tuple[ast.AST, Callable[[], None]]]:
    kind = getattr(node, name)
    setattr(node, name, SWAPS[type(kind)]())
    yield node, partial(setattr, node, name, kind)


def _offset(text: str, line: int, column: int) -> int:
    lines = text.splitlines(keepends=True)
    before = "".join(lines[: line - 1])
    return len(before) + len(lines[line - 1].encode()[:column].decode())


def drawn(count: int, seed: int) -> list[Mutation]:
    """So many changes of the package, from files by their share of all changes."""
    files = sorted(
        path
        for path in (ROOT / PACKAGE).rglob("*.py")
        if "assets" not in path.parts and path.relative_to(ROOT / PACKAGE).parts[0] in TESTS
    )
    found = [each for path in files for each in mutations(path)]
    return random.Random(seed).sample(found, count)


def caught(mutation: Mutation, tree: Path, seconds: int) -> bool:
    """Does a test of the room fail, or not end, with the change?"""
    place = tree / mutation.path
    kept = place.read_text(encoding="utf-8")
    place.write_text(mutation.source, encoding="utf-8")
    room = mutation.path.split("/")[1]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS[room]],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        place.write_text(kept, encoding="utf-8")
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one change")
    asked = parser.parse_args()
    chosen = drawn(asked.count, asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv*", "results"))
        found = 0
        for number, mutation in enumerate(chosen, start=1):
            seen = caught(mutation, tree, asked.timeout)
            found += seen
            said = "caught" if seen else "ESCAPED"
            place = f"{mutation.path}:{mutation.line}"
            print(
                f"{number:3} {said:7} {place}  {mutation.before}  ->  {mutation.after}", flush=True
            )
    print(f"{found} of {len(chosen)} caught ({100 * found / len(chosen):.0f} %), seed {asked.seed}")


if __name__ == "__main__":
    main()
