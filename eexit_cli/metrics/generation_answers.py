"""Is the text the right one: exact match, and SQuAD 1.1's two (Rajpurkar et al., 2016).

SQuAD's compare without case, punctuation, articles and repeated spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from eexit_cli.metrics.generation import GenerationMetric, References

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, references: References) -> float:
    """1 if the text equals a reference up to surrounding and repeated spaces, else 0."""
    return float(any(prediction.split() == reference.split() for reference in references))


def answer_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def squad_exact_match(prediction: str, references: References) -> float:
    """1 if the words equal those of a reference, else 0."""
    words = answer_words(prediction)
    return float(any(words == answer_words(reference) for reference in references))


def squad_f1(prediction: str, references: References) -> float:
    """Harmonic mean of precision and recall over words, counted with repetition.

    0 where no word is shared, as in the official program of version 1.1, so also where neither
    text has one (version 2.0's program, which knows questions without an answer, then gives 1).
    """
    return max(_overlap(answer_words(prediction), answer_words(each)) for each in references)


def _overlap(predicted: list[str], expected: list[str]) -> float:
    common = (Counter(predicted) & Counter(expected)).total()
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


EXACT_MATCH = GenerationMetric(exact_match)
SQUAD_EXACT_MATCH = GenerationMetric(squad_exact_match)
SQUAD_F1 = GenerationMetric(squad_f1)
