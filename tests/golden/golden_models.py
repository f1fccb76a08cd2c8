"""Tiny models and data for the golden runs, the same bytes on every machine.

Weights come from NumPy's uniform generator, which has no transcendental functions in it: torch's
normal numbers differ in their last bit between processors.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

WORDS = (
    *("a", "the", "film", "movie", "story", "is", "was", "not", "never", "very", "good", "bad"),
    *("fine", "dull", "great", "awful", "funny", "boring", "moving", "weak", "strong", "fresh"),
    *("stale", "acting", "plot", "end", "scene", "cast", "script", "music", "slow", "quick"),
)
SPELT = ("queue", "knight", "a", "banana", "zephyr", "rhythms", "ox", "thoroughly", "it's", "eight")
PHONEMES = ("K", "AE", "T", "N", "AY", "OW", "B", "S")


def write_encoder(folder: Path) -> None:
    """A DeeBERT of four layers over :data:`WORDS`, with a default exit that some texts pass."""
    from transformers import BertTokenizerFast

    from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *WORDS]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces += [letter for letter in letters if letter not in pieces]
    pieces += [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    model = MultiExitClassifier(
        MultiExitConfig(
            backbone={
                "model_type": "bert",
                "vocab_size": len(pieces),
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "max_position_embeddings": 64,
            },
            family="deebert",
            pooling="first",
            exit_defaults={"criterion": "threshold", "confidence": "entropy", "threshold": 0.5},
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
        )
    )
    fill(model, seed=3, gain=1.6, exits=2.0)
    model.save_pretrained(folder)
    # By position: transformers 5 renamed vocab_file, and ignores the old name.
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)


def write_backbone(folder: Path) -> None:
    """A BERT of two layers without exits, to train from."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(folder.parent / "encoder")
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    )
    fill(model, seed=4, gain=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_decoder(folder: Path) -> None:
    """A CALM decoder of three layers with two classifiers, whose tokens leave at all of them."""
    from tiny_decoders import SHAPE

    from eexit_cli.confidence.decoder import build_classifier
    from eexit_cli.data.pronunciation import pronunciation_tokenizer
    from eexit_cli.models.t5.config import MultiExitT5Config
    from eexit_cli.models.t5.model import MultiExitT5

    names = ["linear", "transformer_mlp_64"]
    config = MultiExitT5Config(
        **SHAPE,
        classifiers=names,
        exit_defaults={"confidence": "softmax", "threshold": 0.12, "min_layer": 1},
        task="pronunciation",
        max_source_length=24,
        max_target_length=12,
    )
    model = MultiExitT5(config, {name: build_classifier(name, config.d_model) for name in names})
    fill(model, seed=5, gain=1.2)
    chance = np.random.default_rng(6)
    with torch.no_grad():
        # of both signs, or a tied head would repeat the token that it was given
        norm = model.decoder.final_layer_norm.weight
        norm.copy_(torch.from_numpy(8 * chance.random(norm.shape) - 4))
        for name, parameter in model.named_parameters():
            if name.startswith("decoder") and name.endswith("DenseReluDense.wo.weight"):
                # strong feed-forwards make the next token a wild function of the last one;
                # ReLU's positive mean, which would drown it, is cancelled
                parameter.copy_(4 * (parameter - parameter.mean(dim=1, keepdim=True)))
    model.save_pretrained(folder)
    pronunciation_tokenizer().save_pretrained(folder)


def write_causal(folder: Path) -> None:
    """A decoder-only model of three layers with a classifier, whose tokens leave at all of them."""
    from eexit_cli.confidence.decoder import build_classifier
    from eexit_cli.data.pronunciation import PROMPT, prompt_tokenizer
    from eexit_cli.models.causal.config import config_from
    from eexit_cli.models.causal.model import causal_class

    tokenizer = prompt_tokenizer()
    config = config_from(
        {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "classifiers": ["linear"],
            "exit_defaults": {"confidence": "softmax", "threshold": 0.12, "min_layer": 1},
            "task": "pronunciation",
            "prompt_template": PROMPT,
            "max_source_length": 32,
            "max_target_length": 12,
        }
    )
    model = causal_class("llama")(config, {"linear": build_classifier("linear", 32)})
    fill(model, seed=9, gain=1.5)
    with torch.no_grad():
        # Large embeddings keep the layers from overwriting each other's answers at once.
        model.word_embeddings.weight.mul_(2)
    model.generation_config.bos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fill(model: torch.nn.Module, *, seed: int, gain: float, exits: float = 1.0) -> None:
    """Uniform weights of variance gain^2 / inputs; norms near 1; exits' weights times ``exits``."""
    chance = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = math.sqrt(3) * (2 * torch.from_numpy(chance.random(parameter.shape)) - 1)
            if "norm" in name.lower() and name.endswith("weight"):
                values = 1 + 0.2 * noise
            elif parameter.dim() < 2:
                values = 0.1 * noise
            elif "embedding" in name or "shared" in name or "relative_attention" in name:
                values = noise
            else:
                values = noise * (gain / math.sqrt(parameter.shape[-1]))
            if name.startswith(("classifiers", "poolers")):
                values = values * exits
            parameter.copy_(values)


def write_reviews(path: Path) -> None:
    """Forty labelled sentences."""
    chance = np.random.default_rng(7)
    lines = ["text,label"]
    for index in range(40):
        words = " ".join(WORDS[chance.integers(len(WORDS))] for _ in range(8))
        lines.append(f"{words} {index % 2} .,{('negative', 'positive')[index % 2]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_words(path: Path) -> None:
    """Forty words with made-up pronunciations."""
    chance = np.random.default_rng(8)
    letters = "aeioubcdfgst"
    made = {"".join(letters[i] for i in chance.integers(12, size=4 + n % 5)) for n in range(30)}
    lines = ["source,target"]
    for word in [*SPELT, *sorted(made)]:
        sounds = " ".join(PHONEMES[i] for i in chance.integers(8, size=2 + len(word) // 2))
        lines.append(f"{word},{sounds}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_losses(path: Path) -> None:
    """Losses of 120 samples under five thresholds, cautious to eager."""
    chance = np.random.default_rng(9)
    lines = ["1.0,0.9,0.7,0.5,0.3"]
    for _ in range(120):
        lines.append(",".join(f"{value:.3f}" for value in np.sort(chance.random(5) ** 4 * 0.6)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
