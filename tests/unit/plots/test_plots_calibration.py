"""What the calibration's figures draw, against numbers computed here from the same losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from synthetic_calibrations import THRESHOLDS, calibration_run

from eexit_cli.plots import FIGURES
from eexit_cli.plots.figure import PANEL, RunView, run_labels
from eexit_cli.plots.rendering import render
from eexit_cli.store.results import ResultStore, Run

DELTAS = (0.02, 0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("figures") / "results")


@pytest.fixture(scope="module")
def run(store: ResultStore) -> Run:
    return calibration_run(store, deltas=DELTAS)


def views(*runs: Run) -> list[RunView]:
    documents = [run.document() or {} for run in runs]
    return [
        RunView(run.id, label, document, run.records)
        for run, label, document in zip(runs, run_labels(documents), documents, strict=True)
    ]


def drawn(name: str, *runs: Run) -> Figure:
    spec = FIGURES.load(name)
    return render(spec, spec.frame(views(*runs)))


def line(axes: Axes, label: str) -> Any:
    (found,) = [item for item in axes.lines if item.get_label() == label]
    return found


def columns(run: Run, part: str, key: str) -> np.ndarray:
    """Losses or layers as recorded. Shape: [samples, thresholds]."""
    records = [r for r in run.records() if r["kind"] == "threshold" and r["part"] == part]
    return np.stack([record[key] for record in sorted(records, key=lambda r: r["index"])], axis=1)


def accepted(losses: np.ndarray, delta: float, epsilon: float = 0.05) -> int | None:
    """Hoeffding's fixed sequence, by hand."""
    p = np.exp(-2 * len(losses) * np.maximum(0, delta - losses.mean(axis=0)) ** 2)
    passed = np.logical_and.accumulate(p <= epsilon)
    return int(passed.sum()) - 1 if passed.any() else None


@pytest.mark.parametrize(
    ("name", "key"), [("calibration-risk", "losses"), ("calibration-layers", "exit_layers")]
)
def test_lines_are_the_test_samples_at_the_accepted_thresholds(run, name, key) -> None:
    (axes,) = drawn(name, run).axes
    drawn_line = line(axes, "Hoeffding")
    calibration, test = columns(run, "calibration", "losses"), columns(run, "test", key)
    expected = {}
    for delta in DELTAS:
        index = accepted(calibration, delta)
        if index is not None:
            expected[delta] = test[:, index].mean()
    assert len(expected) >= 2
    assert drawn_line.get_xdata() == pytest.approx(list(expected))
    assert drawn_line.get_ydata() == pytest.approx(list(expected.values()))


def test_thresholds_are_the_accepted_ones(run) -> None:
    (axes,) = drawn("calibration-threshold", run).axes
    calibration = columns(run, "calibration", "losses")
    indices = [accepted(calibration, delta) for delta in DELTAS]
    expected = [THRESHOLDS[index] for index in indices if index is not None]
    assert line(axes, "Hoeffding").get_ydata() == pytest.approx(expected)


def test_the_diagonal_is_the_diagonal_and_the_full_model_is_at_l(run) -> None:
    (axes,) = drawn("calibration-risk", run).axes
    diagonal = line(axes, "risk = δ")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, max(DELTAS)]
    assert "test" in axes.get_ylabel()
    (axes,) = drawn("calibration-layers", run).axes
    assert set(line(axes, "full model").get_ydata()) == {6}


def test_p_values_end_at_the_stopping_point(run) -> None:
    (axes,) = drawn("calibration-p-values", run).axes
    calibration = columns(run, "calibration", "losses")
    index = accepted(calibration, 0.1)
    assert index is not None
    shown = line(axes, "Hoeffding")
    assert list(shown.get_xdata()) == list(range(index + 2))
    p = np.exp(-2 * len(calibration) * (0.1 - calibration[:, : index + 2].mean(axis=0)) ** 2)
    assert shown.get_ydata() == pytest.approx(np.maximum(p, 1e-6))
    marks = {
        (mark.get_marker(), x)
        for mark in axes.lines
        if mark.get_linestyle() == "None"
        for x in mark.get_xdata()
    }
    assert {("o", index), ("x", index + 1)} <= marks
    assert axes.get_yscale() == "log"


