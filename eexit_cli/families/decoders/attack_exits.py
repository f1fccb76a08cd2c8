"""A decoder's exit as an attack sees it: what can be slowed down, and what a gradient reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eexit_cli.confidence.saturation import saturation
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.families.decoders.exits import decoder_settings
from eexit_cli.models.decoding.decoder import ExitDecoder, LayerStates
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.attacks.decoder_victim import ExitReader
    from eexit_cli.families.decoders.loaded import LoadedDecoder


@dataclass(frozen=True)
class TeacherForcedReader:
    """Reads each exit off a pass through all layers; what the attacks call an ``ExitReader``.

    Attributes:
        layers: exits that tokens are asked at, 1..L-1.
        width: numbers per token and exit.
        read: of one exit layer. Shape: [batch, tokens, ...].
    """

    model: ExitDecoder
    layers: tuple[int, ...]
    width: int
    read: Callable[[LayerStates, int], Tensor]

    def __call__(self, embedded: Tensor, attention_mask: Tensor, outputs: Tensor) -> Tensor:
        """Shape: [batch, tokens, exits, ...]."""
        states = self.model.layer_states(
            None, attention_mask, self.model.shift_right(outputs), inputs_embeds=embedded
        )
        return torch.stack([self.read(states, layer) for layer in self.layers], dim=2)


def exit_reader(
    loaded: LoadedDecoder, settings: DecodeSettings, score: str | None = None
) -> ExitReader:
    """What a slowdown's loss looks at, for the measure that the settings leave by.

    Args:
        score: what the attack wants; None is later exits.

    Raises:
        UsageError: no token is ever asked for its confidence, or none ends an output.
    """
    model, measure = loaded.model, settings.measure
    if score == SCORE_OF_LENGTH:
        if not model.config.end_tokens:
            raise UsageError(
                f"'{loaded.ref.name}' names no token that ends an output: all are as long as they "
                "may be",
                hint=f"Attack something else than --score {SCORE_OF_LENGTH}",
            )
        return _logits_reader(loaded, (loaded.num_layers,))
    if settings.draft_layer is not None:
        return _logits_reader(loaded, (settings.draft_layer, loaded.num_layers))
    assert measure is not None
    # Saturation compares with the layer before, so layer 1 is never sure.
    first = max(settings.min_layer, 2 if measure.needs == "residuals" else 1)
    layers = tuple(layer for layer in loaded.exit_layers[:-1] if layer >= first)
    if settings.shallow_layer is not None:
        layers = tuple(layer for layer in layers if layer == settings.shallow_layer)
    if not layers:
        raise UsageError(
            f"With these exits no token leaves before layer {loaded.num_layers}, the last",
            hint="Give a smaller --min-layer, or another --confidence",
        )

    def read(states: LayerStates, layer: int) -> Tensor:
        if measure.needs == "residuals":
            return saturation(*states.residuals[layer - 2 : layer])
        if measure.needs == "logits":
            # Under top-k propagation the live confidence is over the K kept tokens; the runner-up
            # is one of them, so the whole vocabulary's logits point the same way.
            return model.layer_logits(states.states[layer - 1], layer)
        # Shape: [batch, tokens, 2]
        answers = model.cm_heads[measure.name](states.states[layer - 1])
        return torch.softmax(answers, dim=-1)[..., 1]

    width = int(model.config.vocab_size) if measure.needs == "logits" else 1
    return TeacherForcedReader(model, layers, width, read)


def _logits_reader(loaded: LoadedDecoder, layers: tuple[int, ...]) -> ExitReader:
    """The logits of these layers: of drafts and of what judges them, or of the last alone."""
    model = loaded.model

    def read(states: LayerStates, layer: int) -> Tensor:
        return model.layer_logits(states.states[layer - 1], layer)

    return TeacherForcedReader(model, layers, int(model.config.vocab_size), read)


SCORE_OF_DRAFTS, SCORE_OF_LENGTH = "acceptance", "output-length"


def score_of(config: AttackConfig, settings: DecodeSettings) -> str:
    """What the attack wants of this way of decoding.

    Raises:
        UsageError: what it does not have.
    """
    default = AttackConfig().score
    if settings.draft_layer is not None:
        if config.score == SCORE_OF_LENGTH:
            return config.score
        if config.score not in (default, SCORE_OF_DRAFTS):
            raise UsageError(
                f"--score {config.score} says nothing to self-speculation: all layers make every "
                "token",
                hint=f"Drop it, for {SCORE_OF_DRAFTS}",
            )
        return SCORE_OF_DRAFTS
    if config.score == SCORE_OF_DRAFTS:
        raise UsageError(
            f"--score {SCORE_OF_DRAFTS} is of self-speculation's drafts",
            hint="Add --self-speculative",
        )
    return config.score


def attacked_settings(config: AttackConfig, loaded: LoadedDecoder) -> DecodeSettings:
    """The way of leaving that is attacked.

    Raises:
        UsageError: it does not depend on the input, or depends on other inputs too; or an option
            that its measure gives no meaning to.
    """
    settings = settings_by_input(config, loaded)
    score = score_of(config, settings)
    if score in (SCORE_OF_DRAFTS, SCORE_OF_LENGTH):
        if config.lam != AttackConfig().lam:
            raise UsageError(
                f"--lam says nothing to an attack on {score}",
                hint="Leave it out: it weighs two terms of a loss on early exits",
            )
        return settings
    if settings.measure is None:
        raise UsageError(
            "A static exit layer cannot be slowed down: it does not depend on the input",
            hint="Give --threshold",
        )
    if settings.measure.needs != "logits" and config.lam != AttackConfig().lam:
        raise UsageError(
            f"--lam says nothing to an attack on '{settings.measure.name}'",
            hint="Leave it out: it weighs two terms of a loss on softmax response",
        )
    return settings


def settings_by_input(config: AttackConfig, loaded: LoadedDecoder) -> DecodeSettings:
    """A way of leaving early that one input says something about; a static layer is one.

    Raises:
        UsageError: the full model, or a threshold that depends on other inputs too.
    """
    settings = decoder_settings(config, loaded)
    by_input = settings.static_layer is not None or settings.draft_layer is not None
    if settings.measure is None and not by_input:
        raise UsageError(
            f"'{loaded.ref.name}' stores no exit setting, so every token uses all layers",
            hint="Give --threshold VALUE",
        )
    if isinstance(settings.rule, AdaptiveThreshold):
        raise UsageError(
            "An adaptive threshold depends on the inputs before, so one input says nothing",
            hint="Give a fixed one: --threshold VALUE --no-adaptive-threshold",
        )
    return settings
