"""The end of a decoder's training: its default exit, what it measured, what its card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.config.train import TrainConfig
from eexit_cli.families.decoders.decoding import (
    DecodedSet,
    Sources,
    decode_examples,
    given_likelihoods,
    prepare_sources,
)
from eexit_cli.families.decoders.exits import full_model, settings_from
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.decoders.texts import lost, scores_of
from eexit_cli.families.training import Metrics, Rows, by_exit
from eexit_cli.metrics.depth import depth_metrics
from eexit_cli.metrics.perplexity import PERPLEXITY, perplexity
from eexit_cli.training.card import describe_exit, table

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Ticker
    from eexit_cli.core.types import Examples
    from eexit_cli.families.decoders.training import DecoderJob
    from eexit_cli.store.results import Run

TOLERANCE = 0.003
"""Three tenths of a point of the leading metric: a choice flatters itself on its own data, and rare
outputs that run away, which early exits cause, weigh much there or not at all; it should keep a
point on others."""

THRESHOLDS = tuple(round(0.95 - 0.05 * step, 2) for step in range(19))
"""From cautious to eager, as in calibration."""


@dataclass(frozen=True)
class CardWords:
    """What a card says of a family.

    Attributes:
        tag: of the card, and what ``--model`` of a training calls it.
        what: a model of it.
        how: its tokens leave, with the source.
    """

    tag: str
    what: str
    how: str


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
        quality = scores_of(self.examples.info, decoded, self.answers).corpus
        return DecodedSetting(settings, quality, decoded.token_layers, self.loaded.num_layers)

    def by_layer(self) -> dict[int, DecodedSetting]:
        """Every exit as a static one, in order; the last is the full model."""
        if self.examples.info.raw_text:
            return self._read()
        *exits, last = self.loaded.exit_layers
        static = {layer: self.measure({"static_layer": layer}) for layer in exits}
        return {**static, last: self.measure({})}

    def _read(self) -> dict[int, DecodedSetting]:
        """The same of raw text, in one pass: what is below an exit does not depend on where tokens
        leave, so that nothing need be decoded."""
        found = {}
        for layer, values in given_likelihoods(self.loaded, self.sources).items():
            self.ticker.advance(1, note=str(layer))
            quality = {PERPLEXITY: perplexity(values)}
            settings = {} if layer == self.loaded.num_layers else {"static_layer": layer}
            layers = [layer] * len(values)
            found[layer] = DecodedSetting(settings, quality, layers, self.loaded.num_layers)
        return found

    def lost(self, full: DecodedSetting, other: DecodedSetting) -> float:
        """How much worse than the full model, in the leading metric; negative is better."""
        return lost(self.leading, full.quality[self.leading], other.quality[self.leading])


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


def measure(job: DecoderJob, run: Run, dtype: torch.dtype) -> tuple[Metrics, Rows]:
    """What validation gave: of the layers, whose default exit is chosen, or of classifiers."""
    if job.purpose.classifiers:
        return _classifier_metrics(job, run)
    # Task, prefix and lengths into the configuration; an old exit belongs to old weights.
    settings, prefix = job.model.config, job.config.source_prefix
    settings.task = job.info.name
    settings.source_prefix = job.info.extra.get("source_prefix", "") if prefix is None else prefix
    settings.max_source_length = job.max_source
    settings.max_target_length = job.max_target
    settings.exit_defaults = {}
    loaded = job.loaded_model(dtype)
    settings_tried = len(loaded.exit_layers) + len(THRESHOLDS)
    with job.progress.task("Choosing the exit", total=settings_tried) as ticker:
        return _layer_metrics(job, Validation(loaded, job.validation, ticker))


def _layer_metrics(job: DecoderJob, validation: Validation) -> tuple[Metrics, Rows]:
    """Every layer as a static exit, then the default threshold; stored with the model."""
    leading, depth = validation.leading, job.depth
    static = validation.by_layer()
    full = static[depth]
    metrics, rows = by_exit({layer: each.quality for layer, each in static.items()})
    more = {} if job.purpose.recipe is None else job.purpose.recipe.exit
    tried = choose_threshold(validation, full, more)
    fitting = [result for result in tried if validation.lost(full, result) <= TOLERANCE + 1e-9]
    chosen = fitting[-1] if fitting else full
    metrics |= chosen.quality | chosen.depth
    metrics |= {"num_layers": depth, "validation_samples": len(job.validation)}
    job.leave_by(
        # A threshold of 1 is the full model of a confidence.
        chosen.settings or {"confidence": "softmax", "threshold": 1.0, **more},
        f"last of {THRESHOLDS[0]}, {THRESHOLDS[1]}, ... before more than {TOLERANCE} in {leading} "
        "is lost",
        chosen.quality[leading],
        full.quality[leading],
        chosen.mean_exit_layer,
    )
    return metrics, rows


def _classifier_metrics(job: DecoderJob, run: Run) -> tuple[Metrics, Rows]:
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


def remember(job: DecoderJob, metrics: Metrics) -> None:
    """The way the model, or a classifier of it, was made, into its configuration."""
    settings, strategy = job.model.config, job.purpose.strategy
    if strategy is None:
        known = dict(settings.training.get("classifiers", {}))
        for name in job.purpose.classifiers:
            known[name] = {
                **job.made(),
                "auroc": [metrics[f"auroc_{name}_exit_{layer}"] for layer in range(1, job.depth)],
                "data": f"{job.info.name}, {job.validation.split}",
                "validation_samples": len(job.validation),
            }
        settings.training = {**settings.training, "classifiers": known}
        return
    defaults = TrainConfig().as_dict()
    options = {
        name: value
        for name, value in job.options().items()
        if value != defaults[name] or name in ("model", "seed", "epochs")
    }
    settings.training = job.history(
        metrics,
        options,
        backbone=None if job.source is None else job.source.name,
        strategy=strategy.name,
        source=strategy.source,
        leading_metric=job.info.metrics[0],
        learning_rate=job.settings.learning_rate,
        batch_size=job.settings.batch_size,
    )


def card_facts(job: DecoderJob, dtype: str) -> dict[str, Any]:
    """What a decoder's card says, for :func:`eexit_cli.training.card.write_card`.

    It is all from the model's configuration: classifiers come to a model that was made before.
    """
    config, name, words = job.model.config.to_dict(), job.workspace.output.name, job.words
    training, depth = config["training"], job.depth
    backbone, classifiers = training.get("backbone"), training.get("classifiers", {})
    entries = (training, *classifiers.values())
    sections = (
        [_layers(training, config["exit_defaults"], depth)] if "validation" in training else []
    )
    if classifiers:
        sections.append(_classifiers(classifiers))
    return {
        "tag": words.tag,
        "backbone": backbone,
        "task": config.get("task"),
        "what": f"""{words.what} for `{config.get("task")}` {words.how}: \
