"""Speed against quality of a classifier: one full pass, every setting, measured time beside it.

Decoders are :mod:`eexit_cli.pipelines.evaluate_decoder`'s.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eexit_cli.confidence import MEASURES
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision, Examples, RunResult, TaskInfo, Trace
from eexit_cli.data import load_examples
from eexit_cli.families.batches import (
    DEFAULT_BATCH_SIZE,
    batches_by_length,
    labels_of,
    texts_of,
    to_device,
)
from eexit_cli.families.calibrated import with_calibrated, without_calibration_samples
from eexit_cli.families.class_names import name_classes, warn_below_chance
from eexit_cli.families.encoder.exits import (
    build_criterion,
    classifier_measure,
    criterion_from,
    describe,
    sweep_settings,
)
from eexit_cli.families.encoder.model import LoadedModel, load_model
from eexit_cli.families.encoder.tracing import check_fits, model_label_names, record_trace, task_of
from eexit_cli.families.seen_rows import leaving_out
from eexit_cli.families.seq2seq.model import is_decoder_model
from eexit_cli.families.stopwatch import FULL, time_ways
from eexit_cli.metrics.depth import depth_metrics, histogram
from eexit_cli.metrics.flops import EncoderShape, encoder_flops
from eexit_cli.metrics.latency import NOT_TIMED, speed_figures, throughput_figures
from eexit_cli.metrics.task import compute
from eexit_cli.pipelines.exit_grid import choices, is_grid, values_of
from eexit_cli.store.results import ResultStore

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def run_evaluation(config: EvaluateConfig, *, progress: Progress | None = None) -> RunResult:
    """Evaluate one setting, several (a row each) or with ``sweep`` every one, on labelled data.

    Args:
        config: see :class:`EvaluateConfig`.
        progress: where to show it; None is silent.

    Returns:
        The run: metrics of the chosen setting (the first, where options have several values), a
        row per setting where there are several, one record per sample.

    Raises:
        UsageError: options, data or thresholds that cannot be.
        MissingArtifactError: no such model or data here.
    """
    progress = progress or SilentProgress()
    if is_decoder_model(config.model):
        from eexit_cli.pipelines.evaluate_decoder import run_decoder_evaluation

        return run_decoder_evaluation(config, progress=progress)
    seed_everything(config.seed)
    refuse_unread(config, ENCODER, model=config.model)
    loaded = load_model(config, progress=progress)
    model = loaded.model
    config = task_of(config, loaded, progress)
    name_classes(loaded, config, progress)
    examples = load_examples(
        config,
        default_split="test",
        label_names=model_label_names(loaded),
        progress=progress,
        leave_out=leaving_out(config, loaded, progress),
    )
    check_fits(examples.info, loaded, progress)
    if labels_of(examples) is None:
        raise UsageError(
            f"The {examples.split} split of '{examples.info.name}' has no labels",
            hint="Give --split validation, or --label-column for a file of yours",
        )
    for choice in choices(config):
        examples = without_calibration_samples(examples, choice, loaded, progress=progress)
    chosen = [
        with_calibrated(choice, loaded, task=examples.info.name, progress=progress)
        for choice in choices(config)
    ]
    if len(chosen) == 1 and not is_grid(config):
        config = dataclasses.replace(chosen[0], confidence=config.confidence)
    criteria = [
        build_criterion(
            choice,
            model.config.exit_defaults,
            num_layers=model.num_exits,
            num_classes=model.num_classes,
        )
        for choice in chosen
    ]
    criterion = criteria[0]
    # A file names its own split, which --split does not take: a repeated run must be able to.
    split = config.split if config.data_file else examples.split
    settings = {
        **config.as_dict(),
        "split": split,
        "exit": describe(criterion),
        "training_rows": examples.training_rows,
    }
    with ResultStore(config.results_dir).create("evaluate", settings) as run:
        started = time.perf_counter()
        trace = record_trace(loaded, examples, batch_size=config.batch_size, progress=progress)
        timings = {"trace_seconds": time.perf_counter() - started}
        _warn(examples.info, trace, progress)
        decision = replay(trace.logits, criterion)
        metrics: dict[str, Any] = setting_metrics(examples.info, trace, decision)
        metrics |= _full_model_metrics(examples.info, trace)
        metrics |= _flops(loaded, trace, decision)
        metrics |= {"num_layers": model.num_exits, "samples": len(examples)}
        exits = histogram(decision.exit_layers.numpy(), model.num_exits)
        metrics |= {f"exited_at_{layer}": count for layer, count in enumerate(exits, start=1)}
        for record in sample_records(trace, decision, criterion):
            run.append(record)
        rows = _rows(config, examples.info, trace, model.num_classes, criteria)
        if config.latency_samples > 0:
            started = time.perf_counter()
            # Of a sweep's many settings the chosen one alone.
            timed = criteria[:1] if config.sweep else criteria
            speeds = measure_speed(loaded, examples, timed, config, progress)
            metrics |= speeds[0]
            if len(rows) == len(speeds):
                rows = [row | speed for row, speed in zip(rows, speeds, strict=True)]
            timings["latency_seconds"] = time.perf_counter() - started
        else:
            progress.message(NOT_TIMED)
        document = run.finish(metrics=metrics, rows=rows, timings=timings)
        return RunResult(document, run.path)


def _warn(info: TaskInfo, trace: Trace, progress: Progress) -> None:
    if info.kind == "classification" and trace.labels is not None:
        full = replay(trace.logits, None).predictions
        warn_below_chance(info.label_names, full.numpy(), trace.labels.numpy(), progress)


def setting_metrics(info: TaskInfo, trace: Trace, decision: Decision) -> dict[str, float]:
    """Task metrics and depth of one setting on a trace."""
    assert trace.labels is not None
    quality = compute(info, decision.predictions.numpy(), trace.labels.numpy())
    return quality | depth_metrics(decision.exit_layers.numpy(), trace.num_exits)


def _full_model_metrics(info: TaskInfo, trace: Trace) -> dict[str, float]:
    """The leading metric at every exit, and all metrics of the full model."""
    assert trace.labels is not None
    labels = trace.labels.numpy()
    metrics: dict[str, float] = {}
    for layer in range(1, trace.num_exits + 1):
        # Shape: [samples, classes]
        logits = trace.logits[:, layer - 1]
        answer = Decision(torch.full((len(logits),), layer), logits)
        scores = compute(info, answer.predictions.numpy(), labels)
        leading = info.metrics[0]
        metrics[f"{leading}_exit_{layer}"] = scores[leading]
        if layer == trace.num_exits:
            metrics |= {f"{name}_full": value for name, value in scores.items()}
    return metrics


def _flops(loaded: LoadedModel, trace: Trace, decision: Decision) -> dict[str, float]:
    model = loaded.model
    shape = EncoderShape.of(model.backbone.config, model.num_classes)
    tokens = trace.lengths.numpy()
    all_layers = np.full(len(tokens), model.num_exits)
    return {
        "flops_per_sample": float(
            encoder_flops(shape, tokens, decision.exit_layers.numpy()).mean()
        ),
        "flops_full": float(encoder_flops(shape, tokens, all_layers, every_head=False).mean()),
    }


def sample_records(
    trace: Trace, decision: Decision, criterion: ExitCriterion | None
) -> list[dict[str, Any]]:
    """One JSON-ready record per sample: where it left, and what every exit thought of it."""
    regression = trace.logits.shape[-1] == 1
    measure: Measure = getattr(criterion, "measure", None) or MEASURES.load("max-prob")
    # Shape: [samples, exits]
    thoughts = trace.logits.squeeze(-1) if regression else trace.logits.argmax(dim=-1)
    confidences = None if regression else measure(trace.logits).tolist()
    labels = None if trace.labels is None else trace.labels.tolist()
    records = []
    for index, identifier in enumerate(trace.ids):
        record: dict[str, Any] = {
            "id": identifier,
            "label": None if labels is None else labels[index],
            "prediction": decision.predictions[index].item(),
            "exit_layer": int(decision.exit_layers[index]),
            "exit_predictions": thoughts[index].tolist(),
        }
        if confidences is not None:
            record["confidence"] = measure.name
            record["exit_confidences"] = confidences[index]
        records.append(record)
    return records


def _rows(
    config: EvaluateConfig,
    info: TaskInfo,
    trace: Trace,
    num_classes: int,
    criteria: Sequence[ExitCriterion | None],
) -> list[dict[str, Any]]:
    """A row per setting of the sweep, or of several values; none for a single setting."""
    settings: list[tuple[dict[str, Any], ExitCriterion | None]] = []
    if config.sweep:
        names = [classifier_measure(name) for name in values_of(config, "confidence")]
        settings = [
            (setting, criterion_from(setting, num_layers=trace.num_exits, num_classes=num_classes))
            for setting in sweep_settings(
                num_layers=trace.num_exits, num_classes=num_classes, measures=names or None
            )
        ]
    elif len(criteria) > 1:
        settings = [(describe(criterion), criterion) for criterion in criteria]
    return [
        setting | setting_metrics(info, trace, replay(trace.logits, criterion))
        for setting, criterion in settings
    ]


def measure_speed(
    loaded: LoadedModel,
    examples: Examples,
    criteria: Sequence[ExitCriterion | None],
    config: EvaluateConfig,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Measured wall-clock of each criterion: latency at batch 1, throughput at the batch size used.

    All live paths and the full model take turns on the same tokenised inputs with the same
    kernels; tokenising is not part of it.

    Returns:
        For each ``latency_ms``, ``latency_full_ms``, ``speedup_seconds`` (batch 1), ``throughput``,
        ``throughput_full`` (inputs per second), ``speedup_throughput``, the speedups with ``_low``
        and ``_high``; ``batch_size``, ``latency_samples``, ``throughput_samples`` and
        ``timing_repeats``. See :mod:`eexit_cli.metrics.latency`.
    """
    texts, pairs = texts_of(examples)
    count = min(config.latency_samples, len(texts))
    batch_size = config.batch_size or DEFAULT_BATCH_SIZE
    batcher = loaded.batcher()

    def encode(rows: Sequence[int]) -> dict[str, torch.Tensor]:
        second = [pairs[row] for row in rows] if pairs else None
        return to_device(batcher([texts[row] for row in rows], second), loaded.device)

    def way(criterion: ExitCriterion | None) -> Callable[[dict[str, Any]], object]:
        return lambda batch: loaded.model.infer(**batch, criterion=criterion)

    ways = {FULL: way(None), **{at: way(criterion) for at, criterion in enumerate(criteria)}}
    singles = [encode([row]) for row in range(count)]
    grouped = list(batches_by_length([len(texts[row]) for row in range(len(texts))], batch_size))
    # About as many samples as at batch 1, spread over the lengths.
    step = max(1, len(grouped) * batch_size // max(count, 4 * batch_size))
    chosen = grouped[::step]
    batches = [encode(rows) for rows in chosen]
    timing: dict[str, Any] = {
        "device": loaded.device,
        "repeats": config.timing_repeats,
        "progress": progress,
    }
    one = time_ways(ways, singles, title="Timing, one by one", **timing)
    many = time_ways(ways, batches, title=f"Timing, batch {batch_size}", **timing)
    timed = sum(len(rows) for rows in chosen)
    return [
        {
            **speed_figures(one[FULL], one[at]),
            **throughput_figures(many[FULL], many[at], timed),
            "batch_size": batch_size,
            "latency_samples": count,
            "throughput_samples": timed,
            "timing_repeats": config.timing_repeats,
        }
        for at in range(len(criteria))
    ]
