"""eexit: train, attack, calibrate, evaluate and plot early-exit (multi-exit) transformers.

Early exit is here that a sample, or a token, leaves after one of the layers and skips the others;
it is not that a model stops its reasoning early.

The command line is ``eexit_cli.main``. From Python the commands are functions of this package
(``import eexit_cli as eexit``): ``load``, ``evaluate``, ``predict``, ``attack``, ``calibrate``,
``train`` and ``plot``; see ``eexit_cli.api``.
"""

from typing import Any

__version__ = "0.1.0"

_API = ("attack", "calibrate", "evaluate", "load", "plot", "predict", "train")


def __getattr__(name: str) -> Any:
    """The functions of ``eexit_cli.api``, imported on first use."""
    if name not in _API:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from eexit_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
