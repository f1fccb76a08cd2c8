"""A classifier's attacked inputs on other classifiers and exits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.field import ENCODER, refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.seed import derive_seed
from eexit_cli.core.types import TaskInfo
from eexit_cli.data import TASKS, task_info
from eexit_cli.data.labels import are_generic
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.class_names import classes_of, name_classes
from eexit_cli.families.encoder.exits import describe
from eexit_cli.families.encoder.model import EncoderModel, load_model
from eexit_cli.families.seen_rows import tell_trained
from eexit_cli.pipelines.attack.attacker import criterion_of
from eexit_cli.pipelines.attack.defences import (
    Outcome,
    Traces,
    defences,
    undefended,
)
from eexit_cli.pipelines.attack.records import as_examples
from eexit_cli.pipelines.attack.replay_source import (
    Record,
    Source,
    of_row,
    rows_of,
)
from eexit_cli.pipelines.attack.report import depth_and_quality, measure_latency
from eexit_cli.pipelines.attack.table import intervals
from eexit_cli.store.results import Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


@dataclass(frozen=True)
class EncoderVictim:
    """A classifier that inputs are replayed on; see ``attack_transfer.Victim``."""

    name: str
    loaded: EncoderModel
    criterion: ExitCriterion

    @classmethod
    def open(
        cls, config: AttackConfig, sources: Sequence[Source], progress: Progress
    ) -> EncoderVictim:
        """Load it.

        Raises:
            UsageError: options that do not fit, or a run of another task.
            MissingArtifactError: no such model.
        """
        refuse_unread(config, ENCODER, model=config.model)
        loaded = load_model(config, progress=progress)
        asked = dataclasses.replace(config, task=sources[0].run.config.get("task"))
        name_classes(loaded.model.config, loaded.name, asked, progress)
        for source in sources:
            _check_task(source, loaded, config.model, progress)
            tell_trained(loaded, chain.from_iterable(source.records.values()), "", progress)
        name = config.model
        config = with_calibrated(config, loaded, task=_info(sources[0].run).name, progress=progress)
        return cls(name, loaded, criterion_of(config, loaded))

    def settings(self) -> dict[str, Any]:
        return describe(self.criterion)

    def noted(self, source: Source) -> dict[str, Any]:
        return {"classes": list(_info(source.run).label_names)}

    def replayed(
        self, run: Run, config: AttackConfig, source: Source, progress: Progress
    ) -> list[dict[str, Any]]:
        asked = _info(source.run)
        names = self.loaded.label_names
        info = dataclasses.replace(asked, label_names=names)
        rows: list[dict[str, Any]] = []
        clean: dict[tuple[Any, ...], Tensor] = {}
        for recipe, records in source.records.items():
            title = f"{source.model}'s {recipe} on {self.name}"
            relabelled = _relabelled(records, asked, names)
            traces = _traces(config, relabelled, info, self.loaded, title, progress, clean)
            outcomes = [undefended(traces, self.criterion)]
            if config.defences:
                seed = derive_seed(config.seed, "defences", source.run.config.get("seed", 0))
                outcomes += defences(traces, self.criterion, seed=seed)
            seed = derive_seed(config.seed, "intervals", recipe)
            figures = partial(self._figures, info, seed)
            latency = partial(measure_latency, loaded=self.loaded, config=config, progress=progress)
            belongs = of_row(recipe, source, self.name)
            judged = ((outcome, _records(relabelled, outcome, belongs)) for outcome in outcomes)
            rows += rows_of(run, belongs, judged, figures, latency, info.metrics[0])
        return rows

    def _figures(self, info: TaskInfo, seed: int, found: list[Record]) -> dict[str, Any]:
        num_layers = self.loaded.num_layers
        return {
            **depth_and_quality(info, found, num_layers),
            **intervals(found, num_layers, seed=seed),
        }


def _info(run: Run) -> TaskInfo:
    """The task of a run; of a user's own file what the run noted of it."""
    if run.config.get("data_file") is None and run.config.get("task") is not None:
        info = task_info(str(run.config["task"]))
    else:
        info = TaskInfo(name=str(run.config["data_file"]), kind="classification")
    names = classes_of(run)
    return dataclasses.replace(info, label_names=names) if names else info


