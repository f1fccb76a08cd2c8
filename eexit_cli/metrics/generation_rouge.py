"""ROUGE F1 (Lin, 2004) by the package ``rouge-score``, with its Porter stemmer as in DL2-CALM.

Words are runs of a-z and 0-9 in lower case: letters with accents part words, so ROUGE suits
English. ROUGE-Lsum compares sentence by sentence; sentences end at line breaks and after ``.``,
``!`` or ``?`` with a space (DL2-CALM splits with NLTK's Punkt model, which needs a download).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from eexit_cli.metrics.generation import GenerationMetric, References

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")

_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def sentences(text: str) -> str:
    """The text with every sentence on a line of its own, as ROUGE-Lsum expects it."""
    return _SENTENCE_END.sub(lambda match: match.group().rstrip() + "\n", text.strip())


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_NAMES), use_stemmer=True)


# The four metrics ask for the same pair one after the other.
@lru_cache(maxsize=16)
def _scores(prediction: str, reference: str) -> dict[str, float]:
    # ROUGE-1, -2 and -L see words alone: line breaks are spaces to them.
    scores = _scorer().score(sentences(reference), sentences(prediction))
    return {name: float(scores[name].fmeasure) for name in _NAMES}


def _best(name: str) -> Callable[[str, References], float]:
    def sample(prediction: str, references: References) -> float:
        return max(_scores(prediction, reference)[name] for reference in references)

    return sample


ROUGE_1 = GenerationMetric(_best("rouge1"))
ROUGE_2 = GenerationMetric(_best("rouge2"))
ROUGE_L = GenerationMetric(_best("rougeL"))
ROUGE_LSUM = GenerationMetric(_best("rougeLsum"))
