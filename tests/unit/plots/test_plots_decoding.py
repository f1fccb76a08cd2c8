"""Figures of a decoder: their tables against the runs' own numbers."""

from __future__ import annotations

from collections import Counter

import pytest
from matplotlib.figure import Figure
from synthetic_decodings import decoding_run
from synthetic_runs import evaluate_run

from eexit_cli.core.errors import UsageError
from eexit_cli.plots import FIGURES, confidence_time, exits_position, quality_lines
from eexit_cli.plots.figure import RunView
from eexit_cli.store.results import ResultStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("results"))


def view(run, label: str = "calm") -> RunView:
    return RunView(run.id, label, run.document(), run.records)


@pytest.fixture(scope="module")
def swept(store) -> RunView:
    return view(decoding_run(store, sweep=("softmax", "linear"), static=True))


@pytest.fixture(scope="module")
def grid(store) -> RunView:
    return view(decoding_run(store, top_k=(0, 10, 20), thresholds=(0.9, 0.5)))


@pytest.fixture(scope="module")
def single(store) -> RunView:
    return view(decoding_run(store))


def test_each_figure_takes_the_runs_that_have_its_numbers(store, swept, grid, single) -> None:
    encoder = view(evaluate_run(store, sweep=True))
    suited = {
        name: [FIGURES.load(name).suits(run) for run in (swept, grid, single, encoder)]
        for name in ("quality-layers", "quality-time", "confidence-time", "exits-position")
    }
    assert suited == {
        "quality-layers": [True, True, False, False],
        "quality-time": [True, True, False, False],
        "confidence-time": [False, True, True, False],
        "exits-position": [True, True, True, False],
    }


def test_a_row_of_the_table_per_setting_and_the_full_model(swept) -> None:
    table = quality_lines.frame([swept])
    rows = [row for row in swept.rows if row["criterion"] != "full"]
    assert len(table) == len(rows) + 1
    assert Counter(table["series"]) == {
        "softmax": 19,
        "linear": 19,
        "static layer": 5,
        "full model": 1,
    }
    for (_, point), row in zip(table.iterrows(), rows, strict=False):
        assert point["quality"] == row["phoneme_error_rate"]
        assert point["mean_exit_layer"] == row["mean_exit_layer"]
        assert point["ms_per_token"] * row["tokens_per_second"] == pytest.approx(1000)
        assert point["ms_low"] * row["tokens_per_second_high"] == pytest.approx(1000)
        assert point["ms_high"] * row["tokens_per_second_low"] == pytest.approx(1000)
    full = table[table["series"] == "full model"].iloc[0]
    assert full["quality"] == swept.metrics["phoneme_error_rate_full"]
    assert full["mean_exit_layer"] == 6


def test_a_series_looks_the_same_in_every_panel(store) -> None:
    runs = [
        view(decoding_run(store, sweep=("softmax", "linear")), "one"),
        view(decoding_run(store, sweep=("linear", "saturation"), seed=1), "two"),
    ]
    table = quality_lines.frame(runs)
    assert (table.groupby("series")["look"].nunique() == 1).all()
    named = table[~table["series"].isin(["full model", "static layer"])]
    assert named.groupby("look")["series"].nunique().max() == 1


def test_the_grid_has_a_line_per_k(grid) -> None:
    table = quality_lines.frame([grid])
    assert set(table["series"]) == {"softmax", "softmax, top 10", "softmax, top 20", "full model"}


def test_runs_of_different_tasks_do_not_mix(store, swept) -> None:
    other = view(decoding_run(store, sweep=("softmax",), metric="rouge_l"), "other")
    with pytest.raises(UsageError, match="measure different things"):
        quality_lines.frame([swept, other])


def test_time_per_layer_is_the_rows_own(grid) -> None:
    table = confidence_time.frame([grid])
    assert list(dict.fromkeys(table["panel"])) == ["threshold 0.9", "threshold 0.5"]
    assert set(table["series"]) == {"all tokens", "K = 10", "K = 20"}
    assert set(table["layer"]) == {1, 2, 3, 4, 5}
    row = next(row for row in grid.rows if row.get("top_k_propagation") == 20)
    mine = table[(table["series"] == "K = 20") & (table["panel"] == "threshold 0.9")]
    assert mine.sort_values("layer")["milliseconds"].tolist() == [
        row[f"confidence_ms_layer_{layer}"] for layer in range(1, 6)
    ]


def _bars(spec, frame) -> list[list[float]]:
    """Both ends of each bar, along its own direction."""
    axes = Figure().subplots()
    spec.draw(frame, axes)
    segments = [s for bars in axes.collections for s in bars.get_segments() if len(s)]
    return sorted([a, c] if b == d else [b, d] for (a, b), (c, d) in segments if (a, b) != (c, d))


@pytest.mark.parametrize("name", ["quality-time", "confidence-time"])
def test_measured_times_have_bars_over_their_interval(name: str, grid) -> None:
    spec = FIGURES.load(name)
    frame = spec.frame([grid])
    ends = ("ms_low", "ms_high") if name == "quality-time" else ("low", "high")
    expected = sorted(frame[list(ends)].to_numpy().tolist())
    assert len(expected) == len(frame) > 6
    for bar, (low, high) in zip(_bars(spec, frame), expected, strict=True):
        assert low < high
        assert bar == pytest.approx([low, high])
    # As an older eexit wrote it: timed once.
    ends = ("_low", "_high", "timing_repeats")
    figures = [
        {key: value for key, value in row.items() if not any(end in key for end in ends)}
        for row in (grid.metrics, *grid.rows)
    ]
    document = {**grid.document, "metrics": figures[0], "rows": figures[1:]}
    old = spec.frame([RunView("x", "x", document, list)])
    assert len(old) == len(frame)
    assert _bars(spec, old) == []


def test_one_setting_makes_one_line(single) -> None:
    table = confidence_time.frame([single])
    assert set(table["series"]) == {"all tokens"}
    assert len(table) == 5


def test_shares_at_a_position_are_those_of_the_records(single) -> None:
    table = exits_position.frame([single])
    outputs = [record["exit_layers"] for record in single.records]
    for position, rows in table.groupby("position"):
        there = [layers[position - 1] for layers in outputs if len(layers) >= position]
        assert rows["share"].sum() == pytest.approx(1)
        assert len(there) == rows["tokens"].iloc[0]
        for _, row in rows.iterrows():
            assert row["share"] == there.count(row["exit_layer"]) / len(there)


def test_positions_that_few_outputs_reach_are_left_out(store) -> None:
    run = view(decoding_run(store, samples=60, longest=14))
    counts = [
        sum(len(record["exit_layers"]) > position for record in run.records)
        for position in range(14)
    ]
    shown = int(exits_position.frame([run])["position"].max())
    assert shown == sum(count >= 5 for count in counts)


def test_bars_of_a_position_reach_a_hundred(single) -> None:
    axes = Figure().subplots()
    exits_position.draw(exits_position.frame([single]), axes)
    tops = {}
    for bar in axes.patches:
        middle = round(bar.get_x() + bar.get_width() / 2)
        tops[middle] = max(tops.get(middle, 0), bar.get_y() + bar.get_height())
    assert tops
    assert all(top == pytest.approx(100) for top in tops.values())
