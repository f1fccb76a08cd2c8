"""What a reader of a figure needs: whole marks, labels at their panel, legends in order, names."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, concat
from synthetic_calibrations import calibration_run
from synthetic_decodings import decoding_run, drafts_run
from synthetic_runs import attack_run, evaluate_run, transfer_run

from eexit_cli.config.plot import PlotConfig
from eexit_cli.pipelines.plot import run_plot
from eexit_cli.plots import FIGURES
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView, run_labels
from eexit_cli.plots.rendering import render
from eexit_cli.store.results import ResultStore, Run

DELTAS = (0.02, 0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("figures") / "results")


@pytest.fixture(scope="module")
def calibrated(store: ResultStore) -> Run:
    return calibration_run(store, name="anna", deltas=DELTAS)


@pytest.fixture(scope="module")
def swept(store: ResultStore) -> Run:
    return decoding_run(store, model="anna", sweep=("softmax", "linear"), static=True)


@pytest.fixture(scope="module")
def runs(store: ResultStore, calibrated: Run, swept: Run) -> list[Run]:
    """One that each figure can draw, all of one model."""
    return [
        attack_run(store, model="anna", recipes=("same-token", "deepwordbug")),
        evaluate_run(store, model="anna", sweep=True),
        decoding_run(store, model="anna", top_k=(0, 10), thresholds=(0.9, 0.5)),
        drafts_run(store, model="anna"),
        transfer_run(store, makers=("anna", "bert")),
        calibrated,
        swept,
    ]


def views(*runs: Run) -> list[RunView]:
    documents = [run.document() or {} for run in runs]
    return [
        RunView(run.id, label, document, run.records)
        for run, label, document in zip(runs, run_labels(documents), documents, strict=True)
    ]


def drawn(name: str, *runs: Run, **options: Any) -> Figure:
    spec = FIGURES.load(name)
    figure = render(spec, spec.frame(views(*runs)), **options)
    figure.draw_without_rendering()
    return figure


def lines(axes: Axes, label: str) -> list[Any]:
    return [item for item in axes.lines if item.get_label() == label]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def _spec(draw: Any, **options: Any) -> FigureSpec:
    told = {"commands": (), "needs": "", "make": "", "suits": bool, "frame": DataFrame}
    return FigureSpec(name="drawn", summary="", draw=draw, **told, **options)


# --- marks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quality-time", "quality-layers"])
def test_the_star_of_the_full_model_is_whole(name: str, swept: Run) -> None:
    (axes,) = drawn(name, swept, height=1.5).axes
    (star,) = lines(axes, "full model")
    assert star.get_marker() == "*"
    assert not star.get_clip_on()


def test_marks_of_a_calibration_are_whole(calibrated: Run) -> None:
    for axes in drawn("calibration", calibrated).axes:
        for line in axes.lines:
            if line.get_marker() != "None" and len(line.get_xdata()):
                inside = max(line.get_xdata()) <= axes.get_xlim()[1]
                assert line.get_clip_on() != inside


def test_a_line_that_goes_on_beyond_the_axes_is_cut() -> None:
    def draw(_: DataFrame, ax: Axes) -> None:
        ax.plot([0, 1, 2], [0, 1, 2], marker="o", label="on")
        ax.plot([0, 1], [1, 0], marker="o", label="within")
        ax.set_xlim(0, 1)

    (axes,) = render(_spec(draw), DataFrame({"x": [0]})).axes
    assert [lines(axes, label)[0].get_clip_on() for label in ("on", "within")] == [True, False]


def test_the_chosen_setting_of_a_sweep_is_timed_like_its_neighbours(swept: Run) -> None:
    """As an older eexit left it, with the time of its first pass: not in turn with the others."""
    (view,) = views(swept)
    frame = FIGURES.load("quality-time").frame
    rows = [dict(row) for row in view.rows]
    chosen = next(r for r in rows if (r.get("confidence"), r.get("threshold")) == ("softmax", 0.9))
    for end in ("_low", "_high"):
        del chosen[f"tokens_per_second{end}"]
    chosen["tokens_per_second"] /= 9
    older = RunView(view.id, view.label, {**view.document, "rows": rows}, list)
    times = ["ms_per_token", "ms_low", "ms_high"]
    assert frame([older])[times].equals(frame([view])[times])


# --- labels ----------------------------------------------------------------------------------


def test_labels_of_a_calibration_stay_at_their_panel(calibrated: Run) -> None:
    figure = drawn("calibration", calibrated)
    boxes = {axes: axes.get_tightbbox() for axes in figure.axes}
    for left, right in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        assert boxes[left].x1 < boxes[right].x0
        label, own = right.yaxis.label.get_window_extent(), right.get_window_extent()
        assert own.x0 - label.x1 < label.x0 - left.get_window_extent().x1
    tops = [axes.get_window_extent() for axes in figure.axes]
    for box, axes in zip(tops, figure.axes, strict=True):
        name = axes.xaxis.label.get_window_extent()
        assert box.x0 - 2 < name.x0
        assert name.x1 < box.x1 + 2


def test_a_label_wider_than_its_axes_goes_on_below(calibrated: Run) -> None:
    spec = FIGURES.load("calibration")
    frame = spec.frame(views(calibrated))
    # As of measures whose grids differ: places in the sequence are all that they share.
    again = frame[frame[PANEL] == "calibration-p-values"].assign(series="b", name="0.3")
    figure = render(spec, concat([frame, again]))
    figure.draw_without_rendering()
    (label,) = [a.xaxis.label for a in figure.axes if a.get_xlabel().startswith("Threshold no.")]
    assert label.get_text().replace("\N{NO-BREAK SPACE}", " ") == "Threshold no.\n(→ eager)"
    assert label.get_window_extent().x1 < figure.bbox.x1
    # However narrow, no word is broken.
    words = {
        word for axes in render(spec, frame, width=1.6).axes for word in axes.get_xlabel().split()
    }
    assert words == {"Tolerated", "risk", "δ", "Threshold", "(→", "eager)"}


def test_the_label_of_confidence_time_is_no_longer_than_its_panel(store: ResultStore) -> None:
    run = decoding_run(store, top_k=(0, 10), thresholds=(0.9, 0.5))
    axes = drawn("confidence-time", run).axes[0]
    label, panel = axes.yaxis.label.get_window_extent(), axes.get_window_extent()
    assert label.height < panel.height + 4


def test_a_panel_of_a_calibration_that_shows_one_run_is_titled(calibrated: Run, store) -> None:
    other = calibration_run(store, name="bert", power=1.0, deltas=DELTAS)
    figure = drawn("calibration", calibrated, other)
    panels = [axes for axes in figure.axes if axes.get_legend() is not None]
    assert [axes.get_title() for axes in panels] == ["anna"]
    # A title in the legend would look like an entry that lacks its mark.
    assert [axes.get_legend().get_title().get_text() for axes in panels] == [""]


def test_the_lines_of_delta_epsilon_and_the_full_model_differ(calibrated: Run) -> None:
    looks = {}
    for axes in drawn("calibration", calibrated).axes:
        for line in axes.lines:
            looks.setdefault(str(line.get_label()), set()).add(str(line._unscaled_dash_pattern))
    names = ("risk = δ", "ε", "full model", "Hoeffding")
    assert [len(looks[name]) for name in names] == [1, 1, 1, 1]
    assert len({looks[name].pop() for name in names}) == 4


# --- legends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "words"), [("accepted", "accepted"), ("failed", "first failure")])
def test_a_mark_that_no_line_has_is_not_in_the_legend(calibrated: Run, kept, words) -> None:
    spec = FIGURES.load("calibration-p-values")
    frame = spec.frame(views(calibrated))
    assert {"accepted", "first failure"} <= set(legend(render(spec, frame)))
    frame[kept] = False
    assert {"accepted", "first failure"} - set(legend(render(spec, frame))) == {words}


@pytest.mark.parametrize("count", [2, 5, 7, 9, 11])
def test_columns_of_a_legend_are_filled_in_order(count: int) -> None:
    names = [f"a long series {number}" for number in range(count)]

    def draw(_: DataFrame, ax: Axes) -> None:
        for name in names:
            ax.plot([0, 1], [0, 1], label=name)

    for width in (2.0, 3.3, 5.0, 9.0):
        figure = render(_spec(draw), DataFrame({"x": [0]}), width=width)
        figure.draw_without_rendering()
        (found,) = figure.legends
        assert legend(figure) == names
        places = [text.get_window_extent() for text in found.get_texts()]
        columns = [
            sum(abs(box.x0 - x) < 1 for box in places) for x in sorted({b.x0 for b in places})
        ]
        assert max(columns) - min(columns) <= 1
        assert columns == sorted(columns, reverse=True)
        # One column less would need another line.
        assert len(columns) == 1 or -(-count // (len(columns) - 1)) > max(columns)
        # One after the other goes down, or to the top of the next column.
        assert all(b.y1 < a.y1 or b.x0 > a.x0 for a, b in pairwise(places))


def test_one_line_is_named_by_its_measure_as_the_title_names_the_run(store: ResultStore) -> None:
    runs = [decoding_run(store, model=name, sweep=("linear",)) for name in ("anna", "bert")]
    rows = [[row for row in run.document()["rows"] if row["criterion"] != "full"] for run in runs]
    given = [
        RunView(view.id, view.label, {**view.document, "rows": own}, list)
        for view, own in zip(views(*runs), rows, strict=True)
    ]
    spec = FIGURES.load("tradeoff")
    assert legend(render(spec, spec.frame(given[:1])))[0] == "linear"
    assert legend(render(spec, spec.frame(given)))[:2] == ["anna", "bert"]


def test_labels_of_several_panels_keep_their_order() -> None:
    def draw(frame: DataFrame, ax: Axes) -> None:
        for name in frame["names"].iloc[0].split():
            ax.plot([0, 1], [0, 1], label=name)
        ax.set_title(frame[PANEL].iloc[0])

    frame = DataFrame({PANEL: ["p", "q", "r"], "names": ["a full", "a b c full", "d full end"]})
    assert legend(render(_spec(draw), frame)) == ["a", "b", "c", "d", "full", "end"]


# --- names -----------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are written."""
    found: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *arguments: Any, **options: Any) -> None:
        found.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return found


