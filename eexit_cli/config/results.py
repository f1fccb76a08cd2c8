"""Settings of ``eexit results``, and of what every command prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig
from eexit_cli.config.field import OUTPUT, RUN, like, opt


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Where runs are looked for."""

    results_dir: Path = like(CommonConfig, "results_dir")


@dataclass(frozen=True, kw_only=True)
class ListConfig(ResultsConfig):
    """Which runs are listed."""

    command: str | None = opt(None, "Only runs of this command.", RUN, names="recorded command")


@dataclass(frozen=True, kw_only=True)
class ShowConfig(ResultsConfig):
    """Which run is shown."""

    run: str = opt(
        "latest",
        "An id, the beginning of one, START...END of one, or latest.",
        argument=True,
        metavar="RUN",
        completes="runs",
    )


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ShowConfig):
    """Which of an attack's inputs become a data set, and where."""

    output: Path = opt(
        Path("adversarial"), "Made; it must not be in use.", OUTPUT, metavar="FOLDER"
    )
    with_originals: bool = opt(False, "Also the inputs as they were, to train on both.", OUTPUT)
    only_slower: bool = opt(
        False, "Leave out inputs that leave no later than before: attacks that failed.", OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model is shown."""

    model: str = opt(
        "",
        "A bundled name, a local folder, or a cached hub id.",
        argument=True,
        metavar="MODEL",
        completes="models",
    )


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Which checkpoint becomes a model folder."""

    checkpoint: Path = opt(
        Path(),
        "The checkpoint's folder: EE-LLM's, as Megatron writes it, or any model with exits.",
        argument=True,
        metavar="FOLDER",
    )
    tokenizer: Path | None = opt(
        None,
        "A folder whose tokenizer goes with it; by default the checkpoint's.",
        OUTPUT,
        metavar="FOLDER",
    )
    output: Path | None = opt(None, "Where the model folder goes.", OUTPUT, metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """How a command tells what it found."""

    json: bool = opt(
        False, "Print the result as one JSON document, only.", OUTPUT, excludes=("quiet", "format")
    )
    quiet: bool = opt(False, "No progress and no hints; only ids and paths.", OUTPUT)
    format: str | None = opt(None, "How tables print.", OUTPUT, names="table format", listed=True)
