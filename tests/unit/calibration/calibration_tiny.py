"""A tiny random classifier in a folder, its data, and losses with known means."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertTokenizerFast

from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.data import load_examples
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

WORDS = ("a", "bad", "brilliant", "dull", "film", "good", "gripping", "is", "not", "the", "very")


def tiny_model(
    folder: Path,
    *,
    family: str = "deebert",
    layers: int = 4,
    classes: int = 2,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """A model whose exits disagree often, saved as ``eexit train`` would."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = MultiExitConfig(
        backbone={
            "model_type": "bert",
            "hidden_size": 16,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": len(pieces),
            "max_position_embeddings": 40,
        },
        family=family,
        num_labels=classes,
        **settings,
    )
    model = MultiExitClassifier(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 1.5 if name.startswith("classifiers") else 0.3
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(scale * noise + (1.0 if "LayerNorm.weight" in name else 0.0))
    model.save_pretrained(folder)
    return folder


def tiny_data(path: Path, *, samples: int = 120, seed: int = 0) -> Path:
    """A CSV of random sentences, no two alike, with random labels."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        seen: set[str] = set()
        while len(seen) < samples:
            text = " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))
            if text not in seen:
                seen.add(text)
                writer.writerow([text, rng.choice(["LABEL_0", "LABEL_1"])])
    return path


THRESHOLDS = tuple(round(1 - 0.05 * step, 2) for step in range(20))


def graded_losses(samples: int = 400, *, top: float = 0.4, seed: int = 0) -> np.ndarray:
    """Losses whose mean rises along the sequence from 0 to ``top``. Shape: [samples, 20]."""
    means = np.linspace(0.0, top, len(THRESHOLDS))
    return means * (0.5 + np.random.default_rng(seed).random((samples, 1)))


def ids_and_texts(path: Path) -> tuple[list[str], list[str]]:
    """Of :func:`tiny_data`, in the order of the file, with the ids that eexit gives them."""
    examples = load_examples(
        CalibrateConfig(data_file=path),
        default_split="test",
        label_names=("LABEL_0", "LABEL_1"),
    )
    return list(examples.dataset["id"]), list(examples.dataset["text"])


def labels_of(path: Path) -> list[int]:
    """Of :func:`tiny_data`, in the order of the file."""
    with path.open(encoding="utf-8") as stream:
        return [int(row["label"][-1]) for row in csv.DictReader(stream)]
