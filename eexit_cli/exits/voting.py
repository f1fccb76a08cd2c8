"""Leave when enough of the exits so far voted for one class (Sun et al. 2021, arXiv:2105.13792)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.criterion import Criterion, Shape
from eexit_cli.core.digits import exact
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import ENCODER, EXITS, opt
from eexit_cli.core.protocols import RowState

if TYPE_CHECKING:
    from torch import Tensor


PAPERS_LAM = 0.5
"""The exponent that the paper uses."""


@dataclass(frozen=True, kw_only=True)
class VotingOptions:
    voting: float | None = opt(
        None,
        "Leave when the exits' scaled votes reach X.",
        EXITS,
        least=0,
        grid="",
        families=(ENCODER,),
    )


class VotingExit(Criterion):
    """Every executed exit casts one vote; the class with most votes answers.

    A row leaves after layer i when max_k votes_k / i**lam >= threshold. With lam in (0, 1) a
    unanimous vote grows as i**(1 - lam), so later layers leave more readily. Ties between classes
    go to the one with the larger summed probability, so the answer never depends on class order.

    Args:
        threshold: votes scaled by layer that are needed; above 1 the first layer never leaves.
        lam: the exponent, in [0, 1]; the paper's setting is 0.5.

    Raises:
        UsageError: a setting outside its range.
    """

    name, option, options = "voting", "voting", VotingOptions
    also_described = ("threshold", "voting_exponent")

    def __init__(self, threshold: float, *, lam: float = PAPERS_LAM) -> None:
        if not math.isfinite(threshold) or threshold <= 0:
            raise UsageError(
                f"Voting threshold {threshold} is outside its range",
                hint="Give a finite number above 0",
            )
        if not 0 <= lam <= 1:
            raise UsageError(f"Voting exponent {lam} is outside [0, 1]", hint="The paper uses 0.5")
        self.threshold = threshold
        self.lam = lam

    def step(self, layer: int, logits: Tensor, state: RowState) -> Tensor:
        import torch

        if logits.shape[-1] < 2:
            raise _without_classes()
        # Shape: [rows, classes]
        votes = torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])
        probabilities = torch.softmax(logits, dim=-1)
        if "votes" in state:
            votes = votes + state["votes"]
            probabilities = probabilities + state["probabilities"]
        state["votes"] = votes
        state["probabilities"] = probabilities
        # The share of summed probability is below 1 per vote, so it only breaks ties.
        state["answer"] = votes.to(logits.dtype) + probabilities / (layer + 1)
        needed = self.threshold * layer**self.lam
        return votes.amax(dim=-1) >= needed - 1e-9

    def describe(self) -> dict[str, Any]:
        return {"criterion": "voting", "threshold": self.threshold, "voting_exponent": self.lam}

    @classmethod
    def build(cls, settings: Mapping[str, Any], shape: Shape) -> VotingExit:
        if shape.num_classes == 1:
            raise _without_classes()
        exponent = settings.get("voting_exponent")
        return cls(float(_threshold(settings)), lam=PAPERS_LAM if exponent is None else exponent)

    @classmethod
    def grid(cls, shape: Shape) -> list[dict[str, Any]]:
        # With the published exponent 1/2, unanimity after i layers reaches sqrt(i).
        layers = range(shape.num_layers, 0, -1)
        return [{"criterion": "voting", "threshold": math.sqrt(layer)} for layer in layers]

    @classmethod
    def words(cls, settings: Mapping[str, Any]) -> str:
        return f"votes of {exact(_threshold(settings))}"


def _threshold(settings: Mapping[str, Any]) -> Any:
    return settings.get("voting", settings.get("threshold"))


def _without_classes() -> UsageError:
    return UsageError(
        "Voting needs classes; this model has one output (regression)",
        hint="Use --patience N or --static-layer N",
    )
