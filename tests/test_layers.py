"""Imports point one way; components know nothing of each other; light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import eexit_cli
from eexit_cli.families import FAMILIES

ROOT = Path(eexit_cli.__file__).parent
COMPONENTS = {
    "attacks",
    "calibration",
    "confidence",
    "data",
    "engine",
    "exits",
    "metrics",
    "models",
    "plots",
    "store",
    "training",
}
ALLOWED: dict[str, set[str]] = {
    "__init__": {"api"},
    "api": {"families", "pipelines", "config", "core"},
    "__main__": {"main"},
    "main": {"commands", "ui", "config", "core"},
    "commands": {"ui", "config", "pipelines", "core"},
    "ui": {"config", "core"},
    "config": {"core"},
    "pipelines": COMPONENTS | {"families", "config", "core"},
    "families": COMPONENTS | {"config", "core"},
    "core": set(),
    **{component: {"core"} for component in COMPONENTS},
}
EXCEPTIONS = {
    ("commands/models.py", "families"): "there is no pipeline between a list and the registry",
    ("commands/models.py", "store"): "the same, of stored calibrations",
    ("commands/tasks.py", "data"): "the same, between a list and the tasks",
    ("config/exit_options.py", "exits"): "an exit criterion says its options itself",
    ("commands/results.py", "store"): "there is no pipeline between a list and the result store",
    ("ui/completion.py", "families"): "the shell completes names of models",
    ("ui/completion.py", "store"): "the shell completes names of runs",
    ("ui/screens/listings.py", "store"): "the types of the rows that it draws",
}
HEAVY = {"torch", "transformers", "textattack", "pandas", "matplotlib", "datasets"}
LIGHT_ROOMS = {"api", "main", "commands", "ui", "config", "core"}
TORCH_FREE = {"calibration", "plots", "store"}


def _files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "assets" not in path.parts)


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _module(path: Path) -> str:
    parts = ["eexit_cli", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, path: Path) -> list[str]:
    """Absolute names of the modules that one import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{path}:{node.lineno}: relative import"
    assert node.module is not None
    if node.module == "eexit_cli":
        return [f"eexit_cli.{alias.name}" for alias in node.names]
    return [node.module]


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in _imported(node, path):
            yield name, node.lineno  # type: ignore[attr-defined]


def _module_level_imports(path: Path) -> Iterator[str]:
    """What importing the file imports: function bodies and TYPE_CHECKING blocks do not run."""
    waiting: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        yield from _imported(node, path)
        waiting += ast.iter_child_nodes(node)


def test_every_room_is_known() -> None:
    assert {_room(path) for path in _files()} <= ALLOWED.keys()


@pytest.mark.parametrize("path", _files(), ids=_module)
def test_imports_point_one_way(path: Path) -> None:
    room, relative = _room(path), path.relative_to(ROOT).as_posix()
    for name, line in _imports(path):
        if not name.startswith("eexit_cli."):
            continue
        other = name.split(".")[1]
        if other == room or (not (ROOT / other).is_dir() and not (ROOT / f"{other}.py").exists()):
            continue  # the room itself, or an attribute of the package such as __version__
        if (relative, other) in EXCEPTIONS:
            continue
        assert other in ALLOWED[room], f"{relative}:{line}: {room} must not import {other}"


@pytest.mark.parametrize("path", _files(), ids=_module)
def test_nothing_imports_click(path: Path) -> None:
    assert not [name for name, _ in _imports(path) if name.split(".")[0] == "click"]


@pytest.mark.parametrize(
    "path", [path for path in _files() if _room(path) in LIGHT_ROOMS], ids=_module
)
def test_light_rooms_import_nothing_heavy_at_module_level(path: Path) -> None:
    assert not {name.split(".")[0] for name in _module_level_imports(path)} & HEAVY


@pytest.mark.parametrize(
    "path", [path for path in _files() if _room(path) in TORCH_FREE], ids=_module
)
def test_torch_free_rooms_never_import_torch(path: Path) -> None:
    used = {name.split(".")[0] for name, _ in _imports(path)}
    assert not used & {"torch", "transformers", "textattack"}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        pytest.param(
            [_module(path) for path in _files() if _room(path) in LIGHT_ROOMS]
            + [_module(path) for path in _files() if path.parent.parent == ROOT
               and path.name == "__init__.py" and _room(path) not in ("pipelines", "families")],
            HEAVY,
            id="light rooms and catalogs",
        ),
        pytest.param(
            [_module(path) for path in _files() if _room(path) in TORCH_FREE],
            {"torch", "transformers", "textattack"},
            id="torch-free rooms",
        ),
    ],
)  # fmt: skip
def test_importing_loads_nothing_heavy(modules: list[str], forbidden: set[str]) -> None:
    """The same at run time, through everything that they import in turn."""
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({forbidden!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_exceptions_are_still_needed() -> None:
    for relative, other in EXCEPTIONS:
        names = [name for name, _ in _imports(ROOT / relative)]
        assert any(name.startswith(f"eexit_cli.{other}") for name in names), (relative, other)


NAMES_NO_FAMILY = ("pipelines", "commands", "plots", "ui/screens")
UNFINISHED = {
    "plots/transfer.py": "runs name their family's kind",
}
"""Where a family is still named, and why; a file that no longer does must go from here."""


def _family_names(path: Path) -> set[str]:
    """Families that a file imports, or names in a string."""
    families = set(FAMILIES)
    found = set()
    for name, _ in _imports(path):
        parts = name.split(".")
        if parts[:2] == ["eexit_cli", "families"] and len(parts) > 2 and parts[2] in families:
            found.add(parts[2])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in families:
            found.add(str(node.value))
    return found


def test_use_cases_name_no_family() -> None:
    """A pipeline puts models to use, whatever their family; so do screens and figures."""
    naming = {
        path.relative_to(ROOT).as_posix(): names
        for path in _files()
        if path.relative_to(ROOT).as_posix().startswith(NAMES_NO_FAMILY)
        and (names := _family_names(path))
    }
    known = tuple(UNFINISHED)
    assert not {name: names for name, names in naming.items() if not name.startswith(known)}
    for name in known:
        assert any(path.startswith(name) for path in naming), f"{name} names none any more"


def test_decoding_knows_no_model() -> None:
    """``models/decoding`` asks a Stack; what provides one imports it, not the other way round."""
    for path in (ROOT / "models" / "decoding").glob("*.py"):
        for name, line in _imports(path):
            other = name.split(".")[2] if name.startswith("eexit_cli.models.") else "decoding"
            assert other in ("decoding", "checkpoints", "finite"), f"{path.name}:{line}: {name}"


def test_command_bodies_are_short() -> None:
    """A command builds a configuration, calls one pipeline and renders: at most 30 lines."""
    for path in (ROOT / "commands").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.body[0].lineno < 30, f"{path.name}: {node.name}"


def test_files_stay_readable() -> None:
    """No file much over 400 lines; the list of options is a table and may be longer."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in _files()
    }
    too_long = {name: lines for name, lines in lengths.items() if lines > 450}
    assert too_long.keys() <= {"ui/options.py"}, too_long
    assert not [name for name in lengths if name.endswith("utils.py")]


def test_modules_import_one_another_in_no_circle() -> None:
    """At module level: such a circle imports or not depending on where it is entered."""
    modules = {_module(path): path for path in _files()}
    imports: dict[str, set[str]] = {}
    for name, path in modules.items():
        named = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (full | {node.module}) & modules.keys()
        # A package's own names come from its __init__, which is there before its modules are.
        imports[name] = {each for each in named if not f"{name}.".startswith(f"{each}.")}
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
