"""An encoder-decoder in memory: its tokenizer, its device, how long its texts may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.models.batching import TextBatcher
from eexit_cli.store.models import ModelRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eexit_cli.core.protocols import Crew


@dataclass(frozen=True)
class LoadedDecoder:
    """An encoder-decoder with its tokenizer, on its device.

    Attributes:
        ref: what ``--model`` meant.
        folder: where its files lie.
        model: in eval mode, on the device.
        tokenizer: a fast tokenizer.
        device, dtype: of the weights and activations.
        max_length: tokens per source, the end token included; longer ones are cut.
        max_new_tokens: longest output, the end token included.
        crew: does the passes over many samples; None does them here.
    """

    ref: ModelRef
    folder: Path
    model: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    max_length: int
    max_new_tokens: int
    crew: Crew | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def num_layers(self) -> int:
        """L, of the decoder: exit layers count from 1 to this."""
        return self.model.depth

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that tokens can leave after, the last one included."""
        layers: tuple[int, ...] = self.model.exit_layers
        return layers

    @property
    def exit_defaults(self) -> dict[str, Any]:
        """The exit used when the user gives none; empty is the full model."""
        return dict(self.model.config.exit_defaults)

    @property
    def trained_on(self) -> str | None:
        """The task that it was trained on, where known."""
        task: str | None = self.model.config.task
        return task

    @property
    def source_prefix(self) -> str | None:
        """Text before each source that it was trained with; None where the task decides."""
        prefix: str = self.model.config.source_prefix
        return prefix if prefix or self.trained_on is not None else None

    def batcher(self) -> Any:
        """A new tokenising batcher, whose count of cut sources starts at 0."""
        return TextBatcher(self.tokenizer, self.max_length)
