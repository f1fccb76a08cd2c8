"""Qualities of a generated text against a reference, in [0, 1]; 1 is best.

``quality(prediction, reference) -> float``. Equal texts have quality 1 even when they are empty
or hold nothing that a tokenizer keeps, so that the full model agrees with itself on every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

TextQuality = Callable[[str, str], float]


class _SplitTokenizer:
    """Tokens as they stand between spaces: phonemes, pieces, numbers."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


@cache
def _scorer(split_only: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    # No stemming, as in DL2-CALM's use of the same library.
    if split_only:
        return RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_SplitTokenizer())
    return RougeScorer(["rougeL"], use_stemmer=False)


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F1 over lower-cased words."""
    if prediction == reference:
        return 1.0
    return float(_scorer(False).score(reference, prediction)["rougeL"].fmeasure)


def rouge_l_tokens(prediction: str, reference: str) -> float:
    """ROUGE-L F1 over whatever stands between spaces: for phonemes."""
    if prediction.split() == reference.split():
        return 1.0
    return float(_scorer(True).score(reference, prediction)["rougeL"].fmeasure)


def exact_match(prediction: str, reference: str) -> float:
    """1 if the texts are equal up to surrounding and repeated spaces, else 0."""
    return float(prediction.split() == reference.split())
