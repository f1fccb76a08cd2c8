"""What runs a classifier's layers."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.field import ENCODER, RUN, opt


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Torch, or ONNX Runtime."""

    runtime: str | None = opt(
        None,
        "What runs the layers: torch, onnx (ONNX Runtime) or onnx-int8 (the same with 8-bit "
        "weights); by default torch, and of an exported model what it is.",
        RUN,
        names="runtime",
        listed=True,
        families=(ENCODER,),
    )
