"""Settings of ``eexit evaluate`` and ``eexit predict``."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import CommonConfig, DataConfig, ExitConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CommonConfig, DataConfig, ExitConfig):
    """Quality against speed.

    Attributes:
        sweep: every threshold from one pass, instead of one setting.
        latency_samples: samples timed at batch 1, live exits against the full model; 0 skips
            the timing and says so.
    """

    sweep: bool = False
    latency_samples: int = 100


@dataclass(frozen=True, kw_only=True)
class PredictConfig(CommonConfig, ExitConfig):
    """What each exit thinks of a text, and where it leaves."""

    texts: tuple[str, ...] = ()
    text_pair: str | None = None
