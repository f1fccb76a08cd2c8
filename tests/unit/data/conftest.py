from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from eexit_cli.config.common import CommonConfig, DataConfig
from eexit_cli.core.progress import SilentProgress


@dataclass(frozen=True, kw_only=True)
class Config(CommonConfig, DataConfig):
    """What a command's configuration looks like to the loader."""


class Recorder(SilentProgress):
    """Keeps what the user would be told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def make_config() -> Callable[..., Any]:
    return Config


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
