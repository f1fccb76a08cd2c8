"""A classifier on labelled samples: one full pass answers every exit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eexit_cli.confidence import MEASURES
from eexit_cli.core.answers import Exit
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion, Measure
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision, Examples, TaskInfo, Trace
from eexit_cli.families.batches import labels_of
from eexit_cli.families.class_names import warn_below_chance
from eexit_cli.families.encoder.latency import measure_speed
from eexit_cli.metrics.depth import depth_metrics, histogram
from eexit_cli.metrics.flops import EncoderShape, encoder_flops
from eexit_cli.metrics.task import compute

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.encoder.loaded import LoadedModel
    from eexit_cli.metrics.counters import Meter


class EncoderEvaluation:
    """See :class:`eexit_cli.core.family.Evaluation`.

    Args:
        config: with ``batch_size`` and what times it.

    Raises:
        UsageError: samples without labels.
    """

    def __init__(
        self, model: LoadedModel, examples: Examples, config: Any, progress: Progress
    ) -> None:
        if labels_of(examples) is None:
            raise UsageError(
                f"The {examples.split} split of '{examples.info.name}' has no labels",
                hint="Give --split validation, or --label-column for a file of yours",
            )
        self.model, self.examples, self.config = model, examples, config
        self.timings: dict[str, float] = {}
        self._traces: dict[str, Trace] = {}
        self._progress = progress

    def _trace(self, exit: Exit) -> Trace:
        """Of the samples by what runs the exit, made on first use."""
        runtime = self.model.runtime_of(exit)
        if runtime not in self._traces:
            self._traces[runtime] = self._traced(runtime)
        return self._traces[runtime]

    def _traced(self, runtime: str) -> Trace:
        started = time.perf_counter()
        several = len(self.model.runtimes) > 1
        trace = self.model.trace(
            self.examples,
            batch_size=self.config.batch_size,
            progress=self._progress,
            title=f"Full pass, {runtime}" if several else "Full pass",
            runtime=runtime,
        )
        seconds = time.perf_counter() - started
        self.timings["trace_seconds"] = self.timings.get("trace_seconds", 0.0) + seconds
        if self.examples.info.kind == "classification" and trace.labels is not None:
            full = replay(trace.logits, None).predictions
            names = self.examples.info.label_names
            warn_below_chance(names, full.numpy(), trace.labels.numpy(), self._progress)
        return trace

    def figures(self, exit: Exit, *, progress: Progress) -> dict[str, Any]:
        trace = self._trace(exit)
        found = _setting_metrics(self.examples.info, trace, replay(trace.logits, exit.rule))
        if len(self.model.runtimes) > 1:
            # Each has a full depth of its own.
            leading = self.examples.info.metrics[0]
            found[f"{leading}_full"] = _full_model_metrics(self.examples.info, trace)[
                f"{leading}_full"
            ]
        return found

    def beside(self, exit: Exit) -> dict[str, Any]:
        trace, layers = self._trace(exit), self.model.num_layers
        left = replay(trace.logits, exit.rule).exit_layers.numpy()
        return {
            **_full_model_metrics(self.examples.info, trace),
            **self._flops(left, trace),
            "num_layers": layers,
            "samples": len(self.examples),
            **{f"exited_at_{at}": count for at, count in enumerate(histogram(left, layers), 1)},
        }

    def records(self, exit: Exit) -> list[dict[str, Any]]:
        trace = self._trace(exit)
        return _sample_records(trace, replay(trace.logits, exit.rule), exit.rule)

    def speeds(
        self, exits: Sequence[Exit], *, swept: bool, meter: Meter | None = None
    ) -> dict[Exit, dict[str, Any]]:
        timed = exits[:1] if swept else exits
        found = measure_speed(self.model, self.examples, timed, self.config, self._progress, meter)
        return dict(zip(timed, found, strict=True))

    def _flops(self, exit_layers: Any, trace: Trace) -> dict[str, float]:
        model = self.model.model
        shape = EncoderShape.of(model.backbone.config, model.num_classes)
        tokens = trace.lengths.numpy()
        all_layers = np.full(len(tokens), model.num_exits)
        full = encoder_flops(shape, tokens, all_layers, every_head=False)
        return {
            "flops_per_sample": float(encoder_flops(shape, tokens, exit_layers).mean()),
            "flops_full": float(full.mean()),
        }


def _setting_metrics(info: TaskInfo, trace: Trace, decision: Decision) -> dict[str, float]:
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


def _sample_records(
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
