"""Training a T5 whose tokens may leave early (CALM, FREE), or classifiers of when they may."""

from __future__ import annotations

from typing import Any

import torch

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config.field import SEQ2SEQ
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.types import Examples
from eexit_cli.data.pronunciation import pronunciation_tokenizer
from eexit_cli.families.decoders.training import DecoderJob, Kind, shape_of
from eexit_cli.families.decoders.training import plan as plan_of_kind
from eexit_cli.families.decoders.training_report import CardWords
from eexit_cli.families.seq2seq.model import Seq2SeqModel, load_decoder_tokenizer
from eexit_cli.families.training import Plan
from eexit_cli.families.training_source import Source
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.training.batches import Tokenized

NEW_SHAPE = {"num_layers": 6, "num_decoder_layers": 6, "d_model": 128, "d_ff": 512, "num_heads": 4}
"""Of a T5 that is trained from scratch, where nobody says."""
NEW_DROPOUT = 0.1


class T5Job(DecoderJob):
    """See :class:`~eexit_cli.families.decoders.training.DecoderJob`."""

    words = CardWords(
        tag="calm",
        what="A T5",
        how="""whose tokens may leave the decoder early (CALM, NeurIPS 2022,
arXiv:2207.07061)""",
    )

    def new(self) -> tuple[Any, MultiExitT5]:
        tokenizer = pronunciation_tokenizer()
        return tokenizer, new_t5(self.config, tokenizer)

    def given(self, source: Source) -> tuple[Any, MultiExitT5]:
        model = load_seq2seq(source.folder, build_classifier=build_classifier)
        return load_decoder_tokenizer(source.folder, self.config.lower_case), model

    def loaded_model(self, dtype: torch.dtype) -> Seq2SeqModel:
        return Seq2SeqModel(
            **self.loaded(dtype), max_length=self.max_source, max_new_tokens=self.max_target
        )

    def tokenized(self, examples: Examples) -> Tokenized:
        return Tokenized.of_pairs(
            self.tokenizer,
            list(examples.dataset["source"]),
            list(examples.dataset["target"]),
            max_source=self.max_source,
            max_target=self.max_target,
        )


KIND = Kind(
    family=SEQ2SEQ,
    title="a new T5",
    bundled="calm",
    strategy="weighted-ce",
    backbone="google-t5/t5-small",
    job=T5Job,
)


def plan(config: TrainConfig) -> Plan:
    """See :func:`eexit_cli.families.decoders.training.plan`."""
    return plan_of_kind(config, KIND)


def new_t5(config: TrainConfig, tokenizer: Any) -> MultiExitT5:
    """A T5 with random weights for this tokenizer.

    Raises:
        UsageError: a shape that cannot be.
    """
    shape: dict[str, Any] = shape_of(config, NEW_SHAPE)
    return MultiExitT5(
        MultiExitT5Config(
            vocab_size=len(tokenizer),
            d_kv=shape["d_model"] // shape["num_heads"],
            dropout_rate=NEW_DROPOUT,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            **shape,
        )
    )
