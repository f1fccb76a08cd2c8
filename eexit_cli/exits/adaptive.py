"""FREE's adaptive threshold (arXiv:2310.05424): two beta distributions over the confidence.

One describes the shallow layer's confidence where the deep model agreed, the other where it did
not. The threshold is the smallest confidence at which agreement is likely enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta as beta_distribution

from eexit_cli.core.errors import UsageError
from eexit_cli.exits.decay import TokenThreshold

if TYPE_CHECKING:
    from torch import Tensor

EDGE = 1e-4
"""Confidences are moved this far inside (0, 1), where a beta density may be infinite."""

GRID = (0.3, 0.9, 10)
"""Lowest and highest threshold and the number of points, as in the public code."""

ZETA = 0.4
"""p(agree | c) that suffices, as in the public code."""

MAX_REFITS = 300
MIN_PAIRS = 2
"""Pairs that each component needs: a beta distribution has two parameters."""


@dataclass(frozen=True)
class BetaMixture:
    """Two beta components and the weight of the agreeing one.

    Attributes:
        disagree, agree: (alpha, beta) of each component.
        share: prior probability of agreement used in the posterior.
    """

    disagree: tuple[float, float]
    agree: tuple[float, float]
    share: float

    def posterior(self, confidences: ArrayLike) -> NDArray[np.float64]:
        """p(agree | c) for each confidence. Shape: [n] -> [n]."""
        c = _inside(confidences)
        yes = self.share * beta_distribution.pdf(c, *self.agree)
        no = (1 - self.share) * beta_distribution.pdf(c, *self.disagree)
        total = yes + no
        # Where both densities underflow the data say nothing: fall back on the prior.
        return np.divide(yes, total, out=np.full_like(total, self.share), where=total > 0)

    def threshold(self, *, zeta: float = ZETA, grid: tuple[float, float, int] = GRID) -> float:
        """The first grid point with p(agree | c) > zeta, the last one when there is none."""
        points = np.linspace(*grid)
        enough = np.flatnonzero(self.posterior(points) > zeta)
        return float(points[enough[0]] if enough.size else points[-1])


def fit_beta_mixture(
    confidences: ArrayLike, agreements: ArrayLike, *, observed_share: bool = False
) -> BetaMixture | None:
    """Fit both components by their moments; the pairs are labelled, so no EM is needed.

    Args:
        confidences: of the shallow layer, in [0, 1]. Shape: [n].
        agreements: whether the deep model chose the same token. Shape: [n].
        observed_share: weigh the components by how often each was seen. The public code, which
            this follows otherwise, weighs them alike, which asks for a surer token when agreement
            is the rule.

    Returns:
        None when a component has fewer than two pairs, or all its confidences are one number.
    """
    c = _inside(confidences)
    agree = np.asarray(agreements, dtype=bool)
    if c.shape != agree.shape or c.ndim != 1:
        raise ValueError(f"{c.shape} confidences for {agree.shape} agreements")
    fitted = [_moments(c[~agree]), _moments(c[agree])]
    if fitted[0] is None or fitted[1] is None:
        return None
    share = float(agree.mean()) if observed_share else 0.5
    return BetaMixture(disagree=fitted[0], agree=fitted[1], share=share)


def _inside(confidences: ArrayLike) -> NDArray[np.float64]:
    return np.clip(np.asarray(confidences, dtype=np.float64), EDGE, 1 - EDGE)


def _moments(c: NDArray[np.float64]) -> tuple[float, float] | None:
    if c.size < MIN_PAIRS:
        return None
    mean, variance = float(c.mean()), float(c.var())
    if variance < EDGE**2:
        return None
    # Within (0, 1) the variance is at most mean (1 - mean); equality leaves no proper beta.
    total = max(mean * (1 - mean) / variance - 1, EDGE)
    return mean * total, (1 - mean) * total


class AdaptiveThreshold:
    """A token threshold that follows the pairs seen so far.

    Give the decoder's pairs to :meth:`observe` and call :meth:`refit` before each new input.

    Args:
        start: the threshold until there is something to fit.
        zeta, grid: see :meth:`BetaMixture.threshold`.
        max_refits: the threshold rests after this many.
        observed_share: see :func:`fit_beta_mixture`.

    Raises:
        UsageError: a start outside [0, 1] or a zeta outside (0, 1).
    """

    def __init__(
        self,
        start: float,
        *,
        zeta: float = ZETA,
        grid: tuple[float, float, int] = GRID,
        max_refits: int = MAX_REFITS,
        observed_share: bool = False,
    ) -> None:
        if not 0 < zeta < 1:
            raise UsageError(
                f"Agreement level {zeta} is outside (0, 1)", hint=f"FREE's code uses {ZETA}"
            )
        self._rule = TokenThreshold(start)
        self._start = start
        self._zeta = zeta
        self._grid = grid
        self._max_refits = max_refits
        self._observed_share = observed_share
        self._confidences: list[float] = []
        self._agreements: list[bool] = []
        self.refits = 0

    @property
    def threshold(self) -> float:
        """The threshold now."""
        return self._rule.threshold

    def observe(self, confidences: Sequence[float], agreements: Sequence[bool]) -> None:
        """Add (confidence, agreement) pairs of deep passes."""
        self._confidences.extend(confidences)
        self._agreements.extend(agreements)

    def refit(self) -> float:
        """Fit all pairs seen so far and move the threshold, at most ``max_refits`` times."""
        if self.refits < self._max_refits and self._confidences:
            self.refits += 1
            mixture = fit_beta_mixture(
                self._confidences, self._agreements, observed_share=self._observed_share
            )
            if mixture is not None:
                self._rule = TokenThreshold(mixture.threshold(zeta=self._zeta, grid=self._grid))
        return self.threshold

    def leave(self, confidence: Tensor, position: int | Tensor) -> Tensor:
        """True where the token leaves. Shape: [rows] -> [rows], bool."""
        return self._rule.leave(confidence, position)

    def describe(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "adaptive": True,
            "threshold_start": self._start,
            "adaptive_zeta": self._zeta,
            "adaptive_refits": self.refits,
        }
