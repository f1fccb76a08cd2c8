"""Tiny classifiers as deployed files, and what torch says in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from models_tiny import random_model

from eexit_cli.confidence import MEASURES
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.static import StaticExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.exits.voting import VotingExit
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx.deployment import deployed_model
from eexit_cli.models.onnx.sessions import OnnxClassifier

LAYERS, CLASSES = 4, 3

RULES = {
    **{name: ThresholdExit(MEASURES.load(name), 0.6) for name in MEASURES},
    "patience": PatienceExit(1),
    "patience 0": PatienceExit(0),
    "voting": VotingExit(1.4),
    "static": StaticExit(2),
    "full": None,
}


def small(model_type: str = "bert", **settings: Any) -> MultiExitClassifier:
    """In float32, as it is exported."""
    settings = {"layers": LAYERS, "classes": CLASSES, "dtype": torch.float32, "seed": 3, **settings}
    return random_model(model_type, **settings)


def written(path: Path, model: MultiExitClassifier, rule: Any, **settings: Any) -> Path:
    """Its deployed file."""
    graph, _ = deployed_model(model, rule, **settings)
    path.write_bytes(graph.SerializeToString())
    return path


def deployed(
    folder: Path, model: MultiExitClassifier, rule: Any, **settings: Any
) -> OnnxClassifier:
    return OnnxClassifier.load(written(folder / "model.onnx", model, rule, **settings))


def row(batch: dict[str, torch.Tensor], at: int) -> dict[str, torch.Tensor]:
    """One input of a batch, without its padding."""
    tokens = int(batch["attention_mask"][at].sum())
    return {name: value[at : at + 1, :tokens] for name, value in batch.items()}
