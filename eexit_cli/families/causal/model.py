"""Decoder-only models as the use cases know a model, and how one is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from eexit_cli.config.field import CAUSAL
from eexit_cli.core.answers import Exit, Knob
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import Examples
from eexit_cli.data import TASKS
from eexit_cli.data.raw_text import Cutter, is_raw
from eexit_cli.families.causal.pieces import (
    learned_raw,
    piece_tokens,
    reads_raw,
    refuse_exits,
    refuse_text,
    without_source_prefix,
)
from eexit_cli.families.causal.prompts import SOURCE, PromptBatcher, Prompting, prompting
from eexit_cli.families.data import parted_by_training
from eexit_cli.families.decoders.loading import NEW_TOKENS, new_tokens, opened
from eexit_cli.families.decoders.model import TextModel
from eexit_cli.families.loading import LoadingConfig, load_tokenizer
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.store.models import config_of, is_causal

POSITIONS = 1 << 20
"""Of a model whose configuration names no end of them."""


@dataclass(frozen=True)
class CausalModel(TextModel):
    """A decoder-only model.

    Attributes:
        prompting: what stands around each source.
    """

    family: ClassVar[str] = CAUSAL

    prompting: Prompting = field(default_factory=Prompting)

    def examples(self, config: Any, *, default_split: str, progress: Progress) -> Examples:
        if is_raw(config.data_file):
            config = without_source_prefix(config, self.source_prefix)
        return super().examples(config, default_split=default_split, progress=progress)

    def cutter(self, config: Any) -> Cutter | None:
        if not is_raw(config.data_file):
            return None
        stored = self.model.config
        length = piece_tokens(config.max_length, stored, positions_of(self.model))
        other = config.max_length is not None and length != stored.max_source_length
        if (
            other
            and not config.include_training_rows
            and parted_by_training(stored.training, config.data_file)
        ):
            raise UsageError(
                f"Model '{self.name}' was trained on pieces of {stored.max_source_length} tokens "
                f"of {config.data_file.name}: with --max-length {length} its training text would "
                "get in",
                hint="Leave --max-length out, or add --include-training-rows, with which nothing "
                "is promised",
            )
        return Cutter(self.tokenizer, length)

    def exit(self, options: Any) -> Exit:
        found = super().exit(options)
        if is_raw(getattr(options, "data_file", None)):
            refuse_exits(options, found.described)
        return found

    def knobs(self, config: Any) -> list[Knob]:
        refuse_text(config, self.model.config.training, "calibrate")
        return super().knobs(config)

    def ready_to_attack(self, config: Any, examples: Examples, progress: Progress) -> Any:
        refuse_text(config, self.model.config.training, "attack")
        return super().ready_to_attack(config, examples, progress)

    def batcher(self) -> PromptBatcher:
        return PromptBatcher(self.tokenizer, self.max_length, self.prompting)

    def conditions(self, prefix: str) -> dict[str, Any]:
        return {
            **super().conditions(prefix),
            "prompt_template": self.prompting.template,
            "chat": self.prompting.chat,
        }


def load_causal_model(config: LoadingConfig, *, progress: Progress | None = None) -> CausalModel:
    """Load what ``config.model`` names: ours, or any checkpoint of a known architecture.

    Args:
        config: ``config.common.CommonConfig`` or anything with its attributes, and those of
            ``config.decoder.DecoderConfig`` where it has them.
        progress: told what a user should know of the checkpoint.

    Raises:
        UsageError: an unknown name, device or dtype, a length or a prompt that cannot be, or
            generation settings that are not greedy decoding's.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no such model or is damaged.
    """
    found = opened(
        config,
        check=_check,
        load=load_causal,
        tokenizer_of=load_causal_tokenizer,
        progress=progress,
    )
    model, name = found["model"], found["ref"].name
    asked = getattr(config, "prompt_template", None), getattr(config, "chat", None)
    # Half of few positions is left to the prompt.
    default = min(NEW_TOKENS, max(1, positions_of(model) // 2))
    new = new_tokens(getattr(config, "max_new_tokens", None), model, default)
    # Of raw text it is that of the pieces, which may take all positions.
    raw = reads_raw(config, model.config.training)
    length = None if raw else config.max_length
    template = _of_task(config, model)
    loaded = CausalModel(
        **found,
        max_length=prompt_tokens(length, new, model),
        max_new_tokens=new,
        prompting=prompting(*asked, model.config, template, found["tokenizer"]),
    )
    if progress is not None and not model.config.training and not model.config.exit_defaults:
        progress.message(
            f"{name}: every layer answers through the model's own norm and head; where its "
            f"layers were not trained for that: eexit train --model layerskip --backbone {name}"
        )
    return loaded


def _check(folder: Path, name: str) -> None:
    if not is_causal(config_of(folder) or {}):
        raise UsageError(
            f"Model '{name}' is no decoder-only model",
            hint="Use one such as layerskip: eexit models list",
        )


def _of_task(config: Any, model: Any) -> str | None:
    name = getattr(config, "task", None) or model.config.task
    if name is None or name not in TASKS:
        return SOURCE if learned_raw(model.config.training) else None
    template: str | None = TASKS.load(name).info.extra.get("prompt_template")
    return template


def load_causal_tokenizer(folder: Path, lower_case: bool | None = None) -> Any:
    """The fast tokenizer of a folder, with something to pad with."""
    from transformers import LlamaConfig

    tokenizer = load_tokenizer(folder, backbone=LlamaConfig(), lower_case=lower_case)
    if tokenizer.pad_token_id is None:
        # Padding is masked, so that any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def positions_of(model: Any) -> int:
    """Tokens of prompt and output together that the model has positions for."""
    config = model.config
    stated = getattr(config, "max_position_embeddings", None) or getattr(
        config, "n_positions", None
    )
    scaled = getattr(config, "rope_scaling", None) or getattr(config, "rope_parameters", None) or {}
    kind = scaled.get("rope_type", scaled.get("type"))
    if kind in ("longrope", "dynamic"):
        # Their frequencies depend on the length of the whole text: one set is used here.
        stated = (
            getattr(config, "original_max_position_embeddings", None)
            or scaled.get("original_max_position_embeddings")
            or stated
        )
    return int(stated or POSITIONS)


def prompt_tokens(asked: int | None, new: int, model: Any) -> int:
    """The longest prompt.

    Raises:
        UsageError: nothing is left of the positions beside the output, or more is asked for.
    """
    positions = positions_of(model)
    room = positions - new
    if room < 1:
        raise UsageError(
            f"The model has {positions} positions, and outputs may take {new} of them: no prompt "
            "fits beside them",
            hint=f"Give --max-new-tokens below {positions}",
        )
    if asked is None:
        trained = model.config.max_source_length
        return room if trained is None else min(int(trained), room)
    if asked < 1 or asked > room:
        raise UsageError(
            f"--max-length {asked} does not fit: the model has {positions} positions, {new} of "
            "them for the output",
            hint=f"Give 1 to {room}, or change --max-new-tokens",
        )
    return asked
