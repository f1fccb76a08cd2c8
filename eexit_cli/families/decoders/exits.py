"""From options and a decoder's stored default to one way of leaving it early."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eexit_cli.confidence import DECODER_MEASURES, MEASURES
from eexit_cli.confidence.decoder import build_measure
from eexit_cli.config.field import flag, values_of
from eexit_cli.core.decoding import LeaveRule
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.settings import DRAFT_TOKENS, DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.families.decoders.loaded import LoadedDecoder

DEFAULT_MEASURE = "softmax"
DEFAULT_TEMPERATURE = 4.0
"""tau of a decaying threshold where nobody says: CALM's."""

SWEEP = tuple(round(0.95 - 0.05 * step, 2) for step in range(19))
"""Thresholds of a sweep, from cautious to eager; the full model comes before them."""

NO_DECAY = "none"
EVERY_TOKEN = 0
"""``top_k_propagation`` that switches off what the model stores."""

FULL, STATIC, THRESHOLD, SHALLOW_DEEP = "full", "static", "threshold", "shallow-deep"
SPECULATIVE = "self-speculative"
"""Names of a decoder's exit criteria in documents."""


class DecoderExitOptions(Protocol):
    """The attributes that are read of ``config.common.ExitConfig`` and of
    ``config.decoder.DecoderExitConfig``."""

    @property
    def confidence(self) -> str | None: ...
    @property
    def threshold(self) -> float | str | None: ...
    @property
    def static_layer(self) -> int | None: ...
    @property
    def min_layer(self) -> int | None: ...
    @property
    def top_k_propagation(self) -> int | None: ...
    @property
    def decay(self) -> str | None: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def shallow_layer(self) -> int | None: ...
    @property
    def adaptive_threshold(self) -> bool | None: ...
    @property
    def self_speculative(self) -> bool | None: ...
    @property
    def exit_layer(self) -> int | None: ...
    @property
    def draft_tokens(self) -> int | None: ...
    @property
    def draft_threshold(self) -> float | None: ...


_OF_THRESHOLDS = (
    "threshold",
    "confidence",
    "min_layer",
    "top_k_propagation",
    "decay",
    "temperature",
    "shallow_layer",
    "adaptive_threshold",
)


_OF_DRAFTS = ("exit_layer", "draft_tokens", "draft_threshold")


def decoder_settings(
    options: DecoderExitOptions, loaded: LoadedDecoder, *, timings: bool = False
) -> DecodeSettings:
    """How to decode: what the options ask for, or else the model's own way.

    Args:
        options: ``config.evaluate.EvaluateConfig`` and the like, one value each.
        loaded: the model.
        timings: measure the time of each part.

    Raises:
        UsageError: options that exclude each other or do not fit the model.
    """
    settings = resolve_settings(options, loaded.exit_defaults, model=loaded.ref.name)
    return settings_from(settings, loaded, timings=timings)


def resolve_settings(
    options: DecoderExitOptions, defaults: Mapping[str, Any], *, model: str = "the model"
) -> dict[str, Any]:
    """Options and a model's ``exit_defaults`` put together, as :func:`describe_settings` writes it.

    Options override the stored ones one by one. What is stored for one measure (its threshold,
    decay and top-k propagation) does not hold for another.

    Args:
        options: see :class:`DecoderExitOptions`.
        defaults: for instance ``{"confidence": "softmax", "threshold": 0.9, "min_layer": 1}``;
            empty where the model has none.
        model: its name, for messages.

    Raises:
        UsageError: options that exclude each other, or say nothing.
    """
    given = [name for name in _OF_THRESHOLDS if getattr(options, name) is not None]
    of_drafts = {name: getattr(options, name, None) for name in _OF_DRAFTS}
    of_drafts = {name: value for name, value in of_drafts.items() if value is not None}
    if getattr(options, "self_speculative", None):
        if options.static_layer is not None:
            given.append("static_layer")
        if given:
            raise UsageError(
                f"{flag(given[0])} and --self-speculative exclude each other",
                hint="Its outputs are the full model's, no token leaves early: give one of them",
            )
        return {"criterion": SPECULATIVE, **of_drafts}
    if of_drafts:
        raise UsageError(
            f"{flag(next(iter(of_drafts)))} says nothing without --self-speculative",
            hint="Add --self-speculative; where tokens leave is said by --threshold or "
            "--static-layer",
        )
    if options.static_layer is not None:
        if given:
            raise UsageError(
                f"{flag(given[0])} and --static-layer exclude each other",
                hint="A static exit leaves after its layer, always: give one of them",
            )
        return {"criterion": STATIC, "static_layer": options.static_layer}
    stored = _normalised(defaults)
    if not given:
        return _complete(stored)
    if "static_layer" in stored:
        stored = {}
    asked = options.confidence or stored.get("confidence") or DEFAULT_MEASURE
    confidence = decoder_measure(asked, model=model)
    same = confidence == stored.get("confidence")
    settings: dict[str, Any] = {"confidence": confidence}
    if options.threshold is not None:
        settings["threshold"] = _number(options.threshold)
    elif same:
        settings["threshold"] = stored["threshold"]
    else:
        raise UsageError(
            f"Model '{model}' stores no threshold for '{confidence}'",
            hint="Add --threshold VALUE, from 0 to 1; eexit evaluate --sweep shows what each does",
        )
    if options.shallow_layer is None:
        settings["min_layer"] = options.min_layer or stored.get("min_layer", 1)
    elif options.min_layer is not None:
        settings["min_layer"] = options.min_layer  # refused where the settings are checked
    kept = stored if same else {}
    top_k = options.top_k_propagation
    settings["top_k_propagation"] = (
        kept.get("top_k_propagation") if top_k is None else top_k or None
    )
    settings |= _decay(options, kept)
    settings["shallow_layer"] = options.shallow_layer or stored.get("shallow_layer")
    adaptive = options.adaptive_threshold
    settings["adaptive_threshold"] = (
        stored.get("adaptive_threshold") if adaptive is None else adaptive
    )
    if adaptive and settings["shallow_layer"] is None:
        raise UsageError(
            "--adaptive-threshold is FREE's: it says nothing without --shallow-layer",
            hint="Add --shallow-layer N, or drop --adaptive-threshold",
        )
    return _complete(settings)


