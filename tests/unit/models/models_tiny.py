"""Tiny random models, and checkpoints written by hand in exactly the published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

HIDDEN, FEED_FORWARD, VOCABULARY, POSITIONS, EMBEDDING = 16, 32, 60, 40, 8

WORDS = [
    "a",
    "bad",
    "brilliant",
    "dull",
    "film",
    "good",
    "gripping",
    "is",
    "not",
    "the",
    "un",
    "##lit",
]


def tiny_backbone(model_type: str, layers: int = 3) -> dict[str, Any]:
    """Settings of a tiny encoder; the common names serve every architecture."""
    return {
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": FEED_FORWARD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "embedding_size": EMBEDDING,
        "pad_token_id": 1,
    }


def random_model(
    model_type: str = "bert",
    *,
    family: str = "deebert",
    layers: int = 3,
    classes: int = 2,
    pooling: str = "first",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **settings: Any,
) -> MultiExitClassifier:
    """A model whose exits are unsure and disagree, so that rows leave all over the place."""
    config = MultiExitConfig(
        backbone=tiny_backbone(model_type, layers),
        family=family,
        pooling=pooling,
        num_labels=classes,
        **settings,
    )
    model = MultiExitClassifier(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            scale = next((size for part, size in _SCALES.items() if part in name), 0.3)
            value.copy_(scale * noise + (1.0 if "orm.weight" in name else 0.0))
    return model


def random_batch(
    lengths: list[int], *, seed: int = 0, padded_to: int | None = None
) -> dict[str, Tensor]:
    """Right-padded input ids and mask. Shape of each: [batch, tokens]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = max([*lengths, padded_to or 0])
    ids = torch.randint(2, VOCABULARY, (len(lengths), tokens), generator=generator)
    mask = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


# The words must outweigh what is the same for every input.
_SCALES = {"word_embeddings": 2.0, "bias": 0.05, "classifiers": 0.5}


# --- published layouts: names and shapes, spelled out -------------------------------------------


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int = HIDDEN) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _embeddings(prefix: str, width: int, segments: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.embeddings.word_embeddings.weight": (VOCABULARY, width),
        f"{prefix}.embeddings.position_embeddings.weight": (POSITIONS, width),
        f"{prefix}.embeddings.token_type_embeddings.weight": (segments, width),
        **_norm(f"{prefix}.embeddings.LayerNorm", width),
    }


def bert_shapes(prefix: str, layers: int) -> dict[str, tuple[int, ...]]:
    """``bert.*`` or ``roberta.*``: embeddings, layers and pooler."""
    shapes = _embeddings(prefix, HIDDEN, 1 if prefix == "roberta" else 2)
    for index in range(layers):
        layer = f"{prefix}.encoder.layer.{index}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{name}", HIDDEN, HIDDEN)
        shapes |= _linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm")
        shapes |= _linear(f"{layer}.intermediate.dense", FEED_FORWARD, HIDDEN)
        shapes |= _linear(f"{layer}.output.dense", HIDDEN, FEED_FORWARD)
        shapes |= _norm(f"{layer}.output.LayerNorm")
    return shapes | _linear(f"{prefix}.pooler.dense", HIDDEN, HIDDEN)


def albert_shapes() -> dict[str, tuple[int, ...]]:
    """``albert.*``: one layer shared by all, and a pooler without ``dense``."""
    shapes = _embeddings("albert", EMBEDDING, 2)
    shapes |= _linear("albert.encoder.embedding_hidden_mapping_in", HIDDEN, EMBEDDING)
    layer = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    for name in ("query", "key", "value", "dense"):
        shapes |= _linear(f"{layer}.attention.{name}", HIDDEN, HIDDEN)
    shapes |= _norm(f"{layer}.attention.LayerNorm") | _norm(f"{layer}.full_layer_layer_norm")
    shapes |= _linear(f"{layer}.ffn", FEED_FORWARD, HIDDEN)
    shapes |= _linear(f"{layer}.ffn_output", HIDDEN, FEED_FORWARD)
    return shapes | _linear("albert.pooler", HIDDEN, HIDDEN)


def deebert_shapes(prefix: str, layers: int, classes: int = 2) -> dict[str, tuple[int, ...]]:
    shapes = bert_shapes(prefix, layers)
    for index in range(layers):  # the last one too, although nobody trained it
        highway = f"{prefix}.encoder.highway.{index}"
        shapes |= _linear(f"{highway}.pooler.dense", HIDDEN, HIDDEN)
        shapes |= _linear(f"{highway}.classifier", classes, HIDDEN)
    return shapes | _linear("classifier", classes, HIDDEN)


def pabee_shapes(prefix: str, layers: int, classes: int = 2) -> dict[str, tuple[int, ...]]:
    shapes = albert_shapes() if prefix == "albert" else bert_shapes(prefix, layers)
    for index in range(layers):
        shapes |= _linear(f"classifiers.{index}", classes, HIDDEN)
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.3 * torch.randn(shape, generator=generator)
        + (1.0 if name.lower().endswith("norm.weight") else 0.0)
        for name, shape in shapes.items()
    }


def published_config(model_type: str, layers: int) -> dict[str, Any]:
    """``config.json`` as transformers 2 wrote it into these checkpoints, odd keys included."""
    config = {
        "attention_probs_dropout_prob": 0.1,
        "finetuning_task": "sst-2",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "is_decoder": False,
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": model_type,
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "num_labels": 2,
        "output_attentions": False,
        "output_hidden_states": False,
        "output_past": True,
        "pruned_heads": {},
        "torchscript": False,
        "type_vocab_size": 1 if model_type == "roberta" else 2,
        "use_bfloat16": False,
        "vocab_size": VOCABULARY,
    }
    if model_type == "albert":
        config |= {
            "embedding_size": EMBEDDING,
            "classifier_dropout_prob": 0.1,
            "down_scale_factor": 1,
            "gap_size": 0,
            "inner_group_num": 1,
            "net_structure_type": 0,
            "num_hidden_groups": 1,
            "num_memory_blocks": 0,
        }
    return config


def write_checkpoint(
    folder: Path, config: dict[str, Any] | None, tensors: dict[str, Tensor] | None
) -> Path:
    """``config.json`` and ``model.safetensors``; None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_bert_vocabulary(folder: Path) -> Path:
    """The tokenizer as old checkpoints carry it: ``vocab.txt`` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder
