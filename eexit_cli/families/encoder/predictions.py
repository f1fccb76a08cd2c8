"""What each exit of a classifier thinks of a text, and where the text leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.confidence import MEASURES
from eexit_cli.core.answers import Exit
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.core.stepping import replay
from eexit_cli.families.batches import to_device

if TYPE_CHECKING:
    from eexit_cli.config.evaluate import PredictConfig
    from eexit_cli.families.encoder.loaded import LoadedModel


def opinions(model: LoadedModel, config: PredictConfig, exit: Exit) -> list[dict[str, Any]]:
    """See :func:`eexit_cli.pipelines.predict.run_prediction`."""
    batcher, texts = model.batcher(), list(config.texts)
    pairs = None if config.text_pair is None else [config.text_pair] * len(texts)
    with torch.inference_mode():
        # Shape: [texts, exits, classes]
        logits = model.running(exit)(**to_device(batcher(texts, pairs), model.device)).logits.cpu()
    decision = replay(logits, exit.rule)
    results = []
    for text, layer, answer, each in zip(
        texts, decision.exit_layers.tolist(), decision.predictions.tolist(), logits, strict=True
    ):
        results.append(
            {
                "text": text,
                "exit_layer": layer,
                "prediction": answer,
                "label_name": _label(model.label_names, answer),
                "exits": _exits(model.label_names, each, layer, exit.rule),
            }
        )
    return results


def _label(names: tuple[str, ...], prediction: float) -> str:
    """A class's name, or the value itself where there are no classes."""
    return names[int(prediction)] if names else f"{prediction:.4g}"


def _exits(
    names: tuple[str, ...],
    logits: torch.Tensor,
    exit_layer: int,
    criterion: ExitCriterion | None,
) -> list[dict[str, Any]]:
    """One entry per exit. Shape of ``logits``: [exits, classes]."""
    measure: Measure = getattr(criterion, "measure", None) or MEASURES.load("max-prob")
    entries = []
    for layer, exit_logits in enumerate(logits, start=1):
        entry: dict[str, Any] = {"layer": layer, "executed": layer <= exit_layer}
        if names:
            best = int(exit_logits.argmax())
            entry |= {
                "prediction": best,
                "probability": float(torch.softmax(exit_logits.float(), dim=-1)[best]),
                "confidence": float(measure(exit_logits)),
                "measure": measure.name,
            }
        else:
            entry |= {"prediction": float(exit_logits)}
        entry["label_name"] = _label(names, entry["prediction"])
        entries.append(entry)
    return entries
