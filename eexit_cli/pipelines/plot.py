"""From finished runs to figures; reads runs, never models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.plot import PlotConfig
from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.matplotlib_import import import_matplotlib
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.text import escaped, is_whole
from eexit_cli.plots import FIGURES, FORMATS
from eexit_cli.plots.figure import FigureSpec, RunView, run_labels
from eexit_cli.store.atomic import atomic_path
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def run_plot(config: PlotConfig, *, progress: Progress | None = None) -> list[Path]:
    """Draw a figure and write it.

    Args:
        config: see :class:`PlotConfig`.
        progress: told which run is drawn when none was named, and which letters no font has; None
            is silent.

    Returns:
        The files written.

    Raises:
        UsageError: unknown figure or format, a run that this figure cannot show, a size that
            leaves no room.
        MissingArtifactError: no such run, or none yet that this figure can show; the hint names
            the command that makes one.
        EexitError: a run's files are damaged.
    """
    progress = progress or SilentProgress()
    import_matplotlib()
    from eexit_cli.plots.lettering import lacking

    if config.figure is None:
        raise UsageError("No figure is named", hint="They are listed by: eexit plot --list")
    spec: FigureSpec = FIGURES.load(config.figure)
    _check_size(config)
    store = ResultStore(config.results_dir)
    if config.runs:
        runs = [store.open(run_id) for run_id in dict.fromkeys(config.runs)]
    else:
        runs = [_newest(store, spec)]
        progress.message(f"Drawing run {runs[0].id}")
    output, form = _target(config, spec, runs[0])
    views = views_of(runs)
    for view in views:
        if not suits(spec, view):
            raise UsageError(
                f"Run '{view.id}' ({view.command}) cannot be drawn as '{spec.name}'",
                hint=_fitting(spec, view),
            )
    frame = spec.frame(views)
    tell_lacking(lacking(frame, config.title), progress)
    _write(spec, frame, config, output, form, views)
    return [output]


def _write(
    spec: FigureSpec, frame: Any, config: PlotConfig, output: Path, form: str, views: list[RunView]
) -> None:
    from eexit_cli.plots.rendering import render, save

    figure = render(
        spec,
        frame,
        width=config.width,
        height=config.height,
        title=config.title or None,
        run=spec.only_run(views),
    )
    ids = ", ".join(view.id for view in views)
    about = {
        "title": escaped(config.title or spec.summary),
        "description": escaped(f"eexit plot {spec.name}, runs: {ids}"),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary, temporary.open("wb") as stream:
        save(figure, stream, format=form, dpi=config.dpi, about=about)


def tell_lacking(letters: list[str], progress: Progress) -> None:
    """Say which letters no font here has (``plots.lettering.lacking``)."""
    if letters:
        more = f" and {len(letters) - 5} more" if len(letters) > 5 else ""
        progress.message(
            f"No font here has {' '.join(letters[:5])}{more}: written out by number. A font that "
            "has them, such as Noto Sans CJK, is used once it is installed"
        )


def _target(config: PlotConfig, spec: FigureSpec, first: Run) -> tuple[Path, str]:
    """The file to write and its format.

    The file's extension decides; ``format`` says it for the default file and for a folder.
    """
    form = None if config.format is None else _known_format(config.format)
    if config.output is None or config.output.is_dir():
        folder = config.output or first.path
        return folder / f"{spec.name}.{form or FORMATS[0]}", form or FORMATS[0]
    extension = config.output.suffix
    if not extension:
        if form is None:
            raise UsageError(
                f"'{config.output}' has no extension that names a format",
                hint=f"Add one of: {', '.join(f'.{name}' for name in FORMATS)}",
            )
        return config.output.with_name(f"{config.output.name}.{form}"), form
    named = _known_format(extension)
    if form not in (None, named):
        raise UsageError(
            f"'{config.output}' is not a file for format '{form}'",
            hint=f"Give the output the extension .{form}, or drop the format",
        )
    return config.output, named


def _known_format(name: str) -> str:
    form = name.removeprefix(".").lower()
    if form not in FORMATS:
        raise unknown_name("figure format", form, FORMATS)
    return form


def _check_size(config: PlotConfig) -> None:
    smallest = 1.5
    for name, value in (("width", config.width), ("height", config.height)):
        if value is not None and not smallest <= value <= 40:
            raise UsageError(
                f"A {name} of {value} inches leaves no readable figure",
                hint=f"Give {smallest} to 40 inches; a column of a paper is 3.3",
            )
    if not 50 <= config.dpi <= 2400:
        raise UsageError(f"{config.dpi} dots per inch are out of range", hint="Give 50 to 2400")


def _newest(store: ResultStore, spec: FigureSpec) -> Run:
    for summary in reversed(store.list()):
        if summary.status == "finished" and summary.command in spec.commands:
            run = store.open(summary.id)
            if suits(spec, views_of([run])[0]):
                return run
    raise MissingArtifactError(
        f"No run in '{store.results_dir}' can be drawn as '{spec.name}': it needs {spec.needs}",
        hint=f"Run: {spec.make}",
    )


def _fitting(spec: FigureSpec, view: RunView) -> str:
    """What to do about a run that a figure cannot show."""
    if view.command == "attack" and view.config.get("transfer"):
        return (
            "It replays another run's inputs, and made none itself; see them with: "
            f"eexit plot transfer --run {view.id}"
        )
    return f"It needs {spec.needs}. Run: {spec.make}"


def suits(spec: FigureSpec, view: RunView) -> bool:
    return view.command in spec.commands and spec.suits(view)


def views_of(runs: list[Run]) -> list[RunView]:
    documents = [_valid(_finished_document(run)) for run in runs]
    return [
        RunView(run.id, label, document, lambda run=run: _valid(run.records()))  # type: ignore[misc]
        for run, label, document in zip(runs, run_labels(documents), documents, strict=True)
    ]


def _valid(value: Any) -> Any:
    """With what is no Unicode (bytes of a file's name) written out: pandas takes nothing else."""
    if isinstance(value, str):
        return value if is_whole(value) else escaped(value)
    if isinstance(value, dict):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value


def _finished_document(run: Run) -> dict[str, Any]:
    document = run.document()
    if document is None:
        raise EexitError(
            f"Run '{run.id}' is not finished, so it has no results to draw",
            hint="Wait for it to end, resume it, or choose another: eexit results list",
        )
    return document
