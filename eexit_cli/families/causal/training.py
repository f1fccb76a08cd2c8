"""Training a decoder-only model with exits (LayerSkip), or classifiers of when tokens leave."""

from __future__ import annotations

from typing import Any

import torch

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config.field import CAUSAL
from eexit_cli.config.train import SOURCE_TOKENS, TARGET_TOKENS, TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.types import Examples
from eexit_cli.data.pronunciation import PROMPT as WORD_PROMPT
from eexit_cli.data.pronunciation import prompt_tokenizer
from eexit_cli.data.raw_text import Cutter, is_raw, refuse_raw
from eexit_cli.families.causal.model import CausalModel, load_causal_tokenizer, positions_of
from eexit_cli.families.causal.pieces import piece_tokens
from eexit_cli.families.causal.prompts import SOURCE, PromptBatcher, prompting
from eexit_cli.families.decoders.texts import PROMPT
from eexit_cli.families.decoders.training import DecoderJob, Kind, shape_of
from eexit_cli.families.decoders.training import plan as plan_of_kind
from eexit_cli.families.decoders.training_report import CardWords
from eexit_cli.families.training import Metrics, Plan, Rows
from eexit_cli.families.training_source import Source
from eexit_cli.models.causal.config import config_from
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.models.causal.model import causal_class
from eexit_cli.store.results import Run
from eexit_cli.training.batches import Tokenized

NEW_SHAPE = {"num_layers": 8, "d_model": 128, "d_ff": 384, "num_heads": 4}
"""Of a model that is trained from scratch, where nobody says; of Llama's layout."""

NEW_POSITIONS = 128


class CausalJob(DecoderJob):
    """See :class:`~eexit_cli.families.decoders.training.DecoderJob`."""

    words = CardWords(
        tag="layerskip",
        what="A decoder-only model",
        how="""whose tokens may leave after any layer (LayerSkip, ACL 2024,
arXiv:2404.16710; CALM, arXiv:2207.07061)""",
    )

    _given: tuple[Any, Any] | None = None
    _pieces: Cutter | None = None

    def new(self) -> tuple[Any, Any]:
        tokenizer = prompt_tokenizer()
        return tokenizer, new_llama(self.config, tokenizer)

    def cutter(self) -> Cutter | None:
        config = self.config
        if not is_raw(config.data_file) or self.source is None:
            return None
        for name in ("prompt_template", "chat", "max_target_length"):
            if getattr(config, name) is not None:
                refuse_raw(config.data_file, f"{flag(name)} says nothing of it")
        # The pieces are the tokenizer's, so that the model is loaded before the data.
        self._given = self.given(self.source)
        tokenizer, model = self._given
        length = piece_tokens(config.max_length, model.config, positions_of(model))
        self._pieces = Cutter(tokenizer, length)
        return self._pieces

    def given(self, source: Source) -> tuple[Any, Any]:
        if self._given is not None:
            return self._given
        model = load_causal(source.folder, build_classifier=build_classifier)
        recipe = self.purpose.recipe
        if model.config.exit_modules and not (recipe is not None and recipe.own_exits):
            raise UsageError(
                f"'{source.name}' has exits of its own (EE-LLM, Balcony): this trains none",
                hint="Add --strategy balcony, or start from the model without them, whose layers "
                "share its norm and head",
            )
        return load_causal_tokenizer(source.folder, self.config.lower_case), model

    def load(self) -> None:
        super().load()
        config, model = self.config, self.model
        if self._pieces is not None:
            self.max_source, self.max_target = self._pieces.length, self._pieces.length - PROMPT
        self.prompting = prompting(
            config.prompt_template,
            config.chat,
            model.config,
            SOURCE if self.info.raw_text else self.info.extra.get("prompt_template"),
            self.tokenizer,
        )
        # What has learned raw text knows no prompt of its own: a task's will do.
        if self.purpose.strategy is not None and not self.info.raw_text:
            model.config.prompt_template = self.prompting.template
            model.config.chat = self.prompting.chat

    def longest(self) -> tuple[int, int]:
        positions = positions_of(self.model)
        target = min(TARGET_TOKENS, positions // 2)
        return min(SOURCE_TOKENS, positions - target), target

    def loaded_model(self, dtype: torch.dtype) -> CausalModel:
        return CausalModel(
            **self.loaded(dtype),
            max_length=self.max_source,
            max_new_tokens=self.max_target,
            prompting=self.prompting,
        )

    def measure(self, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
        found = super().measure(run, dtype)
        if self._pieces is not None and self.purpose.strategy is not None:
            # What it writes after a text that is typed in is as long as nobody says.
            self.model.config.max_target_length = None
        return found

    def tokenized(self, examples: Examples) -> Tokenized:
        if self._pieces is not None:
            return Tokenized.of_pieces(list(examples.dataset["tokens"]), PROMPT)
        ends = sorted(self.model.config.end_tokens)
        return Tokenized.of_prompts(
            PromptBatcher(self.tokenizer, self.max_source, self.prompting),
            self.tokenizer,
            list(examples.dataset["source"]),
            list(examples.dataset["target"]),
            max_target=self.max_target,
            end=ends[0] if self.tokenizer.eos_token_id not in ends and ends else None,
        )


KIND = Kind(
    family=CAUSAL,
    title="a new decoder-only model",
    bundled="layerskip",
    strategy="layerskip",
    backbone="HuggingFaceTB/SmolLM2-135M",
    job=CausalJob,
)


def plan(config: TrainConfig) -> Plan:
    """See :func:`eexit_cli.families.decoders.training.plan`."""
    return plan_of_kind(config, KIND)


def new_llama(config: TrainConfig, tokenizer: Any) -> Any:
    """A Llama with random weights for this tokenizer.

    Raises:
        UsageError: a shape that cannot be.
    """
    shape = shape_of(config, NEW_SHAPE)
    settings = config_from(
        {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": shape["d_model"],
            "intermediate_size": shape["d_ff"],
            "num_hidden_layers": shape["num_layers"],
            "num_attention_heads": shape["num_heads"],
            "num_key_value_heads": shape["num_heads"],
            "max_position_embeddings": NEW_POSITIONS,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "prompt_template": WORD_PROMPT,
        }
    )
    model = causal_class("llama")(settings)
    model.generation_config.bos_token_id = None
    return model
