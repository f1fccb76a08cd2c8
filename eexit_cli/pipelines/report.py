"""From finished runs to one page; reads runs, never models."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.report import ReportConfig
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.matplotlib_import import import_matplotlib
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import RunResult
from eexit_cli.pipelines.plot import suits, tell_lacking, views_of
from eexit_cli.plots import FIGURES
from eexit_cli.plots.figure import FigureSpec, RunView, run_labels
from eexit_cli.store.atomic import write_atomically
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.store.unfinished import finished_document

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

WIDTH = 5.0
"""Inches of a figure: two stand beside each other on a screen, and on a sheet in landscape."""


@dataclass(frozen=True)
class Drawing:
    """A figure of runs.

    Attributes:
        name: its name in the catalog.
        summary: what it shows.
        svg: the whole file, as ``eexit plot`` writes it.
        lacking: letters that no font here has.
    """

    name: str
    summary: str
    svg: bytes
    lacking: Sequence[str] = ()


@dataclass(frozen=True)
class Reported:
    """A run with what a page shows of it.

    Attributes:
        result: its document and its folder.
        records: as they were appended.
        drawings: each figure that can be drawn of it alone.
    """

    result: RunResult
    records: Sequence[dict[str, Any]]
    drawings: Sequence[Drawing]


@dataclass(frozen=True)
class Contents:
    """What a page is made of.

    Attributes:
        runs: in the order in which they were asked for.
        together: figures of several of them.
    """

    runs: Sequence[Reported]
    together: Sequence[Drawing] = ()


def run_report(
    config: ReportConfig,
    *,
    page: Callable[[Contents], str],
    progress: Progress | None = None,
) -> Path:
    """Collect what there is of runs and write the page.

    Args:
        config: see :class:`ReportConfig`.
        page: makes HTML of it.
        progress: told which run is shown when none was named; None is silent.

    Returns:
        The file written.

    Raises:
        UsageError: the output's name is no page's, or a run's beginning fits several.
        MissingArtifactError: no such run, or one that is not finished.
        EexitError: a run's files are damaged.
    """
    progress = progress or SilentProgress()
    output = _target(config.output)
    runs = _runs(config)
    if not config.runs:
        progress.message(f"Reporting run {runs[0].id}")
    for run in runs:
        finished_document(run)  # an error that says how it goes on
    import_matplotlib()
    views = [view for run in runs for view in views_of([run])]
    contents = Contents(
        runs=[
            Reported(RunResult(dict(view.document), run.path), view.records, _drawings([view]))
            for run, view in zip(runs, views, strict=True)
        ],
        together=_drawings(_told_apart(views)) if len(views) > 1 else (),
    )
    drawings = [*contents.together, *(each for run in contents.runs for each in run.drawings)]
    tell_lacking(sorted({letter for each in drawings for letter in each.lacking}), progress)
    content = page(contents).encode("utf-8")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, content)
    return output


def _target(output: Path) -> Path:
    if output.is_dir():
        return output / "report.html"
    if not output.suffix:
        return output.with_name(f"{output.name}.html")
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"'{output}' is not a file for a page", hint="Give the output the extension .html"
        )
    return output


def _runs(config: ReportConfig) -> list[Run]:
    """Each once, whatever it was called."""
    store = ResultStore(config.results_dir)
    opened = [store.open(name) for name in config.runs or ("latest",)]
    return list({run.path.resolve(): run for run in opened}.values())


def _told_apart(views: Sequence[RunView]) -> list[RunView]:
    """With labels that differ, as runs that share a figure need."""
    labels = run_labels([view.document for view in views])
    return [
        RunView(view.id, label, view.document, lambda view=view: view.records)  # type: ignore[misc]
        for view, label in zip(views, labels, strict=True)
    ]


def _drawings(views: Sequence[RunView]) -> list[Drawing]:
    """Each figure that takes these runs, or two of them at least where there are several."""
    drawings = []
    for _, spec in FIGURES.working():
        fitting = [view for view in views if suits(spec, view)]
        if len(fitting) < min(len(views), 2):
            continue
        try:
            drawings.append(_drawn(spec, fitting))
        except EexitError:
            continue  # these runs do not go together in it
    return drawings


def _drawn(spec: FigureSpec, views: Sequence[RunView]) -> Drawing:
    from eexit_cli.plots.lettering import lacking
    from eexit_cli.plots.rendering import render, save

    frame = spec.frame(views)
    stream = io.BytesIO()
    figure = render(spec, frame, width=WIDTH, run=spec.only_run(views))
    about = {"title": spec.name, "description": spec.name}
    save(figure, stream, format="svg", dpi=72, about=about)
    return Drawing(spec.name, spec.summary, stream.getvalue(), lacking(frame, None))
