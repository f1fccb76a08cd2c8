"""The end of a training: the default exit, the measured figures, the model's folder and card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.config.train import TrainConfig
from eexit_cli.core.text import escaped
from eexit_cli.core.types import Decision, TaskInfo, Trace
from eexit_cli.core.utf8_path import utf8_path
from eexit_cli.families.data import KEY, path_of_data
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.families.encoder.loaded import LoadedModel
from eexit_cli.families.seen_rows import note_training_rows
from eexit_cli.families.training import made_by, versions
from eexit_cli.metrics.task import compute
from eexit_cli.models.encoder.conversion import as_dtype
from eexit_cli.store.models import ModelRef
from eexit_cli.training.card import CardFacts, describe_exit, write_card
from eexit_cli.training.quiet import no_bars
from eexit_cli.training.selection import Choice, candidates_for, choose_exit

if TYPE_CHECKING:
    from eexit_cli.families.encoder.training import EncoderJob
    from eexit_cli.store.results import Run

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub's name of the encoder that comes as a package."""


def finish_training(job: EncoderJob, run: Run, timings: dict[str, float]) -> dict[str, Any]:
    """Round to the stored dtype, choose the default exit, write the folder and the run."""
    model, config = job.model.eval(), job.config
    master = torch.float64 if job.settings.dtype == "float64" else torch.float32
    stored = as_dtype(config.save_dtype) if config.save_dtype else master
    # What is measured is what is stored.
    model.to(stored).to(device="cpu", dtype=master)
    loaded = LoadedModel(
        ref=ModelRef(name=job.workspace.output.name, kind="folder", path=job.workspace.output),
        folder=job.workspace.output,
        model=model,
        tokenizer=job.tokenizer,
        device=torch.device("cpu"),
        dtype=master,
        max_length=job.max_length,
    )
    trace = loaded.trace(job.validation, progress=job.progress, title="Choosing the exit")
    leading = job.info.metrics[0]
    choice = choose_exit(
        trace.logits,
        candidates_for(config.model, num_exits=model.num_exits, num_classes=model.num_classes),
        lambda chosen: criterion_from(
            chosen, num_layers=model.num_exits, num_classes=model.num_classes
        ),
        lambda decision: _quality(job.info, trace, decision)[leading],
    )
    metrics, rows = _metrics(job, trace, choice)
    _store_settings(job, choice, metrics, leading)
    job.progress.message(
        f"Default exit: {describe_exit(choice.settings)}, chosen on validation data: {leading} "
        f"{choice.quality:.4f} against {choice.full:.4f} of the full model, mean exit layer "
        f"{choice.mean_exit_layer:.2f} of {model.num_exits}"
    )
    facts = _card_facts(job, choice, rows, leading, stored)
    with job.workspace.publishing() as folder, utf8_path(folder) as named, no_bars():
        model.to(stored).save_pretrained(named)
        job.tokenizer.save_pretrained(named)
        (folder / "README.md").write_text(escaped(write_card(facts)), encoding="utf-8")
        remembers = note_training_rows(
            folder, config, job.training, job.validation, job.seen_before
        )
        size = sum(item.stat().st_size for item in folder.iterdir())
    job.progress.message(f"Model written to {job.workspace.output} ({size / 1e6:.1f} MB)")
    job.progress.message(remembers)
    timings = {**timings, "seconds": sum(timings.values())}
    metrics |= {"epochs": config.epochs, "examples": len(job.training)}
    return run.finish(metrics=metrics | {"seconds": timings["seconds"]}, rows=rows, timings=timings)


def _metrics(
    job: EncoderJob, trace: Trace, choice: Choice
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Validation metrics: per exit, of the full model, and at the default exit."""
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    layers = torch.ones(len(trace.logits), dtype=torch.int64)
    for layer in range(1, trace.num_exits + 1):
        scores = _quality(job.info, trace, Decision(layers * layer, trace.logits[:, layer - 1]))
        metrics |= {f"{name}_exit_{layer}": value for name, value in scores.items()}
        rows.append({"exit_layer": layer} | scores)
    metrics |= {f"{name}_full": rows[-1][name] for name in job.info.metrics}
    metrics |= _quality(job.info, trace, choice.decision)
    metrics |= {
        "mean_exit_layer": choice.mean_exit_layer,
        "num_layers": trace.num_exits,
        "validation_samples": len(trace.logits),
    }
    return metrics, rows


def _quality(info: TaskInfo, trace: Trace, decision: Decision) -> dict[str, float]:
    assert trace.labels is not None
    return compute(info, decision.predictions.numpy(), trace.labels.numpy())


def _store_settings(job: EncoderJob, choice: Choice, metrics: dict[str, Any], leading: str) -> None:
    """Default exit and the way the model was made, into its configuration."""
    model = job.model
    model.config.exit_defaults = {
        **choice.settings,
        "provenance": {
            "rule": f"last setting, from the full model on, before more than {choice.tolerance} in "
            f"{leading} is lost",
            "data": f"{job.info.name}, {job.validation.split}",
            "samples": len(job.validation),
            leading: choice.quality,
            f"{leading}_full": choice.full,
            "mean_exit_layer": choice.mean_exit_layer,
        },
    }
    left_out = ("output", "results_dir", "resume")
    options = {key: value for key, value in job.config.as_dict().items() if key not in left_out}
    model.config.training = {
        **options,
        **path_of_data(job.config),
        "backbone": _backbone_label(job.config),
        "strategy": job.strategy.name,
        "task": job.info.name,
        "max_length": job.max_length,
        "train_samples": len(job.training),
        "train_split": job.training.split,
        "command": made_by(job.config),
        "versions": versions(),
        "validation": metrics,
        **({} if job.start is None else {"started_from": job.start}),
        **({} if job.held_out is None else {KEY: job.held_out}),
    }


def _card_facts(
    job: EncoderJob, choice: Choice, rows: list[dict[str, Any]], leading: str, stored: torch.dtype
) -> CardFacts:
    model = job.model
    return CardFacts(
        name=job.workspace.output.name,
        family=job.config.model,
        backbone=_backbone_label(job.config),
        start=job.start,
        task=job.info.name,
        label_names=job.info.label_names,
        strategy=job.strategy.name,
        source=job.strategy.source,
        pooling=model.config.pooling,
        num_layers=model.num_exits,
        weights=sum(weight.numel() for weight in model.parameters()),
        vocabulary=model.word_embeddings.num_embeddings,
        stored_dtype=str(stored).removeprefix("torch."),
        command=made_by(job.config),
        train_samples=len(job.training),
        validation_samples=len(job.validation),
        metric=leading,
        per_exit=[row[leading] for row in rows],
        default_exit=choice.settings,
        default_quality=choice.quality,
        full_quality=choice.full,
        mean_exit_layer=choice.mean_exit_layer,
        tolerance=choice.tolerance,
        versions=versions(),
        licence=job.config.licence,
    )


def _backbone_label(config: TrainConfig) -> str:
    if config.backbone is None:
        return MINILM
    return config.backbone
