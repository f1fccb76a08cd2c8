"""What an exported model's ``config.json`` says, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TORCH, ONNX, ONNX_INT8 = "torch", "onnx", "onnx-int8"

WEIGHTS = {ONNX: "float32", ONNX_INT8: "int8"}
"""Of the file that each runs."""

MODEL_FILE = "model.onnx"
"""Of an exported folder."""


def exported(settings: Mapping[str, Any]) -> str | None:
    """The runtime of a folder's ``config.json``; None for weights of torch."""
    if settings.get("runtime") != ONNX:
        return None
    return ONNX_INT8 if settings.get("weights") == WEIGHTS[ONNX_INT8] else ONNX
