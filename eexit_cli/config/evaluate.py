"""Settings of ``eexit evaluate`` and ``eexit predict``."""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.config.common import (
    CommonConfig,
    DecoderConfig,
    DecoderExitConfig,
    ExitConfig,
    ExitGridConfig,
    TimingConfig,
    UnseenDataConfig,
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CommonConfig, UnseenDataConfig, ExitGridConfig, DecoderConfig, TimingConfig):
    """Quality against speed, at one setting, at several (a row each), or at all of them.

    Attributes:
        sweep: every threshold from one pass, instead of one setting.
    """

    sweep: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictConfig(CommonConfig, ExitConfig, DecoderExitConfig):
    """What each exit thinks of a text, and where it leaves."""

    texts: tuple[str, ...] = ()
    text_pair: str | None = None