def _check_task(source: Source, loaded: EncoderModel, name: str, progress: Progress) -> None:
    """Same classes, in whatever order, and as many texts per sample.

    Args:
        progress: told where classes without names are taken to be the same.

    Raises:
        UsageError: they are not.
    """
    info = _info(source.run)
    answers, asked = loaded.label_names, info.label_names
    same = sorted(map(str.casefold, answers)) == sorted(map(str.casefold, asked))
    nameless = are_generic(answers) or are_generic(asked)
    if info.kind != "classification" or not (same or (nameless and len(answers) == len(asked))):
        raise UsageError(
            f"Run '{source.run.id}' attacked '{info.name}' ({_listed(asked)}), "
            f"'{name}' answers {_listed(answers)}",
            hint="Replay it on a model of the same task: eexit models list",
        )
    if name == source.model:
        return  # it was attacked with these inputs, whatever it was trained on
    _check_pairs(source, loaded, name)
    if nameless:
        progress.message(
            f"The classes of run '{source.run.id}' ({_listed(asked)}) and of '{name}' "
            f"({_listed(answers)}) have no names to compare; taking them in this order"
        )


def _check_pairs(source: Source, loaded: EncoderModel, name: str) -> None:
    """A model of a known task was trained on single texts, or on pairs.

    Raises:
        UsageError: the run's inputs are the other.
    """
    task = loaded.model.config.task
    if task not in TASKS:
        return  # a file's name, or nothing: nobody knows
    records = [record for of_recipe in source.records.values() for record in of_recipe]
    pairs = any(record.get("text_pair") is not None for record in records)
    if pairs != task_info(task).pair:
        words = {True: "pairs of texts", False: "single texts"}
        raise UsageError(
            f"Run '{source.run.id}' attacked {words[pairs]}; '{name}' was trained on "
            f"{words[not pairs]} ('{task}')",
            hint="Replay it on a model of the same task: eexit models list",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "no classes"


def _relabelled(records: list[Record], info: TaskInfo, names: tuple[str, ...]) -> list[Record]:
    """Labels in the order of the victim's classes."""
    order = {name.casefold(): index for index, name in enumerate(names)}
    places = [order.get(name.casefold(), index) for index, name in enumerate(info.label_names)]
    return [
        record if record.get("label") is None else {**record, "label": places[int(record["label"])]}
        for record in records
    ]


def _traces(
    config: AttackConfig,
    records: list[Record],
    info: TaskInfo,
    loaded: EncoderModel,
    title: str,
    progress: Progress,
    clean: dict[tuple[Any, ...], Tensor],
) -> Traces:
    """The exits of a recipe's samples; ``clean`` keeps those before the attack, which most recipes
    of a run share."""

    def logits(key: str, when: str) -> Tensor:
        return loaded.trace(
            as_examples(records, key, info),
            batch_size=config.batch_size,
            progress=progress,
            title=f"{title}, {when}",
        ).logits

    texts = tuple((record["text"], record.get("text_pair")) for record in records)
    if texts not in clean:
        clean[texts] = logits("text", "before")
    ids = tuple(str(record["id"]) for record in records)
    return Traces(clean[texts], logits("perturbed_text", "after"), ids)


_KEPT = (
    "id",
    "text",
    "text_pair",
    "label",
    "perturbed_text",
    "perturbed_text_pair",
    "changed_words",
    "num_words",
    "similarity_characters",
    "similarity_embedding",
)


def _records(records: list[Record], outcome: Outcome, belongs: dict[str, str]) -> list[Record]:
    found = []
    layers = [d.exit_layers.tolist() for d in (outcome.before, outcome.after)]
    answers = [d.predictions.tolist() for d in (outcome.before, outcome.after)]
    for row, record in enumerate(records):
        found.append(
            {
                **belongs,
                "status": "replayed",
                **{name: record[name] for name in _KEPT if name in record},
                "prediction_before": answers[0][row],
                "prediction_after": answers[1][row],
                "exit_layer_before": layers[0][row],
                "exit_layer_after": layers[1][row],
            }
        )
    return found