def settings_from(
    settings: Mapping[str, Any], loaded: LoadedDecoder, *, timings: bool = False
) -> DecodeSettings:
    """Ready to decode, from a description (``exit_defaults``, a row, a run's document).

    Raises:
        UsageError: a value outside the model's range, a classifier that it lacks, settings that
            exclude each other.
    """
    settings = _complete(_normalised(settings))
    common: dict[str, Any] = {"max_new_tokens": loaded.max_new_tokens, "timings": timings}
    if settings["criterion"] == FULL:
        made = DecodeSettings(**common)
    elif settings["criterion"] == SPECULATIVE:
        made = DecodeSettings(**_drafts(settings, loaded), **common)
    elif settings["criterion"] == STATIC:
        made = DecodeSettings(static_layer=int(settings["static_layer"]), **common)
    else:
        made = DecodeSettings(
            measure=build_measure(
                settings["confidence"],
                dict(loaded.model.cm_heads.items()),
                model=loaded.ref.name,
            ),
            rule=_rule(settings, loaded.max_new_tokens),
            min_layer=int(settings.get("min_layer") or 1),
            top_k=settings.get("top_k_propagation"),
            shallow_layer=settings.get("shallow_layer"),
            collect_pairs=bool(settings.get("adaptive_threshold")),
            **common,
        )
    made.check(loaded.model.config)
    return made


def _drafts(settings: Mapping[str, Any], loaded: LoadedDecoder) -> dict[str, Any]:
    if not loaded.model.prompted:
        raise UsageError(
            f"Self-speculation is for decoder-only models; '{loaded.ref.name}' is none",
            hint="Use one such as layerskip",
        )
    # LayerSkip's models of 16 to 40 layers draft best from the first quarter or so.
    quarter = max(1, round(loaded.num_layers / 4))
    nearest = min(loaded.exit_layers, key=lambda layer: abs(layer - quarter))
    layer = settings.get("exit_layer") or nearest
    return {
        "draft_layer": int(layer),
        "draft_tokens": int(settings.get("draft_tokens") or DRAFT_TOKENS),
        "draft_threshold": float(settings.get("draft_threshold") or 0.0),
    }


def full_model(loaded: LoadedDecoder, *, timings: bool = False) -> DecodeSettings:
    """Every token through all layers: what every setting is compared with."""
    return DecodeSettings(max_new_tokens=loaded.max_new_tokens, timings=timings)


def describe_settings(settings: DecodeSettings) -> dict[str, Any]:
    """Settings for the run's document; the full model has a name of its own."""
    if settings.static_layer is not None:
        return {"criterion": STATIC, "static_layer": settings.static_layer}
    if settings.draft_layer is not None:
        threshold = settings.draft_threshold
        return {
            "criterion": SPECULATIVE,
            "exit_layer": settings.draft_layer,
            "draft_tokens": settings.draft_tokens,
            **({"draft_threshold": threshold} if threshold else {}),
        }
    if settings.measure is None or settings.rule is None:
        return {"criterion": FULL}
    shallow = settings.shallow_layer is not None
    described: dict[str, Any] = {
        "criterion": SHALLOW_DEEP if shallow else THRESHOLD,
        "confidence": settings.measure.name,
        **settings.rule.describe(),
    }
    if shallow:
        described["shallow_layer"] = settings.shallow_layer
    else:
        described["min_layer"] = settings.min_layer
    if settings.top_k is not None:
        described["top_k_propagation"] = settings.top_k
    return described


