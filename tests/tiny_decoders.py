"""Tiny random decoders with exits, saved as ``eexit`` saves them: T5s that spell phonemes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.data.pronunciation import SYMBOLS, pronunciation_tokenizer
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.model import MultiExitT5

SHAPE: dict[str, Any] = {
    "vocab_size": len(SYMBOLS),
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "feed_forward_proj": "relu",
    "tied_head": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
DEFAULTS = {"confidence": "softmax", "threshold": 0.5, "min_layer": 1}


def random_decoder(
    seed: int = 0, *, classifiers: tuple[str, ...] | None = None, **settings: Any
) -> MultiExitT5:
    """A model whose tokens vary, and leave at all of its layers.

    Args:
        classifiers: names; None is all six.
        **settings: of :class:`MultiExitT5Config`, over :data:`SHAPE`.
    """
    names = list(CLASSIFIERS) if classifiers is None else list(classifiers)
    config = MultiExitT5Config(
        **{
            **SHAPE,
            "classifiers": names,
            "exit_defaults": DEFAULTS,
            "task": "pronunciation",
            "max_source_length": 24,
            "max_target_length": 12,
            **settings,
        }
    )
    model = MultiExitT5(config, {name: build_classifier(name, config.d_model) for name in names})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "decoder.final_layer_norm.weight":
                # of both signs, or a tied head would repeat the token that it was given
                parameter.copy_(2 * noise)
            elif "layer_norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif "relative_attention_bias" in name or name == "shared.weight":
                parameter.copy_(noise)
            elif name.startswith("decoder") and name.endswith("DenseReluDense.wo.weight"):
                # strong feed-forwards make the next token a wild function of the last one;
                # ReLU's positive mean, which would drown it, is cancelled
                noise -= noise.mean(dim=1, keepdim=True)
                parameter.copy_(noise * (5 / math.sqrt(parameter.shape[-1])))
            else:
                parameter.copy_(noise * (1.2 / math.sqrt(parameter.shape[-1])))
    return model.eval()


def save_decoder(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A model folder with its tokenizer; ``settings`` are those of :func:`random_decoder`."""
    random_decoder(seed, **settings).save_pretrained(folder)
    pronunciation_tokenizer().save_pretrained(folder)
    return folder


def save_plain_t5(folder: Path) -> Path:
    """The same shape in transformers' own layout, with one of DL2-CALM's classifiers absent."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = {name: value for name, value in SHAPE.items() if name != "tied_head"}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(folder)
    pronunciation_tokenizer().save_pretrained(folder)
    return folder


WORDS = ("queue", "knight", "a", "banana", "zephyr", "rhythms", "ox", "thoroughly", "it's", "eight")


def write_pairs(path: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A CSV of words with made-up pronunciations."""
    lines = [f"{word},{' '.join(['K', 'AE', 'T'] * (1 + len(word) // 4))}" for word in words]
    path.write_text("\n".join(["source,target", *lines]) + "\n", encoding="utf-8")
    return path
