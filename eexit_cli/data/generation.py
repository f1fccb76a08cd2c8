"""Text-to-text tasks of the hub, with the prefixes that T5 was trained with.

A task is one row: where the hub keeps it, and how a row there becomes a source and a target. The
prefixes are those of T5 (Raffel et al., 2020, arXiv:1910.10683, appendix D).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.hub import load_split
from eexit_cli.data.samples import Samples

Row = Mapping[str, Any]
Value = TypeVar("Value")

ROUGE = ("rouge_l", "rouge_1", "rouge_2", "rouge_lsum")

OWN_METRICS = (*ROUGE, "bleu", "exact_match")
"""For a file that no task describes."""


@dataclass(frozen=True)
class HubTask:
    """One set of text pairs.

    Attributes:
        info: the task.
        repository, configuration: the hub's names; no configuration where there is only one.
        source, target: what the model reads and writes, from a row of the hub.
        required: paths of the text columns that a usable row fills.
        references: every accepted answer; None where there is one.
        identifier: the column of unique ids; None numbers the rows.
        export: read the hub's Parquet copy, where the repository itself is a script.
        splits: split names of the hub, and ``validation`` where it is parted from ``train``.
        every: of ``train``, each row of this number is ``validation``, where the hub has none.
    """

    info: TaskInfo
    repository: str
    configuration: str | None
    source: Callable[[Row], str]
    target: Callable[[Row], str]
    required: tuple[tuple[str, ...], ...]
    references: Callable[[Row], list[str]] | None = None
    identifier: str | None = None
    export: bool = False
    splits: tuple[str, ...] = ("train", "validation", "test")
    every: int | None = None
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def read(self, split: str, *, data_dir: Path | None, progress: Progress) -> Samples:
        """The split; its columns are read row by row, so that a limit costs what it asks for.

        Rows without a source or a target (XSum and SAMSum have some) are left out.
        """
        if data_dir is not None:
            raise UsageError(
                f"Task '{self.info.name}' has no folder of TSV files (--data-dir)",
                hint="Use --data-file with your own pairs, or leave --data-dir out",
            )
        held = "train" if self.every is not None and split == "validation" else split
        data = load_split(
            self.info.name,
            self.repository,
            self.configuration,
            held,
            instead="Name a file of your own pairs with --data-file",
            export=self.export,
        )
        usable = filled(data, self.required)
        if len(usable) < len(data):
            progress.message(
                f"{len(data) - len(usable)} of {len(data)} samples in the {held} split of "
                f"'{self.info.name}' have an empty text and are left out"
            )
        if self.every is not None and held == "train":
            # By the hub's own order, so that each seed and each limit part it alike.
            apart = [number % self.every == self.every - 1 for number in usable]
            chosen = zip(usable, apart, strict=True)
            usable = [number for number, out in chosen if out == (split == "validation")]
        kept = data if len(usable) == len(data) else data.select(usable)
        name, identifier = self.info.name, self.identifier
        ids: Sequence[str] = (
            [f"{name}-{held}-{number}" for number in usable]
            if identifier is None
            else Rows(kept, lambda row: str(row[identifier]))
        )
        return Samples(
            ids=ids,
            texts=Rows(kept, self.source),
            pairs=None,
            labels=None,
            targets=Rows(kept, self.target),
            references=None if self.references is None else Rows(kept, self.references),
        )


class Rows(Sequence[Value]):
    """A column that is made from rows of a ``datasets.Dataset`` when it is looked at."""

    def __init__(self, data: Any, make: Callable[[Row], Value]) -> None:
        self._data = data
        self._make = make

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, index: int) -> Value: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Value]: ...

    def __getitem__(self, index: int | slice) -> Value | Sequence[Value]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._make(self._data[index])

    def __iter__(self) -> Iterator[Value]:
        return map(self._make, self._data)


def filled(data: Any, required: Sequence[Sequence[str]]) -> list[int]:
    """Positions of the rows whose texts are all there.

    Args:
        data: a ``datasets.Dataset``.
        required: for each text the path to it: a column, then fields of a struct.
    """
    import pyarrow.compute as pc

    positions: list[int] = []
    start = 0
    for table in data.with_format("arrow").iter(batch_size=10_000):
        usable: Any = None
        for column, *fields in required:
            texts = table.column(column)
            for name in fields:
                texts = pc.struct_field(texts, name)
            length = pc.binary_length(pc.utf8_trim_whitespace(texts))
            present = pc.fill_null(pc.greater(length, 0), False)
            usable = present if usable is None else pc.and_(usable, present)
        positions += [start + index for index, ok in enumerate(usable.to_pylist()) if ok]
        start += table.num_rows
    return positions


def _info(name: str, prefix: str, metrics: tuple[str, ...]) -> TaskInfo:
    return TaskInfo(name, "generation", metrics=metrics, extra={"source_prefix": prefix})


def _summary(name: str, repository: str, document: str, summary: str, **settings: Any) -> HubTask:
    return HubTask(
        info=_info(name, "summarize: ", ROUGE),
        repository=repository,
        configuration=settings.pop("configuration", None),
        source=lambda row: str(row[document]),
        target=lambda row: str(row[summary]),
        required=((document,), (summary,)),
        identifier="id",
        **settings,
    )


_LANGUAGES = {"de": "German", "en": "English", "fr": "French", "ro": "Romanian"}


def _translation(
    family: str, repository: str, source: str, target: str, **settings: Any
) -> HubTask:
    return HubTask(
        info=_info(
            f"{family}-{source}-{target}",
            f"translate {_LANGUAGES[source]} to {_LANGUAGES[target]}: ",
            ("bleu",),
        ),
        repository=repository,
        configuration=settings.pop("configuration", None),
        source=lambda row: str(row["translation"][source]),
        target=lambda row: str(row["translation"][target]),
        required=(("translation", source), ("translation", target)),
        **settings,
    )


CNN_DAILYMAIL = _summary(
    "cnn_dailymail", "abisee/cnn_dailymail", "article", "highlights", configuration="3.0.0"
)
XSUM = _summary(
    "xsum", "EdinburghNLP/xsum", "document", "summary", configuration="default", export=True
)
SAMSUM = _summary("samsum", "knkarthick/samsum", "dialogue", "summary")
"""A copy: the repository of the authors, Samsung/samsum, is gone."""

IWSLT2017_DE_EN = _translation(
    "iwslt2017", "IWSLT/iwslt2017", "de", "en", configuration="iwslt2017-de-en", export=True
)
IWSLT2017_EN_DE = _translation(
    "iwslt2017", "IWSLT/iwslt2017", "en", "de", configuration="iwslt2017-en-de", export=True
)
WMT14_EN_FR = _translation("wmt14", "wmt/wmt14", "en", "fr", configuration="fr-en")
WMT16_DE_EN = _translation("wmt16", "wmt/wmt16", "de", "en", configuration="de-en")
WMT16_EN_DE = _translation("wmt16", "wmt/wmt16", "en", "de", configuration="de-en")
WMT16_EN_RO = _translation("wmt16", "wmt/wmt16", "en", "ro", configuration="ro-en")


def _question(row: Row) -> str:
    """Both texts in one; the names of the parts do what a prefix does elsewhere."""
    return f"question: {row['question'].lstrip()} context: {row['context'].lstrip()}"


SQUAD = HubTask(
    info=_info("squad", "", ("squad_f1", "squad_exact_match")),
    repository="rajpurkar/squad",
    configuration="plain_text",
    source=_question,
    target=lambda row: str(row["answers"]["text"][0]),
    required=(("question",), ("context",)),
    references=lambda row: list(dict.fromkeys(row["answers"]["text"])),
    identifier="id",
    splits=("train", "validation"),
)


GSM8K = HubTask(
    info=TaskInfo(
        "gsm8k",
        "generation",
        metrics=("final_number_match",),
        extra={"source_prefix": "", "prompt_template": "Question: {source}\nAnswer:"},
    ),
    repository="openai/gsm8k",
    configuration="main",
    source=lambda row: str(row["question"]),
    target=lambda row: str(row["answer"]),
    required=(("question",), ("answer",)),
    every=10,
)
"""Grade-school mathematics (Cobbe et al., 2021, arXiv:2110.14168): a worked solution, then the
number behind ``####``."""