def _titles(figure: Figure) -> list[str]:
    return [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_figure_of_one_run_names_its_model(
    name: str, runs: list[Run], store: ResultStore, shown: list[Figure], tmp_path: Path
) -> None:
    spec = FIGURES.load(name)
    fitting = [r for r in views(*runs) if r.command in spec.commands and spec.suits(r)]
    assert fitting
    told: dict[str, Any] = {"figure": name, "results_dir": store.results_dir, "dpi": 50}
    for run in fitting:
        run_plot(PlotConfig(**told, runs=(run.id,), output=tmp_path / "a.png"))
        texts = _titles(shown[-1])
        if name == "transfer":  # Its axes name makers and victims.
            assert shown[-1].get_suptitle() == ""
            texts = [tick.get_text() for axes in shown[-1].axes for tick in axes.get_yticklabels()]
        assert "anna" in " ".join(texts)
        assert sum("anna" in text for text in texts[:2]) <= 1
    run_plot(PlotConfig(**told, runs=(fitting[0].id,), output=tmp_path / "a.png", title="Mine"))
    assert shown[-1].get_suptitle() == "Mine"


@pytest.mark.parametrize("name", ["exits-position", "exits"])
def test_where_several_settings_ran_the_one_that_is_shown_is_named(name: str, store) -> None:
    own = {"criterion": "threshold", "confidence": "softmax", "threshold": 0.9, "min_layer": 1}
    if name == "exits":
        runs = [evaluate_run(store, sweep=True, exit=own, threshold=t) for t in (0.9, 0.5)]
    else:
        runs = [
            decoding_run(store, thresholds=(t, 0.4), top_k=(0,), threshold=t) for t in (0.9, 0.5)
        ]
    model = "deebert" if name == "exits" else "calm"
    (axes,) = drawn(name, runs[0]).axes
    assert axes.get_title() == f"{model}, softmax threshold 0.9"
    # What tells the runs apart is said once.
    first = drawn(name, *runs).axes[0].get_title().replace("\n", " ")
    assert first == f"{model} threshold 0.9, softmax"


def test_the_setting_is_named_beside_a_list_of_all(store: ResultStore) -> None:
    runs = [decoding_run(store, threshold=asked) for asked in ([0.9, 0.5], 0.9)]
    titles = [axes.get_title().replace("\n", " ") for axes in drawn("exits-position", *runs).axes]
    assert titles == [
        "calm threshold 0.9, 0.5, softmax threshold 0.9",
        "calm threshold 0.9, softmax",
    ]