def test_a_line_per_run_when_there_are_several(store, run) -> None:
    other = calibration_run(store, name="saturation", power=1.0, deltas=DELTAS)
    for name in ("calibration-risk", "calibration-layers", "calibration-p-values"):
        (axes,) = drawn(name, run, other).axes
        labels = axes.get_legend_handles_labels()[1]
        assert {"margin", "saturation"} <= set(labels)
        assert "betting" not in labels


def test_bands_are_the_repeated_splits_of_about_the_runs_size(run) -> None:
    frame = FIGURES.load("calibration-risk").frame(views(run))
    own = frame[frame["series"] == "Hoeffding-Bentkus"]
    splits = [r for r in run.records() if r["kind"] == "split" and r["n"] == 200]
    expected = {r["delta"]: r for r in splits if r["p_value"] == "hoeffding-bentkus"}
    assert len(own.dropna(subset=["low"])) >= 2
    for row in own.dropna(subset=["low"]).itertuples():
        assert row.low == expected[row.x]["mean_loss_low"]
        assert row.high == expected[row.x]["mean_loss_high"]
    assert frame[frame["series"] == "betting"]["low"].isna().all()


def test_sample_sizes_and_violations(run) -> None:
    (axes,) = drawn("calibration-samples", run).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["n = 50", "n = 100", "n = 200"]
    (axes,) = drawn("calibration-violations", run).axes
    assert set(line(axes, "ε").get_ydata()) == {5}
    naive = line(axes, "naive").get_ydata()
    splits = [
        r for r in run.records()
        if r["kind"] == "split" and r["n"] == 200 and r["p_value"] == "naive"
    ]  # fmt: skip
    assert naive == pytest.approx([100 * record["violations"] for record in splits])


def test_the_page_has_every_panel_that_the_run_can_fill(store, run) -> None:
    spec = FIGURES.load("calibration")
    assert list(dict.fromkeys(spec.frame(views(run))[PANEL])) == [
        "calibration-risk",
        "calibration-layers",
        "calibration-threshold",
        "calibration-p-values",
        "calibration-samples",
        "calibration-violations",
    ]
    bare = calibration_run(store, name="bare", layers=False, names=True, curves=False)
    assert list(dict.fromkeys(spec.frame(views(bare))[PANEL])) == [
        "calibration-risk",
        "calibration-p-values",
    ]
    figure = drawn("calibration", run)
    assert len(figure.axes) == 6
    # Each panel has its own axes, so each says what they are.
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


