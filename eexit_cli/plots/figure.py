"""What a figure is: which runs it reads, the table it makes of them, how it draws that table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from eexit_cli.core.labels import exit_words, run_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

PANEL = "panel"
"""The column that says on which axes a row of a frame belongs; its values are the titles."""


@dataclass(frozen=True)
class RunView:
    """A finished run, as a figure sees it.

    Attributes:
        id: the run's id.
        label: what the run is called in the figure, different for each of its runs.
        document: its ``all_results.json``.
        read_records: reads its per-sample records, once, when a figure asks for them.
    """

    id: str
    label: str
    document: Mapping[str, Any]
    read_records: Callable[[], list[dict[str, Any]]]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        return self.read_records()

    @property
    def command(self) -> str:
        return str(self.document["command"])

    @property
    def config(self) -> Mapping[str, Any]:
        return self.document["config"]

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.document["metrics"]

    @property
    def speculates(self) -> bool:
        """Is it of self-speculation, whose tokens all use every layer?"""
        return bool(self.config.get("self_speculative"))

    @property
    def leading_metric(self) -> str:
        """The first measured thing of a row that is also known of the full model."""
        return next(name for name in self.rows[0] if f"{name}_full" in self.metrics)

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        return self.document["rows"]


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the catalog.

    Attributes:
        name: its name in the catalog.
        summary: one line, what it shows.
        commands: the commands whose runs it can read.
        needs: the run it needs, in the words of an error message ("an attack run").
        make: the command that makes such a run.
        suits: can this run be drawn? Called for runs of ``commands`` only.
        frame: runs to a tidy table. Rows with the same :data:`PANEL` share an axes; without that
            column there is one axes.
        draw: puts the rows of one panel on an axes. Pure: looks at nothing else, shows nothing.
            Labelled artists make the legend, which all panels share.
        panel_height: inches of one row of panels.
        columns: most panels side by side in one column of a paper.
        alike: the panels have one y axis, whose label is printed once per row.
        names_models: the axes themselves say which models they are about; other figures of one run
            get its name as title where no panel's says it.
    """

    name: str
    summary: str
    commands: tuple[str, ...]
    needs: str
    make: str
    suits: Callable[[RunView], bool]
    frame: Callable[[Sequence[RunView]], DataFrame]
    draw: Callable[[DataFrame, Axes], None]
    panel_height: float = 1.7
    columns: int = 2
    alike: bool = True
    names_models: bool = False

    def only_run(self, views: Sequence[RunView]) -> str:
        """What the figure is of as a whole: one run's name; empty for several."""
        return "" if len(views) > 1 or self.names_models else views[0].label


def with_setting(run: RunView) -> str:
    """The run's label, and the one setting that its records are of, as far as it is not said."""
    exit = run.config.get("exit") or {}
    words = {
        name: word
        for name, word in exit_words(exit).items()
        # A label may name all values that were asked for.
        if word not in run.label or run.config.get(name) != exit[name]
    }
    label = " ".join(filter(None, [run.label, words.pop("runtime", "")]))
    return ", ".join(filter(None, [label, " ".join(words.values())]))


def run_labels(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short, distinct names for runs that share a figure.

    The model's name, what runs it where that is not torch with float weights, then whatever
    settings of the runs differ, then the id's last part where nothing does.
    """
    configs = [document["config"] for document in documents]
    differing = [
        key
        for key in _TELLING
        if len({str(config.get(key)) for config in configs}) > 1
        # A model's name may say its task; two models need no second word.
        and len({(config.get("model"), str(config.get(key))) for config in configs})
        > len({config.get("model") for config in configs})
    ]
    labels = [
        " ".join(
            filter(
                None,
                [
                    _model_name(config),
                    *(
                        _said(key, config.get(key))
                        for key in _TELLING
                        if key in differing or key in run_by(config)
                    ),
                ],
            )
        )
        for config in configs
    ]
    return [
        f"{label} ({document['run_id'].rsplit('-', 1)[-1]})" if labels.count(label) > 1 else label
        for label, document in zip(labels, documents, strict=True)
    ]


_TELLING = (
    "task",
    "split",
    "runtime",
    "weights",
    "confidence",
    "threshold",
    "patience",
    "voting",
    "static_layer",
    "consistency",
    "p_value",
    "procedure",
    "epsilon",
    "limit",
    "seed",
)


def _model_name(config: Mapping[str, Any]) -> str:
    if config.get("model") is None and config.get("losses"):
        return PurePath(str(config["losses"])).stem
    return str(config.get("model") or "").rstrip("/").rsplit("/", 1)[-1]


def _said(key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return f"{key.replace('_', ' ')} {value}"
