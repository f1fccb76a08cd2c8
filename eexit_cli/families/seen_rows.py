"""Rows that made a model are kept out of what is said about it.

``eexit train`` notes which rows the weights were trained on and which others chose the default
exit. Those that were trained on are left out of ``calibrate``, ``evaluate`` and ``attack``,
whatever file or task brings them. Those that chose the exit stay: neither the weights nor any
threshold that a calibration tests depends on them, and where they are used, it is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.core.errors import UsageError
from eexit_cli.data.own import originals_of
from eexit_cli.data.reading import Reading
from eexit_cli.data.samples import LeaveOut, Samples
from eexit_cli.families.batches import texts_of
from eexit_cli.store.training_rows import (
    Digests,
    TrainingRows,
    digests_of,
    read_training_rows,
    write_training_rows,
)

if TYPE_CHECKING:
    from eexit_cli.config.train import TrainConfig
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import Examples

APART = "apart by split"
"""Of a bundled model's own task: its training split was trained on, and no other."""


def leaving_out(config: Any, model: Model, progress: Progress) -> LeaveOut:
    """What takes a model's training rows out of samples; for ``data.load_examples``.

    Args:
        config: with its data settled, and ``include_training_rows``.
        model: whose they are.
        progress: told how many are left out, or in.

    Raises:
        EexitError: the model's record of them is damaged.
    """
    rows = read_training_rows(model.folder)
    own = (
        model.ref.kind == "bundled"
        and config.data_file is None
        and config.task == model.trained_on
        and config.split != "train"
    )
    if rows is None:
        return lambda samples, what: (samples, APART if own else "unknown")
    return _Seen(rows, model.name, config.include_training_rows, progress)


@dataclass(frozen=True)
class _Seen:
    """Counts the rows that made a model, and takes them out unless they are asked for."""

    rows: TrainingRows
    model: str
    include: bool
    progress: Progress

    def __call__(self, samples: Samples, what: str) -> tuple[Samples, Mapping[str, int]]:
        """The samples that stay, and the counts.

        Raises:
            UsageError: none stays.
        """
        digests = digests_of(samples.texts, samples.pairs)
        # Shape: [samples]
        trained = np.isin(digests, self.rows.trained)
        learned, total = int(trained.sum()), len(samples)
        chose = int(np.isin(digests, self.rows.validated).sum())
        counts = {"of": total, "left_out": 0, "included": 0, "chose_the_exit": chose}
        if not learned:
            return samples, counts
        if self.include:
            self.progress.message(
                f"{learned} of {total} samples trained '{self.model}' "
                "(--include-training-rows): what they show does not hold for new ones"
            )
            return samples, {**counts, "included": learned}
        if learned == total:
            raise UsageError(
                f"Every sample of {what} trained '{self.model}': they say nothing about new ones",
                hint="Name others: --data-file FILE, --task NAME or --split; or add "
                "--include-training-rows, with which nothing is promised",
            )
        stay = total - learned
        its = f", of which {chose} chose its default exit" if chose else ""
        self.progress.message(
            f"Left out {learned} of {total} samples, which trained '{self.model}'; {stay} stay{its}"
        )
        kept = samples.take(np.flatnonzero(~trained).tolist())
        return kept, {**counts, "left_out": learned}


def tell_trained(
    model: Model,
    records: Iterable[Mapping[str, Any]],
    prefix: str,
    progress: Progress,
) -> None:
    """A replay takes another run's inputs as they are; those that trained its victim are counted.

    Args:
        records: an attack's.
        prefix: before each of their texts.
    """
    rows = read_training_rows(model.folder)
    if rows is None:
        return
    given = {(str(record["text"]), record.get("text_pair")) for record in records}
    texts = [text.removeprefix(prefix) for text, _ in given]
    pairs = [str(pair) for _, pair in given] if any(pair for _, pair in given) else None
    learned = int(np.isin(digests_of(texts, pairs), rows.trained).sum())
    if learned:
        progress.message(
            f"{learned} of {len(given)} inputs trained '{model.name}': what it does with them "
            "does not hold for new ones"
        )


def note_training_rows(
    folder: Path,
    config: TrainConfig,
    training: Examples,
    validation: Examples,
    before: TrainingRows | None,
) -> str:
    """Write into a finished model's folder what it has seen.

    Args:
        folder: of the model.
        config: of its training.
        training, validation: the data that were used.
        before: what the model that it went on from had seen.

    Returns:
        A line that says so.
    """
    trained = [_digests(training)]
    if config.data_file is not None:
        # Who has learned an attacked text has as good as learned the one that it was made from.
        trained.append(_digests_of_originals(config, training))
    rows = TrainingRows.of(trained, [_digests(validation)]).after(before)
    size = write_training_rows(folder, rows)
    return (
        f"The model remembers {len(rows.trained)} texts that it was trained on and "
        f"{len(rows.validated)} that chose its exit ({size / 1e3:.1f} kB): calibrate, evaluate and "
        "attack leave the former out"
    )


def _digests(examples: Examples) -> Digests:
    texts, pairs = texts_of(examples)
    prefix = str(examples.info.extra.get("source_prefix", ""))
    return digests_of([text.removeprefix(prefix) for text in texts], pairs)


def _digests_of_originals(config: TrainConfig, training: Examples) -> Digests:
    assert config.data_file is not None
    texts, pairs = originals_of(
        config.data_file,
        list(training.dataset["id"]),
        Reading.of(config),
        pairs="text_pair" in training.dataset.column_names,
    )
    return digests_of(texts, pairs)


def not_learned(
    examples: Examples, before: TrainingRows | None, source: str, progress: Progress
) -> Examples:
    """Validation samples without those that the model to go on from was trained on.

    Raises:
        UsageError: none stays.
    """
    if before is None:
        return examples
    learned = np.isin(_digests(examples), before.trained)
    if not learned.any():
        return examples
    if learned.all():
        raise UsageError(
            f"'{source}' was trained on every sample of the {examples.split} data: they cannot "
            "choose an exit",
            hint="Train on other data, or on the same parted by the seed of its training (--seed)",
        )
    progress.message(
        f"Left out {int(learned.sum())} of {len(learned)} validation samples: '{source}' was "
        "trained on them"
    )
    kept = examples.dataset.select(np.flatnonzero(~learned).tolist())
    return replace(examples, dataset=kept)
