"""What an exported model's ``config.json`` says, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.config.runtime import ONNX, ONNX_INT8, WEIGHTS

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit


def exported(settings: Mapping[str, Any]) -> str | None:
    """The runtime of a folder's ``config.json``; None for weights of torch."""
    if settings.get("runtime") != ONNX:
        return None
    return ONNX_INT8 if settings.get("weights") == WEIGHTS[ONNX_INT8] else ONNX


def runtime_of(exit: Exit, runtimes: Sequence[str]) -> str:
    """What runs an exit: what it names, or the first."""
    return str(exit.described.get("runtime", runtimes[0]))
