"""The end of a decoder's training: the default exit, the measured figures, folder and card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.config.train import TrainConfig
from eexit_cli.core.digits import exact
from eexit_cli.core.text import escaped
from eexit_cli.core.utf8_path import utf8_path
from eexit_cli.families.data import KEY, path_of_data
from eexit_cli.families.seen_rows import note_training_rows
from eexit_cli.families.seq2seq.decoding import (
    DecodedSet,
    Sources,
    decode_examples,
    prepare_sources,
)
from eexit_cli.families.seq2seq.exits import full_model, settings_from
from eexit_cli.families.seq2seq.loaded import LoadedDecoder
from eexit_cli.families.training import made_by, versions
from eexit_cli.metrics.depth import depth_metrics
from eexit_cli.metrics.generation import GENERATION_METRICS, compute_generation
from eexit_cli.models.encoder.conversion import as_dtype
from eexit_cli.store.models import ModelRef
from eexit_cli.training.decoder_card import write_decoder_card
from eexit_cli.training.quiet import no_bars

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Ticker
    from eexit_cli.core.types import Examples
    from eexit_cli.families.seq2seq.training import DecoderJob
    from eexit_cli.store.results import Run

TOLERANCE = 0.003
"""Three tenths of a point of the leading metric: a choice flatters itself on its own data, and rare
outputs that run away, which early exits cause, weigh much there or not at all; it should keep a
point on others."""

THRESHOLDS = tuple(round(0.95 - 0.05 * step, 2) for step in range(19))
"""From cautious to eager, as in calibration."""


@dataclass(frozen=True)
class DecodedSetting:
    """One way of leaving early, measured on validation data.

    Attributes:
        settings: of the exit; empty is the full model.
        quality: the task's metrics.
        exit_layers: of all output tokens; empty where there is none.
        num_layers: L.
    """

    settings: dict[str, Any]
    quality: dict[str, float]
    exit_layers: list[int]
    num_layers: int

    @property
    def depth(self) -> dict[str, float]:
        """Over all output tokens; no token is as deep as all layers."""
        return depth_metrics(self.exit_layers or [self.num_layers], self.num_layers)

    @property
    def mean_exit_layer(self) -> float:
        return self.depth["mean_exit_layer"]


class Validation:
    """Decodes the validation data again and again, tokenised once.

    Args:
        loaded: the model as it will be stored.
        examples: validation data.
        ticker: told about every setting.
    """

    def __init__(self, loaded: LoadedDecoder, examples: Examples, ticker: Ticker) -> None:
        self.loaded = loaded
        self.examples = examples
        self.ticker = ticker
        self.sources: Sources = prepare_sources(loaded, examples)
        columns = examples.dataset.column_names
        self.answers = list(examples.dataset["references" if "references" in columns else "target"])

    @property
    def leading(self) -> str:
        return self.examples.info.metrics[0]

    def measure(self, settings: dict[str, Any]) -> DecodedSetting:
        """Quality and depth of one setting; no settings are the full model."""
        chosen = settings_from(settings, self.loaded) if settings else full_model(self.loaded)
        decoded: DecodedSet = decode_examples(self.loaded, self.sources, chosen)
        self.ticker.advance(1, note=" ".join(str(value) for value in settings.values()))
        quality = compute_generation(self.examples.info, decoded.outputs, self.answers)
        return DecodedSetting(settings, quality, decoded.token_layers, self.loaded.num_layers)

    def lost(self, full: DecodedSetting, other: DecodedSetting) -> float:
        """How much worse than the full model, in the leading metric; negative is better."""
        change = full.quality[self.leading] - other.quality[self.leading]
        return -change if GENERATION_METRICS.load(self.leading).lower_is_better else change


def choose_threshold(
    validation: Validation, full: DecodedSetting, more: dict[str, Any]
) -> list[DecodedSetting]:
    """Softmax response from cautious to eager, up to the first that loses too much.

    Args:
        validation: what to measure on.
        full: the full model.
        more: settings beside measure and threshold, such as FREE's shallow layer.

    Returns:
        All that were measured; the last one is over the tolerance, unless none is.
    """
    tried: list[DecodedSetting] = []
    for threshold in THRESHOLDS:
        tried.append(validation.measure({"confidence": "softmax", "threshold": threshold, **more}))
        # Rounding of a mean must not decide about a whole sample.
        if validation.lost(full, tried[-1]) > TOLERANCE + 1e-9:
            break
    return tried


def finish_decoder_training(job: DecoderJob, run: Run, timings: dict[str, float]) -> dict[str, Any]:
    """Round to the stored dtype, choose the default exit, write the folder and the run."""
    model, config = job.model.eval(), job.config
    master = torch.float64 if job.settings.dtype == "float64" else torch.float32
    stored = as_dtype(config.save_dtype) if config.save_dtype else master
    # What is measured is what is stored.
    model.to(stored).to(device="cpu", dtype=master)
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    if job.purpose.classifiers:
        metrics, rows = _classifier_metrics(job, run)
    else:
        _describe_task(job)
        loaded = _loaded(job, master)
        settings = loaded.num_layers + len(THRESHOLDS)
        with job.progress.task("Choosing the exit", total=settings) as ticker:
            metrics, rows = _layer_metrics(job, Validation(loaded, job.validation, ticker))
    _remember(job, metrics)
    with job.workspace.publishing() as folder, utf8_path(folder) as named, no_bars():
        model.to(stored).save_pretrained(named)
        job.tokenizer.save_pretrained(named)
        card = write_decoder_card(
            job.workspace.output.name,
            model.config.to_dict(),
            weights=sum(weight.numel() for weight in model.parameters()),
            stored_dtype=str(stored).removeprefix("torch."),
            licence=config.licence,
        )
        (folder / "README.md").write_text(escaped(card), encoding="utf-8")
        remembers = note_training_rows(
            folder, config, job.training, job.validation, job.seen_before
        )
        size = sum(item.stat().st_size for item in folder.iterdir())
    job.progress.message(f"Model written to {job.workspace.output} ({size / 1e6:.1f} MB)")
    job.progress.message(remembers)
    timings = {**timings, "seconds": sum(timings.values())}
    metrics |= {"epochs": config.epochs, "examples": len(job.training)}
    return run.finish(metrics=metrics | {"seconds": timings["seconds"]}, rows=rows, timings=timings)


def _loaded(job: DecoderJob, dtype: torch.dtype) -> LoadedDecoder:
    output = job.workspace.output
    return LoadedDecoder(
        ref=ModelRef(name=output.name, kind="folder", path=output),
        folder=output,
        model=job.model,
        tokenizer=job.tokenizer,
        device=torch.device("cpu"),
        dtype=dtype,
        max_length=job.max_source,
        max_new_tokens=job.max_target,
    )


def _describe_task(job: DecoderJob) -> None:
    """Task, prefix and lengths into the configuration; an old exit belongs to old weights."""
    settings = job.model.config
    settings.task = job.info.name
    prefix = job.config.source_prefix
    settings.source_prefix = job.info.extra.get("source_prefix", "") if prefix is None else prefix
    settings.max_source_length = job.max_source
    settings.max_target_length = job.max_target
    settings.exit_defaults = {}


def _layer_metrics(
    job: DecoderJob, validation: Validation
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every layer as a static exit, then the default threshold; stored with the model."""
    leading, depth = validation.leading, validation.loaded.num_layers
    full = validation.measure({})
    static = [validation.measure({"static_layer": layer}) for layer in range(1, depth)]
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for layer, result in enumerate([*static, full], start=1):
        metrics |= {f"{name}_exit_{layer}": value for name, value in result.quality.items()}
        rows.append({"exit_layer": layer, **result.quality})
    metrics |= {f"{name}_full": value for name, value in full.quality.items()}
    free = job.purpose.free
    more: dict[str, Any] = {} if free is None else {"shallow_layer": free.shallow_layer}
    tried = choose_threshold(validation, full, more)
    fitting = [result for result in tried if validation.lost(full, result) <= TOLERANCE + 1e-9]
    chosen = fitting[-1] if fitting else full
    # A threshold of 1 is the full model of a confidence.
    settings = chosen.settings or {"confidence": "softmax", "threshold": 1.0, **more}
    metrics |= chosen.quality | chosen.depth
    metrics |= {"num_layers": depth, "validation_samples": len(job.validation)}
    job.model.config.exit_defaults = {
        **settings,
        "provenance": {
            "rule": f"last of {THRESHOLDS[0]}, {THRESHOLDS[1]}, ... before more than {TOLERANCE} "
            f"in {leading} is lost",
            "data": f"{job.info.name}, {job.validation.split}",
            "samples": len(job.validation),
            leading: chosen.quality[leading],
            f"{leading}_full": full.quality[leading],
            "mean_exit_layer": chosen.mean_exit_layer,
        },
    }
    job.progress.message(
        f"Default exit: softmax threshold {exact(settings['threshold'])}, chosen on validation "
        f"data: {leading} {chosen.quality[leading]:.4f} against {full.quality[leading]:.4f} of the "
        f"full model, mean exit layer {chosen.mean_exit_layer:.2f} of {depth}"
    )
    return metrics, rows


