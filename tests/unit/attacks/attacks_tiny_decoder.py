"""Small decoder victims, for letters and for words."""

from __future__ import annotations

from typing import Any

import torch
from tiny_decoders import random_decoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.decoder_victim import DecoderVictim
from eexit_cli.confidence.decoder import build_measure
from eexit_cli.data.pronunciation import pronunciation_tokenizer
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.families.decoders.attack_exits import exit_reader
from eexit_cli.models.batching import TextBatcher
from eexit_cli.models.decoding.settings import DecodeSettings

THRESHOLDS = {"softmax": 0.5, "saturation": 0.7, "linear": 0.5, "transformer_mlp_64": 0.5}

# fmt: off
VOCABULARY = (
    "say", "the", "a", "of", "film", "story", "plot", "cast", "dull", "bright", "slow", "quick",
    "long", "short", "warm", "cold", "great", "small", "actor", "scene", "music", "ending",
    "summer", "winter", "river", "mountain", "letter", "window", "garden", "street",
)
# fmt: on
SENTENCES = (
    "the long story of a dull film",
    "a bright summer scene",
    "quick music and warm letter window garden street river",
)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words with spaces between; ``</s>`` ends every sequence."""
    symbols = ("<pad>", "</s>", "<unk>", *VOCABULARY)
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class _Loaded:
    """As much of ``LoadedDecoder`` as the exit reader asks for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_layers = model.depth
        self.exit_layers = tuple(range(1, model.depth + 1))


def decoder_victim(
    confidence: str = "softmax",
    *,
    seed: int = 0,
    words: bool = False,
    budget: int | None = None,
    prefix: str = "",
    dtype: torch.dtype = torch.float32,
    threshold: float | None = None,
    batch_size: int = 16,
    **options: Any,
) -> DecoderVictim:
    """A victim that leaves by ``confidence``; ``options`` are those of ``DecodeSettings``."""
    tokenizer = word_tokenizer() if words else pronunciation_tokenizer()
    classifiers = () if confidence in ("softmax", "saturation") else (confidence,)
    shape = {"vocab_size": len(tokenizer)} if words else {}
    model = random_decoder(seed, classifiers=classifiers, **shape).to(dtype)
    model.requires_grad_(False)
    settings = DecodeSettings(
        max_new_tokens=10,
        measure=build_measure(confidence, dict(model.cm_heads.items())),
        rule=TokenThreshold(THRESHOLDS[confidence] if threshold is None else threshold),
        **options,
    )
    return DecoderVictim(
        model,
        TextBatcher(tokenizer, 24),
        settings,
        exit_reader(_Loaded(model), settings),  # type: ignore[arg-type]
        Budget(budget),
        prefix=prefix,
        batch_size=batch_size,
    )
