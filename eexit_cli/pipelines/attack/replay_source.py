"""The attack runs whose inputs are replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.engine import ENGINE_OPTIONS
from eexit_cli.core.answers import CLASSES, KIND_WORDS, TEXTS
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import task_info
from eexit_cli.data.generation import OWN_METRICS
from eexit_cli.families.class_names import classes_of
from eexit_cli.pipelines.attack.defences import NONE, Outcome, described
from eexit_cli.store.results import ResultStore, Run

Record = dict[str, Any]

_UNTOLD = (
    "model",
    "recipe",
    "device",
    "batch_size",
    *ENGINE_OPTIONS,
    "results_dir",
    "resume",
    "latency_samples",
    "timing_repeats",
    "energy",
    "label_names",
)
"""Options that have a column of their own, or change no input."""


@dataclass(frozen=True)
class Source:
    """An attack run and its records.

    Attributes:
        run: the run.
        kind: of the attacked model: what it answers with.
        records: by recipe.
    """

    run: Run
    kind: str
    records: Mapping[str, list[Record]]

    @property
    def model(self) -> str:
        return str(self.run.config["model"])

    @property
    def prefix(self) -> str:
        """What stands before each text."""
        return str(self.run.config.get("source_prefix") or "")

    @property
    def info(self) -> TaskInfo:
        """The task, as ``data.load_examples`` found it; of a user's own file what the run noted."""
        task, file = self.run.config.get("task"), self.run.config.get("data_file")
        if self.kind == TEXTS:
            if task is not None:
                return task_info(str(task))
            return TaskInfo(Path(str(file)).stem, kind="generation", metrics=OWN_METRICS)
        known = file is None and task is not None
        info = task_info(str(task)) if known else TaskInfo(str(file), kind="classification")
        names = classes_of(self.run)
        return dataclasses.replace(info, label_names=names) if names else info

    @property
    def asked(self) -> dict[str, Any]:
        """What the run was asked beside the defaults: may tell it from others on this model."""
        defaults, config = AttackConfig().as_dict(), self.run.config
        return {
            name: config[name]
            for name, default in defaults.items()
            if name not in _UNTOLD and config.get(name) not in (None, default)
        }


def open_source(store: ResultStore, name: str) -> Source:
    """A finished attack run.

    Raises:
        MissingArtifactError: no such run.
        UsageError: a run that replays another one's inputs itself.
        EexitError: a run that is not finished.
    """
    run = store.open(name, command="attack")
    if run.config.get("transfer"):
        raise UsageError(
            f"Run '{run.id}' replays another run's inputs itself",
            hint=f"Replay that one: --transfer {run.config['transfer'][0]}",
        )
    if run.document() is None:
        raise EexitError(
            f"Run '{run.id}' is not finished", hint=f"Go on with: eexit attack --resume {run.id}"
        )
    records: dict[str, list[Record]] = {}
    written = run.records()
    for record in written:
        recipe = record.get("recipe", run.config.get("recipe"))
        records.setdefault(str(recipe), []).append(record)
    # The model may be gone; what it did with each token is in the records.
    texts = any("token_layers_before" in record for record in written)
    return Source(run, TEXTS if texts else CLASSES, records)


def check_kind(source: Source, kind: str, name: str) -> None:
    """A classifier's inputs are replayed on classifiers, a decoder's on decoders.

    Args:
        kind: of the victim.
        name: of the victim.

    Raises:
        UsageError: they are of two kinds.
    """
    if source.kind != kind:
        words = KIND_WORDS[source.kind]
        raise UsageError(
            f"Run '{source.run.id}' attacked the {words} '{source.model}'; "
            f"'{name}' is a {KIND_WORDS[kind]}",
            hint=f"Replay it on a {words}: eexit models list",
        )


def of_row(recipe: str, source: Source, victim: str) -> dict[str, str]:
    """What a row, or a record, belongs to."""
    return {
        "recipe": recipe,
        "source": source.model,
        "source_run": source.run.id,
        "victim": victim,
    }


Speeds = Mapping[str, Mapping[str, float]]


def rows_of(
    run: Run,
    belongs: Mapping[str, str],
    judged: Iterable[tuple[Outcome, list[Record]]],
    figures: Callable[[list[Record]], dict[str, Any]],
    latency: Callable[[Mapping[str, tuple[list[Record], Sequence[Any]]]], Speeds],
    quality: str,
) -> list[dict[str, Any]]:
    """The rows of one recipe's inputs on one victim.

    Args:
        run: gets the records of the victim's own exit.
        belongs: what the rows belong to, of :func:`of_row`.
        judged: each way of leaving with its records, the victim's own exit first.
        figures: of those records.
        latency: of all ways in turn: number -> their records and the exit of each.
        quality: the metric that says how good the answers are.
    """
    judged = list(judged)
    rows: list[dict[str, Any]] = []
    times = latency({str(at): (records, way.exits) for at, (way, records) in enumerate(judged)})
    for at, (way, records) in enumerate(judged):
        if way.defence == NONE:
            for record in records:
                run.append(record)
        row = {
            **belongs,
            "defence": way.defence,
            **described(way.settings),
            **figures(records),
            **times[str(at)],
        }
        rows.append(row | recovered(rows[0] if rows else row, row, quality))
    return rows


LEAST_LOSS = 0.01
"""Of quality; see :func:`recovered`."""


def recovered(
    undefended: Mapping[str, Any], defended: Mapping[str, Any], quality: str
) -> dict[str, float | None]:
    """What a defence gives back of what the attack took.

    Args:
        undefended: the row of the victim's own exit.
        defended: the row of the defence.
        quality: the metric that says how good the answers are.

    Returns:
        ``layers_recovered``: of the layers that the attack added, the share that the defence saves
        again, counted in layers used after the attack. ``<quality>_recovered``: the same of the
        quality lost. Negative where the defence costs even more; None where too little was taken
        for a share of it to mean anything: no more layers than chance may add, or less quality
        than :data:`LEAST_LOSS`.
    """
    # An attack adds layers and takes quality away.
    taken = {"layers": ("mean_exit_layer", 1, 0.0), quality: (quality, -1, LEAST_LOSS)}
    low = undefended.get("gain_removed_low")
    by_chance = low is not None and low <= 0
    found: dict[str, float | None] = {}
    for name, (figure, sign, least) in taken.items():
        before, after = (undefended.get(f"{figure}_{when}") for when in ("before", "after"))
        value = defended.get(f"{figure}_after")
        found[f"{name}_recovered"] = None
        if before is None or value is None or (name == "layers" and by_chance):
            continue
        if sign * (after - before) > max(least, 1e-12):
            found[f"{name}_recovered"] = (after - value) / (after - before) + 0.0
    return found
