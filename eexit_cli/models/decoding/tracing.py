"""A teacher-forced pass with what every layer would say, for training and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eexit_cli.models.decoding.scoring import allowed

if TYPE_CHECKING:
    from eexit_cli.models.decoding.decoder import ExitDecoder

IGNORED = -100
"""Label of positions that are padding."""


@dataclass(frozen=True)
class TokenTrace:
    """What each decoder layer makes of each target token.

    Attributes:
        states: under the final norm: what the head and the classifiers read.
            Shape: [batch, tokens, layers, d].
        residuals: raw layer outputs, for saturation. Shape: [batch, tokens, layers, d].
        tokens: argmax of the LM head on each state, of the tokens that may be chosen.
            Shape: [batch, tokens, layers], int64.
        mask: True where there is a target. Shape: [batch, tokens], bool.
    """

    states: Tensor
    residuals: Tensor
    tokens: Tensor
    mask: Tensor

    @property
    def agreement(self) -> Tensor:
        """Does layer i choose what layer L chooses? Shape: [batch, tokens, layers], bool."""
        return self.tokens == self.tokens[..., -1:]


@torch.no_grad()
def trace_tokens(
    model: ExitDecoder,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor,
    *,
    longest: int,
) -> TokenTrace:
    """Run all layers on given targets.

    Under ``no_grad`` and not ``inference_mode``, so that classifiers can train on the states.

    Args:
        model: in eval mode for a trace without dropout.
        input_ids: Shape: [batch, source tokens].
        attention_mask: Shape: [batch, source tokens].
        labels: targets, -100 where padded. Shape: [batch, tokens].
        longest: tokens of the longest output, where the last one may be forced.
    """
    rules = model.token_rules(longest)
    ban = None if rules is None else rules.of_rows(torch.arange(labels.shape[1]))
    layers = model.layer_states(input_ids, attention_mask, model.shift_right(labels))
    # One layer's logits at a time: all of them together are layers x vocabulary per token.
    tokens = torch.stack(
        [
            allowed(model.layer_logits(state, layer), ban).argmax(dim=-1)
            for layer, state in enumerate(layers.states, start=1)
        ],
        -1,
    )
    return TokenTrace(
        states=torch.stack(layers.states, dim=2),
        residuals=torch.stack(layers.residuals, dim=2),
        tokens=tokens,
        mask=labels != IGNORED,
    )
