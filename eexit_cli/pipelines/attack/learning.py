"""What some recipes learn once for all inputs, on texts that are not reported."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.seed import stream
from eexit_cli.core.types import Examples
from eexit_cli.data import load_examples
from eexit_cli.pipelines.attack.plan import Plan
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.documents import SCHEMA_VERSION, read_object
from eexit_cli.store.records import encode
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.attack.attacker import Attacker

LEARNED = "learned.json"

Text = str | tuple[str, str]


def learned_for(
    run: Run,
    plan: Plan,
    attacker: Callable[[], Attacker],
    texts: Callable[[], Sequence[Text]],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """What the plan's recipes learned, by name; learned now unless the run has it already.

    It is stored with the run before the first sample is attacked, so that a resumed run and every
    worker attack with the same.

    Args:
        attacker: called where something must be learned.
        texts: the texts to learn on, called likewise.
    """
    recipes = [recipe for recipe in plan.recipes if recipe.fit is not None]
    path = run.path / LEARNED
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        found = read_object(path, needs=("learned",))["learned"]
    for recipe in recipes:
        if recipe.name not in found:
            found[recipe.name] = attacker().fit(recipe.name, texts(), progress)
            content = {"schema_version": SCHEMA_VERSION, "learned": found}
            write_atomically(path, encode(content, indent=2) + b"\n")
    return found


def search_texts(
    config: AttackConfig, examples: Examples, label_names: Sequence[str] | None
) -> list[Text]:
    """Texts to learn on: none of them is reported.

    The validation split of the task, or its training split where that is the one reported; of a
    user's own file, or of a task with one split only, the samples that are not reported.

    Raises:
        UsageError: there are none.
    """
    reported = set(_texts(examples))
    splits = ["train", "validation"] if examples.split == "validation" else ["validation", "train"]
    places = [examples.split] if config.data_file is not None else [*splits, examples.split]
    for split in places:
        found = [
            text for text in _texts_of_split(config, split, label_names) if text not in reported
        ]
        if found:
            if config.data_file is not None:
                # A user's file may be sorted by label; the tasks' splits are not.
                stream(config.seed, "search texts").shuffle(found)
            return found[: config.search_samples]
    raise UsageError(
        "No texts are left to learn a prefix on: all of them are reported",
        hint="Report fewer: --limit N, or attack with another recipe",
    )


def _texts_of_split(
    config: AttackConfig, split: str, label_names: Sequence[str] | None
) -> list[Text]:
    if config.data_file is not None:
        # A file keeps the split that was asked for, all of it.
        other = dataclasses.replace(config, limit=None)
        return _texts(load_examples(other, default_split="test", label_names=label_names))
    other = dataclasses.replace(config, limit=None, split=split)
    try:
        return _texts(load_examples(other, default_split=split, label_names=label_names))
    except EexitError:
        return []  # the task has no such split, or not here


def _texts(examples: Examples) -> list[Text]:
    texts = list(examples.dataset["text"])
    if "text_pair" not in examples.dataset.column_names:
        return texts
    return list(zip(texts, examples.dataset["text_pair"], strict=True))
