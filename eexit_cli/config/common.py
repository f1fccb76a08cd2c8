"""Settings that several commands share; each field says what it means in its help."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.exit_options import exit_options
from eexit_cli.config.field import (
    DATA,
    DECODERS,
    ENCODER,
    MODEL,
    RUN,
    opt,
)


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """Which model, on what machine, where results go."""

    model: str = opt(
        "deebert",
        "A bundled name, a local folder, or a hub id.",
        MODEL,
        completes="models",
        metavar="NAME|FOLDER|ID",
    )
    lower_case: bool | None = opt(
        None, "Overrides the tokenizer's own setting, for checkpoints that lack it.", MODEL
    )
    label_names: tuple[str, ...] | None = opt(
        None,
        "What a classifier's outputs are called, in their order, where its checkpoint does not "
        "say or is wrong; when training, the classes in the order wanted.",
        MODEL,
        parse="names",
        metavar="A,B[,C...]",
        families=(ENCODER,),
    )
    max_length: int | None = opt(
        None,
        "Tokens per input, at most what the model takes; per piece of raw text.",
        MODEL,
        least=1,
    )
    seed: int = opt(42, "Every random choice derives from it.", RUN, least=0)
    device: str = opt(
        "auto", "auto, cpu, cuda, cuda:1 or mps.", RUN, parse="device", names="device"
    )
    dtype: str = opt("float32", "Precision of the computation.", RUN, names="dtype", listed=True)
    batch_size: int | None = opt(None, "Samples per batch.", RUN, least=1)
    results_dir: Path = opt(
        Path("results"), "Each run makes a folder below it.", RUN, metavar="DIR"
    )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in the names of the options."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def option_names(cls) -> set[str]:
        return {item.name for item in fields(cls)}


COLUMNS: dict[str, str | None] = {
    "text_column": "text",
    "text_pair_column": None,
    "label_column": "label",
    "source_column": "source",
    "target_column": "target",
}
"""Of a data file, where nobody names others."""

READING: dict[str, str | bool | None] = {
    "delimiter": None,
    "encoding": None,
    "skip_faulty_rows": False,
}
"""How a data file is read, where nobody says."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples."""

    task: str | None = opt(None, "Which data; by default the model's own task.", DATA, names="task")
    data_file: Path | None = opt(
        None,
        "Your own CSV, TSV, JSONL or Parquet file, raw text (.txt) for a decoder-only model, or a "
        "folder of eexit results export.",
        DATA,
        metavar="FILE",
        excludes=("data_dir",),
    )
    data_dir: Path | None = opt(
        None,
        "A folder of GLUE's TSV files in place of the hub's copy.",
        DATA,
        metavar="DIR",
        families=(ENCODER,),
    )
    text_column: str | None = opt(
        None,
        "Column of the text (--data-file); by default as in training, or text.",
        DATA,
        metavar="NAME",
        needs="data_file",
        families=(ENCODER,),
    )
    text_pair_column: str | None = opt(
        None,
        "Column of the second text (--data-file).",
        DATA,
        metavar="NAME",
        needs="data_file",
        families=(ENCODER,),
    )
    label_column: str | None = opt(
        None,
        "Column of the label (--data-file); by default as in training, or label.",
        DATA,
        metavar="NAME",
        needs="data_file",
        families=(ENCODER,),
    )
    source_column: str | None = opt(
        None,
        "Column of the source text (--data-file, text generation); by default as in training, or "
        "source.",
        DATA,
        metavar="NAME",
        needs="data_file",
        families=DECODERS,
    )
    target_column: str | None = opt(
        None,
        "Column of the wanted text (--data-file, text generation); by default as in training, or "
        "target.",
        DATA,
        metavar="NAME",
        needs="data_file",
        families=DECODERS,
    )
    source_prefix: str | None = opt(
        None,
        "Put before every source text; by default the task's own.",
        DATA,
        metavar="TEXT",
        families=DECODERS,
    )
    delimiter: str | None = opt(
        None,
        "Between the fields of a CSV file (--data-file): a sign, tab, semicolon, comma or pipe; "
        "by default found out.",
        DATA,
        metavar="SIGN",
        needs="data_file",
    )
    encoding: str | None = opt(
        None,
        "Of the text in --data-file, such as cp1252; by default UTF-8, or what its first bytes "
        "say.",
        DATA,
        metavar="NAME",
        needs="data_file",
    )
    skip_faulty_rows: bool = opt(
        False,
        "Leave rows of --data-file out that cannot be read, have no text or no label; how many is "
        "said.",
        DATA,
        needs="data_file",
    )
    split: str | None = opt(
        None,
        "train, validation or test; by default the command's own.",
        DATA,
        metavar="NAME",
        suggests="split",
    )
    limit: int | None = opt(None, "Use a seeded sample of N; 0 uses all.", DATA, least=0)

    def column(self, name: str) -> str | None:
        """A column of ``data_file`` by the name of its field; None for no second text."""
        given: str | None = getattr(self, name)
        return COLUMNS[name] if given is None else given


@dataclass(frozen=True, kw_only=True)
class UnseenDataConfig(DataConfig):
    """Samples to judge a model by."""

    include_training_rows: bool = opt(
        False, "Keep samples that the model was trained on; nothing is then promised.", DATA
    )


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """How speed is measured, in every report alike."""

    latency_samples: int = opt(
        50,
        "Samples timed one by one against the full model; 0 skips the timing.",
        RUN,
        least=0,
    )
    timing_repeats: int = opt(
        5,
        "How often they are timed: a speed is the median, with an interval over repeats.",
        RUN,
        least=5,
    )


@dataclass(frozen=True, kw_only=True)
@exit_options()
class ExitConfig:
    """When a sample leaves: the options of all exit criteria.

    All None is the model's own default, stored in its folder.
    """

    if TYPE_CHECKING:
        confidence: str | None = None
        threshold: float | str | None = None
        static_layer: int | None = None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
