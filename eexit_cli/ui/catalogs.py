"""The names that an option can take: from the catalogs, without importing what they stand for.

The catalogs are named by their lazy targets, as entries of a catalog themselves, so that help
and completion load one light ``__init__`` at a time and ``tests/contracts`` finds them all.
"""

from __future__ import annotations

from typing import Any

from eexit_cli.core import plugins
from eexit_cli.core.catalog import Catalog, unknown_name

CATALOGS = Catalog(
    "catalog",
    {
        "recipe": "eexit_cli.attacks:ATTACKS",
        "decoder recipe": "eexit_cli.attacks:DECODER_ATTACKS",
        "source of substitutes": "eexit_cli.attacks:SUBSTITUTES",
        "task": "eexit_cli.data:TASKS",
        "confidence measure": "eexit_cli.confidence:MEASURES",
        "any confidence measure": "eexit_cli.confidence:EVERY_MEASURE",
        "exit criterion": "eexit_cli.exits:CRITERIA",
        "backbone": "eexit_cli.models:BACKBONES",
        "training strategy": "eexit_cli.training:STRATEGIES",
        "any training strategy": "eexit_cli.training:EVERY_STRATEGY",
        "confidence classifier": "eexit_cli.confidence:CLASSIFIERS",
        "figure": "eexit_cli.plots:FIGURES",
        "p-value": "eexit_cli.calibration.p_values:P_VALUES",
        "testing procedure": "eexit_cli.calibration:PROCEDURES",
        "consistency": "eexit_cli.calibration:CONSISTENCIES",
        "text metric": "eexit_cli.calibration:TEXT_METRICS",
        "recorded command": "eexit_cli.ui.screens:SCREENS",
    },
)

FIXED: dict[str, tuple[str, ...]] = {
    "model family": ("auto", "deebert", "pabee", "calm", "layerskip"),
    "optimizer": ("adamw", "sgd", "adafactor"),
    "distillation": ("dynamic", "uniform", "last", "none"),
    "curriculum": ("rotating", "gradual", "none"),
    "vocabulary rule": ("texts", "frequency"),
    "label kind": ("class", "number"),
    "pooling": ("first", "mean"),
    "compatibility": ("upstream",),
    "decoder score": ("layers-per-token", "total-layers", "output-length", "acceptance"),
    "threshold decay": ("paper", "code", "none"),
    "engine": ("local", "ray"),
    "dtype": ("float32", "bfloat16", "float16", "float64"),
    "weights": ("float", "int8"),
    "runtime": ("torch", "onnx", "onnx-int8"),
    "exported weights": ("float32", "int8"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "split": ("train", "validation", "calibration", "test"),
    "figure format": ("png", "svg", "pdf"),
    "table format": ("table", "json", "csv", "markdown", "latex"),
}
"""Names that are no catalog: nobody adds to them by adding a file."""


CALIBRATED = "calibrated criterion"
"""The kind of those exit criteria that say what a calibration may turn."""


def names(kind: str) -> list[str]:
    """All names of a kind, in their catalog's order."""
    if kind == CALIBRATED:
        working = CATALOGS.load("exit criterion").working()
        return [name for name, criterion in working if criterion.can_be_calibrated()]
    return list(FIXED[kind] if kind in FIXED else CATALOGS.load(kind))


def check(kind: str, name: str) -> str:
    """The registered name behind a name or an alias.

    Raises:
        UsageError: the name is unknown; the hint lists the nearest and the available ones.
    """
    if kind in CATALOGS:
        return str(CATALOGS.load(kind).canonical(name))
    if name not in names(kind):
        raise unknown_name(kind, name, names(kind))
    return name


def entries(kind: str) -> list[Any]:
    """Everything in a catalog that loads, in its order; for catalogs whose entries are light."""
    return [entry for _, entry in CATALOGS.load(kind).working()]


def problems(kind: str) -> dict[str, str]:
    """Entries of other packages that cannot be used, and why; see ``Catalog.problems``."""
    found: dict[str, str] = CATALOGS.load(kind).problems()
    return found


def every_problem() -> list[str]:
    """The same of all kinds, as far as it is known, without a look where there is nothing."""
    kinds = CATALOGS if plugins.installed() else ()
    return list(dict.fromkeys(said for kind in kinds for said in problems(kind).values()))
