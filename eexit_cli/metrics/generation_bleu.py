"""BLEU (Papineni et al., 2002) by ``sacrebleu`` in its standard setting, divided by 100.

Case counts, texts are tokenised as 13a, and zero counts are smoothed exponentially (Post, 2018,
arXiv:1804.08771). The score of a single sentence uses the n-gram orders that it has.
"""

from __future__ import annotations

from collections.abc import Sequence

from eexit_cli.metrics.generation import GenerationMetric, References


def corpus_bleu(predictions: Sequence[str], references: Sequence[References]) -> float:
    """BLEU of all samples together, in [0, 1]."""
    import sacrebleu

    # Samples may differ in the number of references; one that is given twice changes nothing.
    most = max(len(answers) for answers in references)
    streams = [
        [answers[min(index, len(answers) - 1)] for answers in references] for index in range(most)
    ]
    return float(sacrebleu.corpus_bleu(list(predictions), streams).score) / 100


def sentence_bleu(prediction: str, references: References) -> float:
    """BLEU of one sample, in [0, 1]."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(prediction, list(references)).score) / 100


BLEU = GenerationMetric(sentence_bleu, corpus_bleu)
