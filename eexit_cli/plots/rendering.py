"""From a figure and its table to a page: panels, shared legend, size.

Uses matplotlib's objects directly, never ``pyplot``: no window, no global state, and nothing left
open after a figure is saved. Settings are matplotlib's defaults and ours, never the user's.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from eexit_cli.plots.figure import PANEL, FigureSpec
from eexit_cli.plots.lettering import families, printable, printable_frame

STYLE = Path(__file__).with_name("eexit.mplstyle")
_LEGEND_LINE = 0.16  # inches
_TITLE_LINE = 0.14


def render(
    spec: FigureSpec,
    frame: DataFrame,
    *,
    width: float = 3.3,
    height: float | None = None,
    title: str | None = None,
    run: str = "",
) -> Figure:
    """Draw a figure's table.

    Args:
        spec: the figure.
        frame: what ``spec.frame`` made.
        width, height: inches; without a height each row of panels gets ``spec.panel_height``.
        title: printed above everything.
        run: what the one run is called; without a title it is one where no panel's says it.

    Returns:
        The matplotlib figure, with an Agg canvas.
    """
    frame, title = printable_frame(frame), printable(title or "")
    with _settings():
        panels = (
            [rows for _, rows in frame.groupby(PANEL, sort=False)] if PANEL in frame else [frame]
        )
        columns = min(spec.columns, len(panels))
        lines = math.ceil(len(panels) / columns)
        if not spec.alike:
            # Each panel's labels are nearer to it than to the one on the left.
            matplotlib.rcParams["figure.constrained_layout.wspace"] = 0.2
        figure = Figure(figsize=(width, height or lines * spec.panel_height))
        canvas = FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, sharey=spec.alike, squeeze=False)
        cells = list(grid.flat)
        for axes, rows in zip(cells, panels, strict=False):
            spec.draw(rows, axes)
        for axes in cells[len(panels) :]:
            axes.remove()
        cells = cells[: len(panels)]
        if not title and not all(axes.get_title().startswith(printable(run)) for axes in cells):
            title = printable(run)
            if [axes.get_title() for axes in cells] == [""]:
                cells[0].set_title(title)
                title = ""
        for position, axes in enumerate(cells):
            _wrap_title(axes, width / columns)
            _wrap_label(axes, canvas, width / columns - (0.3 if spec.alike else 0.5))
            _keep_whole(axes)
            leftmost = cells[position - position % columns]
            if spec.alike and position % columns and axes.get_ylabel() == leftmost.get_ylabel():
                axes.set_ylabel("")
            if spec.alike and position + columns < len(panels):
                axes.set_xlabel("")
        if title:
            figure.suptitle(textwrap.fill(title, _characters(width, 8.5)))
        # matplotlib would print a title and a legend above the panels over each other.
        place = "outside lower center" if title else "outside upper center"
        legend_lines = _add_legend(figure, canvas, cells, place)
        if height is None:
            title_lines = max(axes.get_title().count("\n") for axes in cells)
            extra = legend_lines * _LEGEND_LINE + lines * title_lines * _TITLE_LINE
            extra += 0.2 if title else 0.0
            figure.set_size_inches(width, lines * spec.panel_height + extra)
    return figure


def save(
    figure: Figure, stream: IO[bytes], *, format: str, dpi: int, about: Mapping[str, str]
) -> None:
    """Write a rendered figure as it stands, at its own size.

    Args:
        figure: from :func:`render`.
        stream: an open binary file.
        format: png, svg or pdf.
        dpi: dots per inch of a PNG.
        about: ``title`` and ``description``, put into the file's own metadata, so that a figure
            found later still says which runs it shows.
    """
    names = {"png": "Description", "svg": "Description", "pdf": "Subject"}
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    metadata = {"Title": about["title"], names[format]: about["description"], **undated[format]}
    with _settings():
        figure.savefig(stream, format=format, dpi=dpi, metadata=metadata)


@contextmanager
def _settings() -> Iterator[None]:
    """Inside, matplotlib's defaults with our style over them, whatever was set before."""
    chosen = matplotlib.rc_params_from_file(STYLE, use_default_template=True)
    # What draws on a screen is not ours to choose, and needed by nothing here.
    settings = {name: chosen[name] for name in chosen if not name.startswith("backend")}
    with matplotlib.rc_context({**settings, "font.family": families()}):
        yield


def _add_legend(figure: Figure, canvas: FigureCanvasAgg, cells: list[Axes], place: str) -> int:
    """One legend for all panels, as wide as fits; returns its number of lines."""
    entries = _entries(cells)
    if not entries:
        return 0
    room = figure.get_figwidth() * figure.dpi
    dashed = any(
        isinstance(item, Line2D) and item.get_linestyle() not in ("-", "None")
        for item in entries.values()
    )
    # Shorter handles show no dashes.
    length = 3.2 if dashed else None
    for lines in range(1, len(entries) + 1):
        # No more columns than these lines fill: it is read down each column, in order.
        columns = math.ceil(len(entries) / lines)
        legend = figure.legend(
            list(entries.values()), list(entries), loc=place, ncols=columns, handlelength=length
        )
        extent = legend.get_window_extent(canvas.get_renderer())
        if columns == 1 or extent.width <= room:
            break
        legend.remove()
    return math.ceil(len(entries) / columns)


def _entries(cells: list[Axes]) -> dict[str, Any]:
    """Every label with its mark, in each panel's own order: a later panel's new labels come before
    those that follow them there."""
    order: list[str] = []
    found: dict[str, Any] = {}
    for axes in cells:
        place = len(order)
        marks, labels = axes.get_legend_handles_labels()
        # Bars before lines; matplotlib lists them the other way round.
        pairs = sorted(
            zip(labels, marks, strict=True), key=lambda pair: not isinstance(pair[1], Container)
        )
        for label, mark in reversed(pairs):
            if label in found:
                place = order.index(label)
            else:
                order.insert(place, label)
                found[label] = mark
    return {label: found[label] for label in order}


def _keep_whole(axes: Axes) -> None:
    """Marks on the border are not cut; a line that goes on beyond it is."""
    axes.get_ylim()  # Limits are stale until they are asked for.
    left, bottom, right, top = axes.bbox.padded(1).extents
    for line in axes.lines:
        x, y = line.get_transform().transform(line.get_xydata()).T
        beyond = (x < left) | (x > right) | (y < bottom) | (y > top)
        if line.get_marker() != "None" and len(x) and not beyond.any():
            line.set_clip_on(False)


def _wrap_title(axes: Axes, width: float) -> None:
    lines = axes.get_title().split("\n")
    if lines != [""]:
        most = _characters(width - 0.25, 7.5)
        parts = [textwrap.wrap(line, most, break_on_hyphens=False) for line in lines]
        axes.set_title("\n".join(part for wrapped in parts for part in wrapped))


def _wrap_label(axes: Axes, canvas: FigureCanvasAgg, room: float) -> None:
    """The layout makes no room for a label that is wider than its axes."""
    label = axes.xaxis.label
    share = label.get_window_extent(canvas.get_renderer()).width / (room * canvas.figure.dpi)
    if share > 1:
        letters = max(8, int(len(label.get_text()) / share))
        label.set_text(textwrap.fill(label.get_text(), letters, break_long_words=False))


def _characters(inches: float, points: float) -> int:
    """How many letters of a size fit on a line; DejaVu's are about 0.58 of their size wide."""
    return max(8, int(inches * 72 / (0.58 * points)))
