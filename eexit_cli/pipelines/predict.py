"""What each exit thinks of a text, and where the text leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.confidence import MEASURES
from eexit_cli.config.evaluate import PredictConfig
from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.core.stepping import replay
from eexit_cli.core.text import REPLACEMENT, is_whole, made_whole
from eexit_cli.families.batches import to_device
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.class_names import name_classes, trained_on_pairs
from eexit_cli.families.encoder.exits import build_criterion, describe
from eexit_cli.families.encoder.model import LoadedModel, load_model
from eexit_cli.families.encoder.tracing import label_name, model_label_names
from eexit_cli.families.seq2seq.model import is_decoder_model

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def run_prediction(config: PredictConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Classify texts, or decode them, and show what every exit thinks.

    Args:
        config: see :class:`PredictConfig`.
        progress: told of texts that are no valid Unicode, how a checkpoint was converted, what its
            classes are called where it does not say, what a stored threshold promises, and that a
            model of pairs of texts got single ones.

    Returns:
        ``num_layers``, ``label_names``, ``criterion`` and, per text, its exit layer, its answer
        and all exits: prediction, probability, confidence, and whether the exit was executed. For
        a decoder see ``pipelines.predict_decoder``.

    Raises:
        UsageError: no text, an empty text, options that cannot be.
    """
    if not config.texts:
        raise UsageError("No text given", hint='eexit predict --model deebert "a fine film"')
    for text in config.texts:
        if not text.strip():
            raise UsageError("A text is empty", hint="Give at least one word")
    config = _valid(config, progress or SilentProgress())
    if is_decoder_model(config.model):
        from eexit_cli.pipelines.predict_decoder import run_decoder_prediction

        return run_decoder_prediction(config, progress=progress)
    refuse_unread(config, ENCODER, model=config.model)
    loaded = load_model(config, progress=progress)
    model = loaded.model
    progress = progress or SilentProgress()
    name_classes(loaded, config, progress)
    if trained_on_pairs(model.config) and config.text_pair is None:
        progress.message(
            f"Model '{loaded.ref.name}' was trained on pairs of texts: --text-pair gives the second"
        )
    config = with_calibrated(config, loaded, task=None, progress=progress)
    criterion = build_criterion(
        config,
        model.config.exit_defaults,
        num_layers=model.num_exits,
        num_classes=model.num_classes,
    )
    batcher = loaded.batcher()
    pairs = None if config.text_pair is None else [config.text_pair] * len(config.texts)
    batch = to_device(batcher(list(config.texts), pairs), loaded.device)
    with torch.inference_mode():
        # Shape: [texts, exits, classes]
        logits = model(**batch).logits.cpu()
    decision = replay(logits, criterion)
    return {
        "model": loaded.ref.name,
        "num_layers": model.num_exits,
        "label_names": list(model_label_names(loaded)),
        "criterion": describe(criterion),
        "results": [
            {
                "text": text,
                "exit_layer": int(decision.exit_layers[index]),
                "prediction": decision.predictions[index].item(),
                "label_name": label_name(
                    model_label_names(loaded), decision.predictions[index].item()
                ),
                "exits": _exits(loaded, logits[index], int(decision.exit_layers[index]), criterion),
            }
            for index, text in enumerate(config.texts)
        ],
    }


def _valid(config: PredictConfig, progress: Progress) -> PredictConfig:
    """Arguments may hold bytes of another encoding, which no tokenizer takes."""
    given = [*config.texts, *([] if config.text_pair is None else [config.text_pair])]
    broken = [text for text in given if not is_whole(text)]
    if not broken:
        return config
    progress.message(f"Not valid UTF-8, and read with {REPLACEMENT} in its place: {broken[0]}")
    pair = None if config.text_pair is None else made_whole(config.text_pair)
    return replace(config, texts=tuple(map(made_whole, config.texts)), text_pair=pair)


def _exits(
    loaded: LoadedModel, logits: torch.Tensor, exit_layer: int, criterion: ExitCriterion | None
) -> list[dict[str, Any]]:
    """One entry per exit. Shape of ``logits``: [exits, classes]."""
    names = model_label_names(loaded)
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
        entry["label_name"] = label_name(names, entry["prediction"])
        entries.append(entry)
    return entries
