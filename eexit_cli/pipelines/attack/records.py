"""An attack run's records, read back: the texts as they were and as the attacker left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eexit_cli.core.types import Examples, TaskInfo


def pair_of(record: Mapping[str, Any], key: str) -> str | None:
    """The second text that goes with the one under ``key``; None for single texts.

    An attack that left that of a pair alone need not repeat it.

    Args:
        key: ``text`` or ``perturbed_text``.
    """
    pair: str | None = record.get(f"{key}_pair", record.get("text_pair"))
    return pair


def as_examples(records: Sequence[Mapping[str, Any]], key: str, info: TaskInfo) -> Examples:
    """Records of an attack as data, with the texts under ``key``."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"id": [str(record["id"]) for record in records]}
    if info.kind == "generation":
        columns["source"] = [record[key] for record in records]
        answers = [_answers(record) for record in records]
        if all(answers):
            columns["references"] = answers
        return Examples(info, split=key, dataset=Dataset.from_dict(columns), total=len(records))
    columns["text"] = [record[key] for record in records]
    if any(record.get("text_pair") is not None for record in records):
        columns["text_pair"] = [pair_of(record, key) or "" for record in records]
    labels = [record.get("label") for record in records]
    if all(isinstance(label, int) for label in labels):
        columns["label"] = labels
    return Examples(info=info, split=key, dataset=Dataset.from_dict(columns), total=len(records))


def _answers(record: Mapping[str, Any]) -> list[str]:
    """The accepted answers of an attacked sample; none where the record has none."""
    if record.get("references"):
        return [str(answer) for answer in record["references"]]
    return [] if record.get("target") is None else [str(record["target"])]