def decoder_measure(name: str, *, model: str = "the model") -> str:
    """The registered name of a measure on a decoder's tokens.

    Raises:
        UsageError: the name is unknown, or that of a measure on a classifier's exits.
    """
    if name in MEASURES and name not in DECODER_MEASURES and name != "margin":
        raise UsageError(
            f"Confidence '{name}' is for classifiers; model '{model}' is a decoder",
            hint=f"Available: {', '.join(DECODER_MEASURES)}",
        )
    return DECODER_MEASURES.canonical(name)


def sweep_settings(
    loaded: LoadedDecoder, measures: Sequence[str], options: Any
) -> list[DecodeSettings]:
    """The full model, then every threshold of every measure.

    Args:
        measures: registered names; none takes all that the model has, and the static layers.
        options: a configuration whose other exit options hold for all; its
            ``top_k_propagation`` may have several values.

    Raises:
        UsageError: a measure whose classifier the model lacks, or top-k propagation of another
            measure than softmax.
    """
    if getattr(options, "self_speculative", None):
        return _speculative_sweep(loaded, options)
    untrained = [name for name in DECODER_MEASURES if name in ("softmax", "saturation")]
    swept = [full_model(loaded)]
    for name in measures or [*untrained, *loaded.model.config.classifiers]:
        # Where every measure is meant, K says something about one of them alone.
        meant = bool(measures) or name == "softmax"
        for top_k in (values_of(options, "top_k_propagation") if meant else []) or [None]:
            for threshold in SWEEP:
                choice: Any = dataclasses.replace(
                    options,
                    confidence=name,
                    threshold=threshold,
                    top_k_propagation=top_k,
                    static_layer=None,
                )
                swept.append(decoder_settings(choice, loaded))
    if not measures:
        for layer in loaded.exit_layers[-2::-1]:
            swept.append(settings_from({"static_layer": layer}, loaded))
    return swept


def _speculative_sweep(loaded: LoadedDecoder, options: Any) -> list[DecodeSettings]:
    """The full model, then drafts of every layer, the deepest first."""
    swept = [full_model(loaded)]
    for layer in loaded.exit_layers[-2::-1]:
        choice: Any = dataclasses.replace(options, exit_layer=layer)
        swept.append(decoder_settings(choice, loaded))
    return swept


def _number(threshold: float | str) -> float:
    if isinstance(threshold, str):
        raise UsageError(
            f"Threshold '{threshold}' is no number",
            hint="Give a number from 0 to 1, or --threshold calibrated",
        )
    return float(threshold)


def _decay(options: DecoderExitOptions, kept: Mapping[str, Any]) -> dict[str, Any]:
    form = options.decay or kept.get("decay")
    if form in (None, NO_DECAY):
        if options.temperature is not None:
            raise UsageError(
                "--temperature says nothing without a decaying threshold",
                hint="Add --decay paper or --decay code, or drop --temperature",
            )
        return {}
    temperature = options.temperature
    if temperature is None:
        temperature = kept.get("temperature", DEFAULT_TEMPERATURE)
    return {"decay": form, "temperature": temperature}


def _rule(settings: Mapping[str, Any], max_new_tokens: int) -> LeaveRule:
    threshold = float(settings["threshold"])
    if settings.get("adaptive_threshold"):
        if settings.get("decay"):
            raise UsageError(
                "--adaptive-threshold and --decay exclude each other",
                hint="One threshold follows the data, the other the position: give one of them",
            )
        return AdaptiveThreshold(threshold)
    if not settings.get("decay"):
        return TokenThreshold(threshold)
    return TokenThreshold(
        threshold,
        temperature=float(settings["temperature"]),
        max_length=max_new_tokens,
        form=settings["decay"],
    )


_OTHER_NAMES = {"decay_temperature": "temperature", "adaptive": "adaptive_threshold"}
"""As a rule describes itself, and as published checkpoints are read."""


def _normalised(settings: Mapping[str, Any]) -> dict[str, Any]:
    named = {_OTHER_NAMES.get(name, name): value for name, value in settings.items()}
    if named.get("adaptive_threshold") and "threshold_start" in named:
        named["threshold"] = named["threshold_start"]
    known = {"criterion", "static_layer", *_OF_DRAFTS, *_OF_THRESHOLDS}
    return {name: value for name, value in named.items() if name in known and value is not None}


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """With the criterion's name, without what is not set."""
    found = {name: value for name, value in settings.items() if value is not None}
    if found.get("criterion") is None:
        if "exit_layer" in found:
            found["criterion"] = SPECULATIVE
        elif "static_layer" in found:
            found["criterion"] = STATIC
        elif "shallow_layer" in found:
            found["criterion"] = SHALLOW_DEEP
        else:
            found["criterion"] = THRESHOLD if "threshold" in found else FULL
    return found
