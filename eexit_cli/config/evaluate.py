"""Settings of ``eexit evaluate`` and ``eexit predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig, ExitConfig, UnseenDataConfig
from eexit_cli.config.decoder import DecoderConfig, DecoderExitConfig, ExitGridConfig
from eexit_cli.config.energy import EnergyConfig
from eexit_cli.config.engine import EngineConfig
from eexit_cli.config.field import DATA, ENCODER, EVALUATION, like, opt
from eexit_cli.config.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    CommonConfig,
    UnseenDataConfig,
    ExitGridConfig,
    DecoderConfig,
    EnergyConfig,
    EngineConfig,
):
    """Quality against speed, at one setting, at several (a row each), or at all of them."""

    runtime: str | tuple[str, ...] | None = like(
        RuntimeConfig,
        "runtime",
        several=True,
        help="What runs the layers: torch, onnx (ONNX Runtime) or onnx-int8 (the same with 8-bit "
        "weights); by default torch, and of an exported model what it is. Several give one row "
        "each, timed in turn.",
    )
    sweep: bool = opt(
        False, "Every threshold, not one setting; --confidence says of which measures.", EVALUATION
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(CommonConfig, ExitConfig, DecoderExitConfig, RuntimeConfig):
    """What each exit thinks of a text, and where it leaves."""

    texts: tuple[str, ...] = opt(
        (),
        "What to classify or to decode; '-', or nothing where something is piped in, reads one "
        "text per line of standard input.",
        argument=True,
        metavar="TEXT",
    )
    file: Path | None = opt(None, "One text per line, in UTF-8.", DATA, metavar="FILE")
    text_pair: str | None = opt(
        None, "The second text of a pair task.", DATA, metavar="TEXT", families=(ENCODER,)
    )
