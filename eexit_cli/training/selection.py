"""Choosing a model's default exit on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision

Settings = dict[str, Any]
Quality = Callable[[Decision], float]

THRESHOLD_STEPS = 200
THRESHOLD_TOLERANCE = 0.005
"""Half a point: a choice flatters itself on its own data, and should keep a point on others."""
PATIENCE_TOLERANCE = 0.02
"""Two points: patience is a whole number, so there is little to choose from."""


@dataclass(frozen=True)
class Choice:
    """The chosen setting and what it measured.

    Attributes:
        settings: of the criterion, as ``exit_defaults`` stores them.
        quality: at that setting.
        full: quality of the full model.
        mean_exit_layer: at that setting.
        tolerance: quality that the choice was allowed to give up.
        decision: where each sample left, and with what answer.
    """

    settings: Settings
    quality: float
    full: float
    mean_exit_layer: float
    tolerance: float
    decision: Decision


@dataclass(frozen=True)
class Candidates:
    """Settings of one criterion, the most eager first, and what they may cost."""

    settings: tuple[Settings, ...]
    tolerance: float


def entropy_candidates(num_classes: int) -> Candidates:
    """Entropy thresholds from ln K down to 0 (the full model), in nats."""
    top = math.log(num_classes)
    values = [top * step / THRESHOLD_STEPS for step in range(THRESHOLD_STEPS, -1, -1)]
    # Four digits are what a person retypes; 0 stays 0.
    settings = tuple(
        {"criterion": "threshold", "confidence": "entropy", "threshold": math.floor(v * 1e4) / 1e4}
        for v in values
    )
    return Candidates(settings, THRESHOLD_TOLERANCE)


def patience_candidates(num_exits: int) -> Candidates:
    """Patience from 1 up, and 0 (the full model) last."""
    settings = tuple({"criterion": "patience", "patience": value} for value in range(1, num_exits))
    return Candidates((*settings, {"criterion": "patience", "patience": 0}), PATIENCE_TOLERANCE)


def candidates_for(family: str, *, num_exits: int, num_classes: int) -> Candidates:
    """A family's own criterion; entropy says nothing about one output, so patience serves there."""
    if family == "deebert" and num_classes > 1:
        return entropy_candidates(num_classes)
    return patience_candidates(num_exits)


def choose_exit(
    logits: Tensor,
    candidates: Candidates,
    criterion_from: Callable[[Settings], ExitCriterion],
    quality: Quality,
) -> Choice:
    """The most saving setting that keeps the quality within the tolerance of the full model.

    Going from the full model towards more eager settings, the choice is the last one before the
    quality first falls too low: a lucky one beyond that is not taken.

    Args:
        logits: the trace of the validation data. Shape: [samples, exits, classes].
        candidates: the last one is the full model, so one always qualifies.
        criterion_from: makes the criterion of a setting.
        quality: of a decision; higher is better.
    """
    full = quality(replay(logits, None))
    chosen: Choice | None = None
    for settings in reversed(candidates.settings):
        decision = replay(logits, criterion_from(settings))
        found = quality(decision)
        # Rounding of a mean must not decide about a whole sample.
        if found < full - candidates.tolerance - 1e-9:
            break
        mean = float(decision.exit_layers.double().mean())
        chosen = Choice(settings, found, full, mean, candidates.tolerance, decision)
    assert chosen is not None
    return chosen