def _classifier_metrics(job: DecoderJob, run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """AUROC of each classifier at each layer, from the last validation."""
    last = list(run.records())[-1]
    metrics = {name: value for name, value in last.items() if name.startswith("auroc_")}
    layers = range(1, job.model.depth)
    rows = [
        {
            "confidence": name,
            **{f"auroc_exit_{layer}": metrics[f"auroc_{name}_exit_{layer}"] for layer in layers},
        }
        for name in job.purpose.classifiers
    ]
    samples = {"num_layers": job.model.depth, "validation_samples": len(job.validation)}
    return metrics | samples, rows


def _remember(job: DecoderJob, metrics: dict[str, Any]) -> None:
    """The way the model, or a classifier of it, was made, into its configuration."""
    config = job.config
    made: dict[str, Any] = {
        "command": made_by(config),
        "train_samples": len(job.training),
        "train_split": job.training.split,
        "versions": versions(),
    }
    settings = job.model.config
    if job.purpose.classifiers:
        known = dict(settings.training.get("classifiers", {}))
        for name in job.purpose.classifiers:
            scores = [metrics[f"auroc_{name}_exit_{layer}"] for layer in range(1, job.model.depth)]
            known[name] = {
                **made,
                "auroc": scores,
                "data": f"{job.info.name}, {job.validation.split}",
                "validation_samples": len(job.validation),
            }
        settings.training = {**settings.training, "classifiers": known}
        return
    left_out = ("output", "results_dir", "resume")
    defaults = TrainConfig().as_dict()
    options = {
        key: value
        for key, value in config.as_dict().items()
        if key not in left_out and (value != defaults[key] or key in ("model", "seed", "epochs"))
    }
    strategy = job.purpose.strategy
    assert strategy is not None
    settings.training = {
        **options,
        **path_of_data(config),
        **made,
        "backbone": job.backbone,
        "strategy": strategy.name,
        "source": strategy.source,
        "task": job.info.name,
        "leading_metric": job.info.metrics[0],
        "learning_rate": job.settings.learning_rate,
        "batch_size": job.settings.batch_size,
        "validation": metrics,
        **({} if job.held_out is None else {KEY: job.held_out}),
    }
