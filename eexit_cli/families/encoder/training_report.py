"""The end of a classifier's training: its default exit, what it measured, what its card says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eexit_cli.core.types import Decision
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.families.encoder.loaded import LoadedModel
from eexit_cli.families.training import Metrics, Rows, by_exit
from eexit_cli.metrics.task import compute
from eexit_cli.training.card import describe_exit, table
from eexit_cli.training.selection import candidates_for, choose_exit
from eexit_cli.training.settings import StepPlan

if TYPE_CHECKING:
    from eexit_cli.families.encoder.training import EncoderJob

FEW_STEPS = 100
"""Of the optimizer in a stage. Below about as many, exits of the first layers answer at random."""

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

FAMILY_TITLES = {
    "deebert": "DeeBERT (ACL 2020, arXiv:2004.12993): a pooler and a classifier after every layer",
    "pabee": "PABEE (NeurIPS 2020, arXiv:2006.04152): one pooler, a classifier after every layer",
}


def measure(job: EncoderJob, dtype: torch.dtype) -> tuple[Metrics, Rows]:
    """Validation metrics per exit, of the full model, and at the default exit, which is chosen."""
    model, info = job.model, job.info
    loaded = LoadedModel(**job.loaded(dtype), max_length=job.max_length)
    trace = loaded.trace(job.validation, progress=job.progress, title="Choosing the exit")
    assert trace.labels is not None
    labels, leading = trace.labels.numpy(), info.metrics[0]

    def quality(decision: Decision) -> dict[str, float]:
        return compute(info, decision.predictions.numpy(), labels)

    candidates = candidates_for(
        job.config.model, num_exits=model.num_exits, num_classes=model.num_classes
    )
    choice = choose_exit(
        trace.logits,
        candidates,
        lambda chosen: criterion_from(
            chosen, num_layers=model.num_exits, num_classes=model.num_classes
        ),
        lambda decision: quality(decision)[leading],
    )
    job.leave_by(
        choice.settings,
        f"last setting, from the full model on, before more than {choice.tolerance} in {leading} "
        "is lost",
        choice.quality,
        choice.full,
        choice.mean_exit_layer,
    )
    samples = len(trace.logits)
    if model.num_classes > 1:
        answers = trace.logits.argmax(dim=-1).numpy()
        say = advice(job, labels, (answers == labels[:, None]).mean(axis=0))
        if say is not None:
            job.progress.message(say)
    metrics, rows = by_exit(
        {
            layer: quality(Decision(torch.full((samples,), layer), trace.logits[:, layer - 1]))
            for layer in range(1, trace.num_exits + 1)
        }
    )
    metrics |= quality(choice.decision)
    metrics |= {
        "mean_exit_layer": choice.mean_exit_layer,
        "num_layers": trace.num_exits,
        "validation_samples": samples,
    }
    return metrics, rows


def advice(job: EncoderJob, labels: np.ndarray, accuracies: np.ndarray) -> str | None:
    """What to do where exits learned less than the most frequent class says; None where none did.

    Args:
        labels: class ids, (n,), of the validation data.
        accuracies: of each exit on them, (L,).
    """
    counts = np.bincount(labels, minlength=job.model.num_classes)
    share = counts.max() / len(labels)
    weak = [str(layer) for layer, found in enumerate(accuracies, start=1) if found <= share]
    if not weak:
        return None
    once = StepPlan.of(
        replace(job.settings, epochs=1),
        len(job.training),
        processes=job.processes.num_processes,
    )
    epochs = -(-FEW_STEPS // once.total)
    longer = f"Train longer (--epochs {epochs}) or" if epochs > job.settings.epochs else "Train"
    return (
        f"No better than always answering '{job.info.label_names[counts.argmax()]}' "
        f"({100 * share:.1f} % of {len(labels)} validation samples): "
        f"{'exit' if len(weak) == 1 else 'exits'} {', '.join(weak)} of {len(accuracies)}. "
        f"{longer} on more than these {len(job.training)} rows"
    )


def card_facts(job: EncoderJob, metrics: Metrics, dtype: str) -> dict[str, Any]:
    """What a classifier's card says, for :func:`eexit_cli.training.card.write_card`."""
    config, info, model, strategy = job.config, job.info, job.model, job.strategy
    name, layers, made = job.workspace.output.name, job.depth, job.made()
    classes = ", ".join(info.label_names) if info.label_names else "one value (regression)"
    start = job.start and (
        f"Went on from: {job.backbone}"
        + (f" (which was trained from {job.start['backbone']})" if job.start["backbone"] else "")
        + f", its layers {'and its exits' if job.start['exits'] == 'kept' else 'with new exits'}"
    )
    leading = info.metrics[0]
    tolerance = candidates_for(
        config.model, num_exits=layers, num_classes=model.num_classes
    ).tolerance
    mean = metrics["mean_exit_layer"]
    rows = [
        (str(layer), f"{metrics[f'{leading}_exit_{layer}']:.4f}") for layer in range(1, layers + 1)
    ]
    measured = f"""{table(("exit layer", leading), rows)}

Default exit: **{describe_exit(model.config.exit_defaults)}**, {leading} {metrics[leading]:.4f}
against {metrics[f"{leading}_full"]:.4f} of the full model, mean exit layer {mean:.2f} of
{layers} ({100 * (1 - mean / layers):.0f} % of the layers saved). Going from the full
model to more eager settings, it is the last one before more than {tolerance:g} in
{leading} is lost on these data. Since it was chosen on them, these figures flatter it
slightly: test data were not touched."""
    return {
        "tag": config.model,
        "backbone": job.backbone,
        "task": info.name,
        "what": f"""A multi-exit classifier for `{info.name}` ({classes}): \
{FAMILY_TITLES[config.model]}. Samples that
an early exit is sure about leave there; the rest goes on, at most to layer {layers}.""",
        "points": [
            f"Backbone: {job.backbone}, {layers} layers, {job.weights / 1e6:.1f} M weights,\n"
            f"  {model.word_embeddings.num_embeddings} word pieces, stored in {dtype}",
            *([start] if start else []),
            f"Pooling before each head: {model.config.pooling}",
            f"Training: {strategy.name} ({strategy.source}), {made['train_samples']} samples",
            "Licence: "
            + (config.licence or "not stated; the backbone's and the data's licences apply"),
        ],
        "use": [
            f'eexit predict --model {name} "a text of yours"',
            f"eexit evaluate --model {name}",
            f"eexit attack --model {name}",
        ],
        "commands": [made["command"]],
        "versions": [f"{program} {number}" for program, number in made["versions"].items()],
        "sections": [
            (f"Measured on validation data ({len(job.validation)} samples)", measured),
        ],
        "limits": f"""`{info.name}` alone and answers with one of its classes for any text, in any \
language, without
saying that a text is out of its domain. It has the biases of its backbone and its data. A confident
early exit can be wrong, and inputs can be made to leave late on purpose (`eexit attack`).""",
    }
