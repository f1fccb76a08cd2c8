"""Phoneme error rate: edits per phoneme of the reference, over the whole corpus.

A phoneme is what stands between spaces. Insertions, deletions and substitutions cost 1 each.
"""

from __future__ import annotations

from collections.abc import Sequence

from eexit_cli.core.edits import edit_distance
from eexit_cli.metrics.generation import GenerationMetric, References


def _errors(prediction: str, references: References) -> tuple[int, int]:
    """Edits to the reference that has the lowest rate, and its phonemes."""
    predicted = prediction.split()
    counts = [
        (edit_distance(predicted, reference.split()), len(reference.split()))
        for reference in references
    ]
    return min(counts, key=lambda count: count[0] / max(1, count[1]))


def sample_error_rate(prediction: str, references: References) -> float:
    """Edits per phoneme of one sample; edits alone where it should be empty."""
    edits, phonemes = _errors(prediction, references)
    return edits / max(1, phonemes)


def phoneme_error_rate(predictions: Sequence[str], references: Sequence[References]) -> float:
    """All edits over all phonemes of the references: long words weigh more than short ones.

    0 is perfect; a model that writes too much may exceed 1. Of several references the one with
    the lowest rate counts.
    """
    counts = [
        _errors(prediction, answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return sum(edits for edits, _ in counts) / max(1, sum(phonemes for _, phonemes in counts))


PHONEME_ERROR_RATE = GenerationMetric(sample_error_rate, phoneme_error_rate, lower_is_better=True)