a token that a layer is sure about leaves there, the rest goes on, at most to
layer {depth}.""",
        "points": [
            f"{_shape(config, depth)}, vocabulary {config['vocab_size']}, "
            f"{job.weights / 1e6:.2f} M weights\n  (classifiers included), stored in {dtype}",
            f"Started from: {backbone or 'random weights'}",
            f"Training: {training.get('strategy', 'not known')} "
            f"({training.get('source', 'not by eexit')}), {training.get('train_samples', '?')} "
            "samples",
            f"Confidence classifiers: {', '.join(config['classifiers']) or 'none'}",
            "Licence: " + (job.config.licence or "not stated; the data's licence applies"),
        ],
        "use": [
            f'eexit predict --model {name} "a text of yours"',
            f"eexit evaluate --model {name}",
            f"eexit calibrate --model {name} --delta 0.1",
        ],
        "commands": dict.fromkeys(entry["command"] for entry in entries if "command" in entry),
        "versions": {
            f"{program} {number}"
            for entry in entries
            for program, number in entry.get("versions", {}).items()
        },
        "sections": sections,
        "limits": """one task and writes something for any text, without saying that a text is \
out of its domain. A
confident early exit can be wrong, and inputs can be made to leave late on purpose \
(`eexit attack`).""",
    }


def _shape(config: Mapping[str, Any], depth: int) -> str:
    if "num_decoder_layers" in config:
        return (
            f"{config['num_layers']} encoder and {depth} decoder layers, width {config['d_model']}"
        )
    return f"{depth} layers, width {config.get('hidden_size') or config.get('n_embd')}"


def _layers(training: Mapping[str, Any], exits: Mapping[str, Any], depth: int) -> tuple[str, str]:
    values, metric = training["validation"], training["leading_metric"]
    names = {layer: f"{metric}_exit_{layer}" for layer in range(1, depth + 1)}
    rows = [(str(layer), f"{values[name]:.4f}") for layer, name in names.items() if name in values]
    rule = exits.get("provenance", {}).get("rule", "stored one")
    share = 1 - values["mean_exit_layer"] / depth
    return (
        f"Measured on validation data ({values['validation_samples']} samples)",
        f"""All tokens leaving at one layer:

{table(("layer", metric), rows)}

Default exit: **{describe_exit(exits)}**, {metric} \
{values[metric]:.4f} against {values[f"{metric}_full"]:.4f}
of the full model, mean exit layer {values["mean_exit_layer"]:.2f} of {depth} \
({100 * share:.0f} % of the layers saved). Of the thresholds from
cautious to eager it is the {rule}. Since it was chosen on these data,
these figures flatter it slightly: test data were not touched.""",
    )


def _classifiers(classifiers: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    depth = max(len(entry["auroc"]) for entry in classifiers.values())
    rows = [
        (name, *("-" if value is None else f"{value:.3f}" for value in entry["auroc"]))
        for name, entry in classifiers.items()
    ]
    samples = ", ".join(sorted({entry["data"] for entry in classifiers.values()}))
    return (
        "How well the classifiers rank",
        f"""AUROC of "this layer says what the last one says" for the tokens of held-out samples \
({samples});
0.5 is chance. The last layer agrees with itself.

{table(("classifier", *(f"layer {layer}" for layer in range(1, depth + 1))), rows)}""",
    )