class TestSeveralMeasures:
    """One run of several measures draws what as many runs would, with the measures' names."""

    @pytest.fixture(scope="class")
    def apart(self, store) -> list[RunView]:
        runs = [
            calibration_run(store, name=name, power=power, deltas=DELTAS)
            for name, power in (("softmax", 1.6), ("saturation", 0.9))
        ]
        found = []
        for name, view in zip(("softmax", "saturation"), views(*runs), strict=True):
            config = {**view.config, "confidence": name}
            found.append(
                RunView(
                    view.id, name, {**view.document, "config": config}, lambda v=view: v.records
                )
            )
        return found

    @pytest.fixture(scope="class")
    def together(self, apart) -> RunView:
        parts = [
            {"confidence": view.label, "metrics": view.metrics, **view.document["report"]}
            for view in apart
        ]
        document = {
            **apart[0].document,
            "config": {**apart[0].config, "confidence": [view.label for view in apart]},
            "rows": [{"confidence": view.label, **row} for view in apart for row in view.rows],
            "report": {**apart[0].document["report"], "measures": parts},
        }
        records = [
            {**record, **({} if record["kind"] == "samples" else {"confidence": view.label})}
            for view in apart
            for record in view.records
        ]
        return RunView("one", "calm", document, lambda: records)

    @pytest.mark.parametrize(
        "name",
        [
            "calibration",
            "calibration-risk",
            "calibration-layers",
            "calibration-threshold",
            "calibration-p-values",
            "calibration-samples",
            "calibration-violations",
        ],
    )
    def test_the_frame_is_that_of_the_runs(self, apart, together, name) -> None:
        spec = FIGURES.load(name)
        assert spec.suits(together)
        one, other = spec.frame([together]), spec.frame(apart)
        assert len(one) > 4
        pd.testing.assert_frame_equal(one, other)
        render(spec, one)

    def test_every_panel_has_a_line_per_measure(self, together) -> None:
        spec = FIGURES.load("calibration-layers")
        (axes,) = render(spec, spec.frame([together])).axes
        names = {str(item.get_label()) for item in axes.lines}
        assert {"softmax", "saturation"} <= names

    def test_p_values_of_different_grids_are_placed_by_number(self, together) -> None:
        spec = FIGURES.load("calibration-p-values")
        frame = spec.frame([together])
        (axes,) = render(spec, frame).axes
        assert axes.get_xlabel().startswith("Threshold (")
        own = frame["series"] == "saturation"
        frame.loc[own, "name"] = [f"0.{place:.0f}1" for place in frame.loc[own, "x"]]
        (axes,) = render(spec, frame).axes
        assert axes.get_xlabel().startswith("Threshold no.")
        places = [float(tick.get_text()) for tick in axes.get_xticklabels()]
        assert places == axes.get_xticks().tolist()

    def test_two_runs_of_several_measures_are_told_apart(self, together) -> None:
        spec = FIGURES.load("calibration-layers")
        document = {**together.document, "config": {**together.config, "model": "other"}}
        both = spec.frame([together, RunView("two", "other", document, lambda: together.records)])
        assert len(set(both["series"])) == 4


def test_a_line_over_delta_never_mixes_calibration_and_test(run) -> None:
    """As of a decoder without curves, whose test samples were run at one threshold alone."""
    (view,) = views(run)
    first = next(r["delta"] for r in view.records if r["kind"] == "sweep")
    records = [
        {
            k: v
            for k, v in r.items()
            if r["kind"] != "sweep" or r["delta"] == first or "test" not in k
        }
        for r in view.records
    ]
    partly = RunView(view.id, view.label, view.document, lambda: records)
    frame = FIGURES.load("calibration-risk").frame([partly])
    assert set(frame["measured"]) == {"Mean loss"}
    expected = {
        r["delta"]: r["mean_loss"]
        for r in records
        if r["kind"] == "sweep" and r["p_value"] == view.config["p_value"]
    }
    own = frame[frame["series"] == frame["series"].iloc[0]]
    assert dict(zip(own["x"], own["y"], strict=True)) == pytest.approx(
        {delta: loss for delta, loss in expected.items() if loss is not None}
    )


def test_splits_without_an_answer_leave_the_bands_and_stay_in_the_violations(run) -> None:
    """Figures of the splits that happened to certify something are those of the luckier ones."""
    (view,) = views(run)
    records = [dict(record) for record in view.records]
    splits = [record for record in records if record["kind"] == "split"]
    delta = splits[0]["delta"]
    for record in splits:
        if record["delta"] == delta:
            record["answered"] = record["repeats"] - 1
    partly = RunView(view.id, view.label, view.document, lambda: records)
    for name, column in (("calibration-samples", "y"), ("calibration-risk", "low")):
        before, after = (FIGURES.load(name).frame([one]) for one in (view, partly))
        assert delta in set(before.dropna(subset=[column])["x"])
        assert delta not in set(after.dropna(subset=[column])["x"])
    violations = FIGURES.load("calibration-violations").frame([partly])
    assert delta in set(violations["x"])
    for record in splits:
        record["answered"] = 0
    assert not FIGURES.load("calibration-samples").suits(partly)
