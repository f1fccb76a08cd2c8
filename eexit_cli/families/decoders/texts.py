"""Pieces of raw text: they are read token by token, and what is judged is the next one's
probability; everything else is written, and judged by the task's metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.families.batches import to_device
from eexit_cli.metrics.generation import GENERATION_METRICS, GenerationScores, score_generation
from eexit_cli.metrics.perplexity import PERPLEXITY, perplexity, worse

if TYPE_CHECKING:
    from eexit_cli.families.decoders.decoding import DecodedSet
    from eexit_cli.metrics.generation import References

PROMPT = 1
"""Tokens of a piece that are not predicted: with nothing before it, the first has no probability
that a model would have learned."""


def given_batches(
    examples: Examples, rows: Sequence[Sequence[int]], device: Any
) -> list[dict[str, Any]]:
    """Pieces as ``ExitDecoder.decode`` takes them, the rest of each as its given output.

    Args:
        examples: pieces, with their ``tokens``.
        rows: of each batch, the pieces in it.
    """
    tokens = list(examples.dataset["tokens"])
    batches = []
    for batch in rows:
        ids = torch.tensor([tokens[row][:PROMPT] for row in batch])
        given = [list(tokens[row][PROMPT:]) for row in batch]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "given": given}
        batches.append(to_device(inputs, device))
    return batches


def shortened(batch: dict[str, Any], tokens: int) -> dict[str, Any]:
    """A batch with outputs of at most so many tokens, where they are given."""
    if "given" not in batch:
        return batch
    return {**batch, "given": [output[:tokens] for output in batch["given"]]}


def first_of(examples: Examples, count: int) -> Examples:
    """The first so many samples."""
    count = min(count, len(examples))
    return dataclasses.replace(examples, dataset=examples.dataset.select(range(count)))


def scores_of(
    info: TaskInfo, decoded: DecodedSet, references: Sequence[References]
) -> GenerationScores:
    """Quality of a decoded set: the perplexity of raw text, else the task's metrics."""
    if not info.raw_text:
        return score_generation(info, decoded.outputs, references)
    found = decoded.log_likelihoods
    return GenerationScores(
        {PERPLEXITY: perplexity([value for each in found for value in each])},
        [{PERPLEXITY: perplexity(each)} for each in found],
    )


def agreement(decoded: DecodedSet, full: DecodedSet) -> float:
    """Share of outputs that are the full model's; of given ones, of tokens chosen as it would."""
    if decoded.log_likelihoods:
        chosen = [token for output in decoded.tokens for token in output]
        wanted = [token for output in full.tokens for token in output]
    else:
        chosen, wanted = decoded.outputs, full.outputs  # type: ignore[assignment]
    return sum(a == b for a, b in zip(chosen, wanted, strict=True)) / len(chosen)


def lost(metric: str, full: float, other: float) -> float:
    """How much worse than the full model a quality is; negative is better.

    Of perplexities in nats per token, which are a share of them as long as they are small.
    """
    if metric == PERPLEXITY:
        return worse(full, other)
    return other - full if GENERATION_METRICS.load(metric).lower_is_better else full - other
