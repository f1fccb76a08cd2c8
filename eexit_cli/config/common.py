"""Settings that several commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """Which model, on what machine, where results go.

    Attributes:
        model: a bundled name, a local folder, or a hub repository id.
        seed: every random choice derives from it.
        device: auto, cpu, cuda, cuda:1, mps.
        dtype: float32, bfloat16, float16, float64; weights and activations.
        batch_size: None lets the command choose.
        max_length: tokens per input; None is the model's own limit.
        lower_case: None keeps the tokenizer's own setting; True or False overrides it, for
            checkpoints that lack it.
        label_names: what a classifier's outputs are called, in their order; None is what its
            configuration says, or the scripts that made the checkpoint.
        results_dir: each run makes one folder below it.
    """

    model: str = "deebert"
    seed: int = 42
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int | None = None
    max_length: int | None = None
    lower_case: bool | None = None
    label_names: tuple[str, ...] | None = None
    results_dir: Path = Path("results")

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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples.

    Attributes:
        task: a task of the catalog; None is the model's own task.
        data_file: a CSV, TSV, JSONL or Parquet file in place of a catalog task's data.
        data_dir: a folder in GLUE's TSV layout in place of the hub's copy.
        split: None is the command's own (test for reports, train for training).
        limit: number of samples; None is all.
        text_column, text_pair_column, label_column: columns of ``data_file``; None are those of
            the model's training where the file has them, else those of :data:`COLUMNS`.
        source_column, target_column: the same for text pairs (generation).
        source_prefix: put before every source text (generation); None is the task's own.
    """

    task: str | None = None
    data_file: Path | None = None
    data_dir: Path | None = None
    split: str | None = None
    limit: int | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    source_prefix: str | None = None

    def column(self, name: str) -> str | None:
        """A column of ``data_file`` by the name of its field; None for no second text."""
        given: str | None = getattr(self, name)
        return COLUMNS[name] if given is None else given


@dataclass(frozen=True, kw_only=True)
class UnseenDataConfig(DataConfig):
    """Samples to judge a model by.

    Attributes:
        include_training_rows: keep samples that the model was trained on; what they show is no
            promise about others.
    """

    include_training_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """How speed is measured, in every report alike.

    Attributes:
        latency_samples: samples timed one by one, early exits and the full model in turn; 0 skips
            all timing, and the command says so.
        timing_repeats: how often all of them are timed; at least 5, which have an interval.
    """

    latency_samples: int = 50
    timing_repeats: int = 5


@dataclass(frozen=True, kw_only=True)
class ExitConfig:
    """When a sample leaves. All None is the model's own default, stored in its folder.

    Attributes:
        confidence: a confidence measure; None is the model's own, or entropy.
        threshold: leaves beyond it (strictly); ``"calibrated"`` is the last that
            ``eexit calibrate`` certified and stored with the model, ``"calibrated:RUN"`` a run's.
        patience: leaves after this many agreements; 0 is the full model.
        regression_tolerance: for one output, neighbours agree below this difference.
        voting: leaves when scaled votes reach this threshold.
        static_layer: leaves at this layer.
    """

    confidence: str | None = None
    threshold: float | str | None = None
    patience: int | None = None
    regression_tolerance: float | None = None
    voting: float | None = None
    static_layer: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExitGridConfig:
    """:class:`ExitConfig` for ``eexit evaluate``: several values of one option make one row each.

    Attributes:
        confidence, threshold, patience, regression_tolerance, voting, static_layer: see
            :class:`ExitConfig`.
        top_k_propagation: see :class:`DecoderExitConfig`.
    """

    confidence: str | tuple[str, ...] | None = None
    threshold: float | str | tuple[float | str, ...] | None = None
    patience: int | tuple[int, ...] | None = None
    regression_tolerance: float | None = None
    voting: float | tuple[float, ...] | None = None
    static_layer: int | tuple[int, ...] | None = None
    top_k_propagation: int | tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """How a decoder's tokens leave. All None is the model's own default, stored in its folder.

    Attributes:
        min_layer: the first layer that a token may leave at.
        decay: paper or code: the threshold falls with the position; none switches it off.
        temperature: how fast it falls; None is the model's own, or CALM's 4.
        shallow_layer: FREE's shallow exit: tokens leave there or at the last layer.
        adaptive_threshold: FREE's threshold, refitted before each batch; starts at ``threshold``.
        max_new_tokens: the longest output, its end included; None is the model's own.
        greedy: decode greedily although the model asks for beams, sampling or penalties.
    """

    min_layer: int | None = None
    decay: str | None = None
    temperature: float | None = None
    shallow_layer: int | None = None
    adaptive_threshold: bool | None = None
    max_new_tokens: int | None = None
    greedy: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderExitConfig(DecoderConfig):
    """One way for a decoder's tokens to leave.

    Attributes:
        top_k_propagation: layers after the first score only its K best tokens; 0 is all tokens.
    """

    top_k_propagation: int | None = None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
