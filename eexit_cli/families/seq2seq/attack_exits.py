"""A decoder's exit as an attack sees it: what can be slowed down, and what a gradient reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eexit_cli.confidence.saturation import saturation
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.families.seq2seq.exits import decoder_settings
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import LayerStates, MultiExitT5

if TYPE_CHECKING:
    from eexit_cli.attacks.decoder_victim import ExitReader
    from eexit_cli.families.seq2seq.loaded import LoadedDecoder


@dataclass(frozen=True)
class LogitsReader:
    """The LM head at each exit, over the whole vocabulary; for softmax response.

    Under top-k propagation the live confidence is over the K kept tokens; the runner-up is one of
    them, so the whole vocabulary's logits point the same way.
    """

    model: MultiExitT5
    layers: tuple[int, ...]

    @property
    def width(self) -> int:
        return int(self.model.config.vocab_size)

    def __call__(self, states: LayerStates) -> Tensor:
        """Shape: [batch, tokens, exits, vocabulary]."""
        logits = [self.model.exit_logits(states.states[layer - 1]) for layer in self.layers]
        return torch.stack(logits, dim=2)


@dataclass(frozen=True)
class ClassifierReader:
    """A trained classifier's confidence at each exit."""

    classifier: nn.Module
    layers: tuple[int, ...]
    width: int = 1

    def __call__(self, states: LayerStates) -> Tensor:
        """Shape: [batch, tokens, exits]."""
        answers = [self.classifier(states.states[layer - 1]) for layer in self.layers]
        # Shape: [batch, tokens, exits, 2] -> [batch, tokens, exits]
        return torch.softmax(torch.stack(answers, dim=2), dim=-1)[..., 1]


@dataclass(frozen=True)
class SaturationReader:
    """Cosine similarity of each exit's state with the one of the layer before."""

    layers: tuple[int, ...]
    width: int = 1

    def __call__(self, states: LayerStates) -> Tensor:
        """Shape: [batch, tokens, exits]."""
        pairs = [(states.residuals[at - 2], states.residuals[at - 1]) for at in self.layers]
        return torch.stack([saturation(*pair) for pair in pairs], dim=2)


def exit_reader(loaded: LoadedDecoder, settings: DecodeSettings) -> ExitReader:
    """What a slowdown's loss looks at, for the measure that the settings leave by.

    Raises:
        UsageError: no token is ever asked for its confidence.
    """
    assert settings.measure is not None
    model, measure = loaded.model, settings.measure
    # Saturation compares with the layer before, so layer 1 is never sure.
    first = max(settings.min_layer, 2 if measure.needs == "residuals" else 1)
    layers = tuple(range(first, loaded.num_layers))
    if settings.shallow_layer is not None:
        layers = tuple(layer for layer in layers if layer == settings.shallow_layer)
    if not layers:
        raise UsageError(
            f"With these exits no token leaves before layer {loaded.num_layers}, the last",
            hint="Give a smaller --min-layer, or another --confidence",
        )
    if measure.needs == "logits":
        return LogitsReader(model, layers)
    if measure.needs == "residuals":
        return SaturationReader(layers)
    return ClassifierReader(model.cm_heads[measure.name], layers)


def attacked_settings(config: AttackConfig, loaded: LoadedDecoder) -> DecodeSettings:
    """The way of leaving that is attacked.

    Raises:
        UsageError: it does not depend on the input, or depends on other inputs too; or an option
            that its measure gives no meaning to.
    """
    settings = settings_by_input(config, loaded)
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
    if settings.measure is None and settings.static_layer is None:
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
