"""A classifier as one ONNX file that leaves early, compared with what it was made of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.exit_options import asking_options, exit_value
from eexit_cli.config.runtime import ONNX, TORCH, WEIGHTS
from eexit_cli.core.answers import CLASSES
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.published import EXPORTED_FILE
from eexit_cli.core.stepping import replay
from eexit_cli.families.calibrated import stored_for, with_calibrated
from eexit_cli.families.encoder.model import EncoderModel
from eexit_cli.families.exported import exported
from eexit_cli.families.listing import family_with
from eexit_cli.families.loading import folder_of
from eexit_cli.families.opening import open_model
from eexit_cli.metrics.task import compute
from eexit_cli.models.checkpoints import read_config
from eexit_cli.store.calibrations import StoredCalibration
from eexit_cli.store.models import resolve

if TYPE_CHECKING:
    from eexit_cli.config.runtime import ExportModelConfig
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples

LOST = 0.01
"""Of the leading metric, on its scale from 0 to 1: more is told."""


def export_model(config: ExportModelConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Write a folder with ``model.onnx``, its tokenizer, ``config.json`` and ``README.md``.

    Of a model that is exported already the same file, but for its exit's number.

    A calibrated threshold is one that was calibrated with the same weights in ONNX Runtime: a
    promise on others says nothing of this file.

    Args:
        config: see :class:`ExportModelConfig`; ``output`` must not be in use.
        progress: told about the comparison; None is silent.

    Returns:
        What the file is: ``model``, ``layers``, ``weights``, ``megabytes``, ``exit``,
        ``threshold_from``; on the task's validation samples ``samples``, ``same_exits`` and
        ``same_labels`` (shares) and the leading metric of the model and of the file, both with the
        exit in force; without the model, where that is a file, no more than the file's.

    Raises:
        UsageError: no ``output``, or one that is in use; a model that cannot be exported, or an
            exit that it has not.
        MissingArtifactError: no such model, data or calibration.
        EexitError: ``eexit[onnx]`` is not installed, or a graph that does not do what the model
            does.
    """
    from eexit_cli.models.onnx.deployment import check_free, write_deployment

    progress = progress or SilentProgress()
    if config.output is None:
        raise UsageError("No --output is given", hint="Name the new folder: --output DIR")
    check_free(config.output)
    settings = read_config(folder_of(resolve(config.model)))
    if family_with(settings).kind != CLASSES:
        raise UsageError(
            f"'{config.model}' writes text; a classifier alone can be exported",
            hint="Choose one: eexit models list",
        )
    own = exported(settings)
    weights = config.weights or WEIGHTS[own or ONNX]
    if own is not None and weights != WEIGHTS[own]:
        raise UsageError(
            f"'{config.model}' is exported already, with {WEIGHTS[own]} weights",
            hint="Leave --weights out, or export the model that it was exported from",
        )
    runtime = next(name for name, each in WEIGHTS.items() if each == weights)
    named = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    shared = {name: value for name, value in named.items() if name in EvaluateConfig.option_names()}
    runtimes = runtime if own else (runtime, TORCH)
    options: Any = EvaluateConfig(**{**shared, "runtime": runtimes, "weights": "float"})
    model = open_model(options, progress=progress)
    assert isinstance(model, EncoderModel)
    model.name_outputs(options, progress)
    examples = _samples(model, options, progress)
    stored = None
    if isinstance(options.threshold, str):
        assert examples is not None
        task = examples.info.name
        stored = stored_for(options, model, task, "")
        options = with_calibrated(options, model, task=task, progress=progress)
    exit = model.exit(dataclasses.replace(options, runtime=runtime))
    about = write_deployment(
        model.model,
        model.tokenizer,
        exit.rule,
        config.output,
        weights=weights,
        provenance=_provenance(config, model, stored),
        name=model.name,
    )
    size = (config.output / EXPORTED_FILE).stat().st_size
    return {
        "model": str(config.output),
        "layers": about.layers,
        "weights": about.weights,
        "megabytes": round(size / 1e6, 1),
        "exit": about.rule,
        "threshold_from": about.provenance.get("from"),
        **_compared(model, exit, examples, progress),
    }


def _split(options: Any) -> str:
    """The task's, or the whole of a file."""
    return "validation" if options.data_file is None else "test"


def _provenance(
    config: ExportModelConfig, model: EncoderModel, stored: StoredCalibration | None
) -> dict[str, Any]:
    if stored is not None:
        return {
            "from": "calibration",
            "run": stored.run_id,
            "delta": stored.delta,
            "epsilon": stored.epsilon,
            "guarantee": stored.guarantee,
        }
    if any(exit_value(config, option) is not None for option in asking_options().values()):
        return {"from": "an option of the export"}
    known = model.exit_defaults.get("provenance") or {}
    return {"from": "the model's default", **known}


def _samples(model: EncoderModel, options: Any, progress: Progress) -> Examples | None:
    """Samples that the model was not trained on; None where nobody named any and it has none."""
    named = any(getattr(options, name) for name in ("task", "data_file", "data_dir", "split"))
    needed = named or isinstance(options.threshold, str)  # a promise is of a task
    try:
        options = model.own_data(options, progress)
        return model.examples(options, default_split=_split(options), progress=progress)
    except (UsageError, MissingArtifactError) as error:
        if needed:
            raise
        progress.message(f"Not compared with the model: {error.message}")
        return None


def _compared(
    model: EncoderModel, exit: Exit, examples: Examples | None, progress: Progress
) -> dict[str, Any]:
    """The file beside the model."""
    if examples is None or len(examples) == 0:
        return {}
    decisions, scores = [], []
    for runtime in model.runtimes:
        trace = model.trace(
            examples, progress=progress, title=f"Full pass, {runtime}", runtime=runtime
        )
        decisions.append(replay(trace.logits, exit.rule))
        if trace.labels is not None:
            found = compute(examples.info, decisions[-1].predictions.numpy(), trace.labels.numpy())
            scores.append(found[examples.info.metrics[0]])
    told: dict[str, Any] = {"samples": len(examples)}
    leading = examples.info.metrics[0]
    if len(decisions) == 1:  # of a file alone
        return told | ({f"{leading}_file": scores[0]} if scores else {})
    file, whole = decisions
    told["same_exits"] = float((file.exit_layers == whole.exit_layers).float().mean())
    if model.num_classes > 1:
        same = (file.predictions == whole.predictions).float().mean()
        told["same_labels"] = float(same)
    if scores:
        told |= {f"{leading}_file": scores[0], f"{leading}_model": scores[1]}
        if scores[1] - scores[0] > LOST:
            progress.message(
                f"{leading} falls from {scores[1]:.4f} to {scores[0]:.4f} on these samples, more "
                "than a point: --weights float32 keeps it"
            )
    return told
