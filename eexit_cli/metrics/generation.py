"""Quality of generated texts: summaries, translations, answers, numbers, phonemes.

Every metric is in [0, 1] but the phoneme error rate, which has no upper bound and is best at 0
(BLEU is sacrebleu's score divided by 100). To add one, write a :class:`GenerationMetric` and its
line in :data:`GENERATION_METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from eexit_cli.core.catalog import Catalog
from eexit_cli.core.types import TaskInfo

References = Sequence[str]
"""The accepted answers of one sample; the one that suits a prediction best counts."""

GENERATION_METRICS = Catalog(
    "generation metric",
    {
        "rouge_1": "eexit_cli.metrics.generation_rouge:ROUGE_1",
        "rouge_2": "eexit_cli.metrics.generation_rouge:ROUGE_2",
        "rouge_l": "eexit_cli.metrics.generation_rouge:ROUGE_L",
        "rouge_lsum": "eexit_cli.metrics.generation_rouge:ROUGE_LSUM",
        "bleu": "eexit_cli.metrics.generation_bleu:BLEU",
        "exact_match": "eexit_cli.metrics.generation_answers:EXACT_MATCH",
        "squad_exact_match": "eexit_cli.metrics.generation_answers:SQUAD_EXACT_MATCH",
        "squad_f1": "eexit_cli.metrics.generation_answers:SQUAD_F1",
        "final_number_match": "eexit_cli.metrics.generation_numbers:FINAL_NUMBER_MATCH",
        "phoneme_error_rate": "eexit_cli.metrics.generation_phonemes:PHONEME_ERROR_RATE",
    },
)


@dataclass(frozen=True)
class GenerationMetric:
    """One metric, for a sample and for a corpus.

    Attributes:
        sample: (prediction, references) -> score.
        corpus: (predictions, references of each) -> score; None is the mean over samples.
        lower_is_better: True for errors.
    """

    sample: Callable[[str, References], float]
    corpus: Callable[[Sequence[str], Sequence[References]], float] | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class GenerationScores:
    """Scores of predictions.

    Attributes:
        corpus: by name of the metric, in the task's order.
        samples: the same for each sample. Their mean is the corpus's score for ROUGE, exact
            match and F1, but not for BLEU and the phoneme error rate, which weigh by length.
    """

    corpus: dict[str, float]
    samples: list[dict[str, float]]


def compute_generation(
    info: TaskInfo, predictions: Sequence[str], references: Sequence[str | References]
) -> dict[str, float]:
    """Every metric that the task reports, by name; the first one leads.

    Args:
        info: the task; its ``metrics`` say which.
        predictions: one text per sample.
        references: the right text for each, or several of which any will do.

    Raises:
        ValueError: no samples, or another number of references than of predictions.
    """
    return score_generation(info, predictions, references).corpus


def score_generation(
    info: TaskInfo, predictions: Sequence[str], references: Sequence[str | References]
) -> GenerationScores:
    """:func:`compute_generation`, with the scores of every sample."""
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references")
    accepted = [[each] if isinstance(each, str) else list(each) for each in references]
    metrics: dict[str, GenerationMetric] = {
        name: GENERATION_METRICS.load(name) for name in info.metrics
    }
    # Sample by sample, so that metrics of one family can share what they computed for it.
    samples = [
        {name: metric.sample(prediction, answers) for name, metric in metrics.items()}
        for prediction, answers in zip(predictions, accepted, strict=True)
    ]
    corpus = {
        name: fmean(sample[name] for sample in samples)
        if metric.corpus is None
        else metric.corpus(predictions, accepted)
        for name, metric in metrics.items()
    }
    return GenerationScores(corpus, samples)
