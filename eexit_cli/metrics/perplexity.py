"""Perplexity of texts: e to the mean negative log-likelihood of a token, in nats; 1 is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

PERPLEXITY = "perplexity"


def perplexity(log_likelihoods: Sequence[float]) -> float:
    """Of some tokens together; infinite where one was impossible.

    Args:
        log_likelihoods: of each token, in nats.
    """
    surprise = -fmean(log_likelihoods)
    try:
        return math.exp(surprise)
    except OverflowError:
        return math.inf


def worse(full: float, other: float) -> float:
    """How many nats a token is more surprising at another perplexity; about their ratio - 1."""
    return math.log(other / full)
