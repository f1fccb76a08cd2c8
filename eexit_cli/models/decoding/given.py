"""Outputs that stand fixed: they are read whatever the exits choose, which is judged by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.models.decoding.results import DecodedSample
from eexit_cli.models.decoding.settings import DecodeSettings


class Given:
    """The true outputs of the inputs, in the order in which those come in.

    Each step reads the true token in place of the chosen one (teacher forcing), and notes how
    probable the exit that the token left by found the true one. Skipped layers have the keys and
    values that they have when the model is run, so that what is judged is what is run.

    Args:
        outputs: ids, one or more for each input.
    """

    def __init__(self, outputs: Sequence[Sequence[int]]) -> None:
        self._outputs = outputs

    @staticmethod
    def check(settings: DecodeSettings, outputs: Sequence[Sequence[int]]) -> None:
        """Do these settings choose tokens one by one, from the whole vocabulary?

        Raises:
            UsageError: they do not.
            ValueError: an output without tokens (a caller's mistake).
        """
        if not all(outputs):
            raise ValueError("a given output has no tokens")
        if settings.by_batch:
            raise UsageError(
                "Self-speculation and FREE are not judged on a given text: what is written comes "
                "from later layers too",
                hint="Leave --self-speculative out; its outputs are the full model's",
            )
        if settings.top_k is not None:
            raise UsageError(
                "Top-k propagation leaves most tokens without a probability, so that a given text "
                "has none",
                hint="Add --top-k-propagation 0",
            )

    def next(self, owner: int, written: int) -> tuple[int, bool]:
        """What an output reads after so many tokens, and whether it ends there.

        Args:
            owner: its input.
        """
        output = self._outputs[owner]
        return output[written - 1], written == len(output)

    def judge(
        self, logits: Tensor, owners: Sequence[int], samples: Sequence[DecodedSample]
    ) -> None:
        """Note the log-probability, in nats, of each row's true token.

        Args:
            logits: of the exits that the rows' tokens leave by. Shape: [rows, vocabulary].
            owners: the rows' inputs.
            samples: the outputs of all inputs.
        """
        true = [self._outputs[owner][len(samples[owner].tokens)] for owner in owners]
        for owner, value in zip(owners, log_likelihoods(logits, true), strict=True):
            samples[owner].log_likelihoods.append(value)


def log_likelihoods(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probability of a token in each row, in nats, computed in float32 at least.

    Args:
        logits: Shape: [rows, vocabulary].
        tokens: one per row.
    """
    index = torch.tensor(tokens, device=logits.device).unsqueeze(1)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found: list[float] = wide.log_softmax(dim=-1).gather(1, index).squeeze(1).tolist()
    return found
