"""Every figure of the catalog: it says what it reads, draws it, and fits a column of a paper."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_calibrations import calibration_run
from synthetic_decodings import HELPFUL, decoder_attack_run, decoding_run, drafts_run
from synthetic_runs import attack_run, evaluate_run, transfer_run

from eexit_cli.plots import FIGURES
from eexit_cli.plots.figure import PANEL, FigureSpec, RunView, run_labels
from eexit_cli.plots.rendering import render
from eexit_cli.store.results import ResultStore, Run

COMMANDS = {"train", "attack", "calibrate", "evaluate"}

# One maker per kind of run that eexit writes; a figure is drawn from all kinds that it reads.
MAKERS: dict[str, Callable[[ResultStore], list[Run]]] = {
    "attack": lambda store: [attack_run(store)],
    "attacks on two models": lambda store: [
        attack_run(store),
        attack_run(store, model="author/deebert-base-uncased-sst2", layers=12, seed=1),
    ],
    "attack with every recipe": lambda store: [
        attack_run(store, recipes=("same-token", "same-char", "waffle", "deepwordbug", "random"))
    ],
    "attack with too many recipes for seven colours": lambda store: [
        attack_run(store, recipes=tuple(f"recipe-{letter}" for letter in "abcdefghij"))
    ],
    "attack with every recipe of the catalog": lambda store: [
        attack_run(store, recipes=tuple(f"recipe-{letter}" for letter in "abcdefghijklm"))
    ],
    "attack with a small budget": lambda store: [
        attack_run(store, query_budget=40, recipes=("same-token", "random"))
    ],
    "attack on a decoder": lambda store: [
        decoder_attack_run(store, recipes=("same-token", "random"))
    ],
    "attacks on a classifier and a decoder": lambda store: [
        attack_run(store),
        decoder_attack_run(store),
    ],
    "replay": lambda store: [transfer_run(store)],
    "replay with defences": lambda store: [transfer_run(store, defences=True)],
    "replays of classifiers and decoders": lambda store: [
        transfer_run(store),
        *(
            transfer_run(
                store,
                makers=("calm",),
                recipes=("same-token",),
                victims={"calm": {"criterion": "threshold", "confidence": name, "threshold": 0.7}},
                defences=True,
                family="decoder",
            )
            for name in ("softmax", "transformer_linear_64")
        ),
    ],
    "replay of two recipes on several exits": lambda store: [
        transfer_run(
            store,
            makers=("deebert",),
            victims={"deebert": {"criterion": "threshold", "threshold": threshold}},
            defences=True,
        )
        for threshold in (0.25, 0.4193)
    ],
    "evaluation": lambda store: [evaluate_run(store)],
    "sweep": lambda store: [evaluate_run(store, sweep=True)],
    "sweeps of two models": lambda store: [
        evaluate_run(store, sweep=True),
        evaluate_run(store, sweep=True, model="author/pabee-bert-base-sst2", layers=12, seed=1),
    ],
    "decoding": lambda store: [decoding_run(store)],
    "decoding with a deep decoder": lambda store: [decoding_run(store, layers=24, longest=60)],
    "decodings of two models": lambda store: [
        decoding_run(store),
        decoding_run(store, model="owner/calm-t5-base-cnn-dailymail", layers=12, longest=40),
    ],
    "decoding grid": lambda store: [
        decoding_run(store, top_k=(0, 10, 20), thresholds=(0.9, 0.5), threshold=[0.9, 0.5])
    ],
    "decoding sweep": lambda store: [decoding_run(store, sweep=("softmax",))],
    "decoding sweep of everything": lambda store: [
        decoding_run(store, sweep=tuple(HELPFUL), static=True, metric="rouge_l", layers=12)
    ],
    "decoding sweeps of two models": lambda store: [
        decoding_run(store, sweep=("softmax", "linear")),
        decoding_run(store, sweep=("softmax", "saturation"), model="owner/name", seed=1),
    ],
    "drafts": lambda store: [drafts_run(store)],
    "drafts of three lengths, not timed": lambda store: [
        drafts_run(store, drafts=(2, 4, 8), timed=False)
    ],
    "drafts of one layer": lambda store: [drafts_run(store, exits=(3,))],
    "drafts of two models": lambda store: [
        drafts_run(store, drafts=(2, 4)),
        drafts_run(store, model="facebook/layerskip-llama3.2-1B", layers=16, seed=1),
    ],
    "calibration": lambda store: [calibration_run(store)],
    "calibration without a test": lambda store: [calibration_run(store, test_share=None)],
    "calibration without curves": lambda store: [calibration_run(store, curves=False)],
    "calibration of losses alone": lambda store: [
        calibration_run(store, name="named", layers=False, names=True)
    ],
    "calibrations of three measures": lambda store: [
        calibration_run(store, name=name, power=power)
        for name, power in (("margin", 1.6), ("saturation", 1.0), ("transformer-mlp", 2.4))
    ],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[RunView]]:
    store = ResultStore(tmp_path_factory.mktemp("results"))
    return {kind: _views(make(store)) for kind, make in MAKERS.items()}


def _views(runs: list[Run]) -> list[RunView]:
    documents = [run.document() or {} for run in runs]
    labels = run_labels(documents)
    return [
        RunView(run.id, label, document, run.records)
        for run, label, document in zip(runs, labels, documents, strict=True)
    ]


def suited(spec: FigureSpec, runs: dict[str, list[RunView]]) -> dict[str, list[RunView]]:
    found = {
        kind: views
        for kind, views in runs.items()
        if all(view.command in spec.commands and spec.suits(view) for view in views)
    }
    assert found, f"add a maker of runs for the figure '{spec.name}' to MAKERS"
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_is_and_what_it_needs(name: str) -> None:
    spec = FIGURES.load(name)
    assert isinstance(spec, FigureSpec)
    assert spec.name == name
    assert spec.commands
    assert set(spec.commands) <= COMMANDS
    assert spec.make.split()[:2] in [["eexit", command] for command in spec.commands]
    assert spec.summary
    assert spec.needs
    assert "\n" not in spec.summary + spec.needs
    assert spec.frame.__doc__
    assert spec.draw.__doc__


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_declines_a_run_without_results(name: str) -> None:
    spec = FIGURES.load(name)
    for command in spec.commands:
        document = {"run_id": "x", "command": command, "config": {}, "metrics": {}, "rows": []}
        assert spec.suits(RunView("x", "x", document, list)) is False


@pytest.mark.parametrize("title", [None, "A title that is long enough to need a second line here"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_fits_a_column_with_nothing_cut_off_or_overprinted(
    name: str, title: str | None, runs: dict[str, list[RunView]]
) -> None:
    spec = FIGURES.load(name)
    for kind, views in suited(spec, runs).items():
        figure = render(spec, spec.frame(views), width=3.3, title=title)
        figure.draw_without_rendering()
        page = figure.bbox
        boxes = _texts(figure)
        assert len(boxes) > 5, kind
        for text, box in boxes:
            assert min(box.x0 - page.x0, page.x1 - box.x1) >= -1, (kind, text, "is cut off")
            assert min(box.y0 - page.y0, page.y1 - box.y1) >= -1, (kind, text, "is cut off")
        for (one, first), (two, second) in combinations(boxes, 2):
            assert not _overlap(first, second), (kind, one, two, "are printed over each other")
        inches = figure.get_figheight()
        assert all(axes.get_position().height * inches > 0.5 for axes in figure.axes), kind
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6.5


@pytest.mark.parametrize("name", FIGURES)
def test_drawing_is_pure(name: str, runs: dict[str, list[RunView]]) -> None:
    spec = FIGURES.load(name)
    for views in suited(spec, runs).values():
        frame = spec.frame(views)
        panels = list(frame.groupby(PANEL, sort=False)) if PANEL in frame else [("", frame)]
        _, first = panels[0]
        before = first.copy(deep=True)
        drawn = [_drawn(spec, first), _drawn(spec, first)]
        assert drawn[0] == drawn[1]
        assert drawn[0]
        assert first.equals(before)
        assert spec.frame(views).equals(frame)


def _drawn(spec: FigureSpec, frame: object) -> list[object]:
    axes = Figure().subplots()
    assert spec.draw(frame, axes) is None  # type: ignore[func-returns-value, arg-type]
    return _content(axes)


def _content(axes: Axes) -> list[object]:
    lines: list[object] = [
        [list(map(str, data)) for data in item.get_data()] for item in axes.lines
    ]
    return lines + [tuple(patch.get_bbox().bounds) for patch in axes.patches]


def _texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every printed text with its place; tick labels outside the axes are not printed."""
    texts = [item for item in (figure._suptitle, *figure.legends) if item is not None]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(ends)  # an axis may run down the page
            ticks = axis.get_major_ticks()
            texts += [
                tick.label1
                for tick in ticks
                if tick.label1.get_visible() and low <= tick.get_loc() <= high
            ]
    found = []
    for item in texts:
        words = getattr(item, "get_text", lambda: "legend")()
        if words:
            found.append((words, item.get_window_extent()))
    return found


def _overlap(first: Bbox, second: Bbox) -> bool:
    across = min(first.x1, second.x1) - max(first.x0, second.x0)
    up = min(first.y1, second.y1) - max(first.y0, second.y0)
    return across > 0.5 and up > 0.5
