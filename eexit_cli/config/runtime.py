"""What runs a classifier's layers, and what is exported to be run elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig, ExitConfig, UnseenDataConfig
from eexit_cli.config.field import ENCODER, OUTPUT, RUN, like, opt

TORCH, ONNX, ONNX_INT8 = "torch", "onnx", "onnx-int8"

WEIGHTS = {ONNX: "float32", ONNX_INT8: "int8"}
"""Of the file that each runtime runs."""


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


@dataclass(frozen=True, kw_only=True)
class ExportModelConfig(UnseenDataConfig, ExitConfig):
    """Which model becomes one ONNX file, with which exit, and what it is compared on."""

    model: str = like(
        CommonConfig,
        "model",
        default="",
        argument=True,
        metavar="MODEL",
        help="Model name, folder or hub id; of an exported one the exit's number is set anew.",
    )
    output: Path | None = opt(None, "Where the folder goes.", OUTPUT, metavar="DIR")
    weights: str | None = opt(
        None,
        "float32 (the default), or int8: a quarter of the size, faster, and a little less exact. "
        "An exported model keeps its own.",
        OUTPUT,
        names="exported weights",
        listed=True,
    )
    limit: int | None = like(
        DataConfig,
        "limit",
        default=500,
        help="Compare the file with the model on a seeded sample of N; 0 uses all.",
    )
    lower_case: bool | None = like(CommonConfig, "lower_case")
    label_names: tuple[str, ...] | None = like(CommonConfig, "label_names")
    seed: int = like(CommonConfig, "seed")
