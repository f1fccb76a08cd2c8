"""What each figure draws, against numbers computed here from the same records."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from synthetic_runs import attack_run, evaluate_run

from eexit_cli.core.errors import UsageError
from eexit_cli.plots import FIGURES
from eexit_cli.plots.axis import layer_axis
from eexit_cli.plots.figure import PANEL, RunView, run_labels, with_setting
from eexit_cli.plots.rendering import STYLE, render
from eexit_cli.store.results import ResultStore, Run


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def views(*runs: Run) -> list[RunView]:
    documents = [run.document() for run in runs]
    assert all(documents)
    labels = run_labels(documents)  # type: ignore[arg-type]
    return [
        RunView(run.id, label, document, run.records)  # type: ignore[arg-type]
        for run, label, document in zip(runs, labels, documents, strict=True)
    ]


def drawn(name: str, *runs: Run, **options: Any) -> Figure:
    spec = FIGURES.load(name)
    return render(spec, spec.frame(views(*runs)), **options)


def heights(axes: Axes, number: int) -> list[float]:
    bars = axes.containers[number]
    assert isinstance(bars, BarContainer)
    return [bar.get_height() for bar in bars]


def line(axes: Axes, label: str) -> Any:
    (found,) = [item for item in axes.lines if item.get_label() == label]
    return found


def means(axes: Axes) -> list[float]:
    """x of the two lines that mark the means: those drawn from the bottom of the axes."""
    return [
        item.get_xdata()[0]
        for item in axes.lines
        if len(item.get_xdata()) == 2 and item.get_xdata()[0] == item.get_xdata()[1]
    ]


def shares(records: list[dict[str, Any]], name: str, layers: int) -> list[float]:
    counts = Counter(record[name] for record in records)
    return [100 * counts[layer] / len(records) for layer in range(1, layers + 1)]


def test_slowdown_draws_the_exits_before_and_after(store: ResultStore) -> None:
    run = attack_run(store)
    (axes,) = drawn("slowdown", run).axes
    records = run.records()
    for number, when in enumerate(("before", "after")):
        assert heights(axes, number) == pytest.approx(shares(records, f"exit_layer_{when}", 6))
        assert axes.containers[number].get_label() == f"{when} the attack"
        mean = np.mean([record[f"exit_layer_{when}"] for record in records])
        assert means(axes)[number] == pytest.approx(mean)
        assert f"{mean:.2f}" in axes.get_title()
    document = run.document()
    assert document is not None
    assert f"{100 * document['metrics']['gain_removed']:.0f} %" in axes.get_title().replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_slowdown_has_a_panel_per_run_on_one_scale(store: ResultStore) -> None:
    runs = [attack_run(store), attack_run(store, model="hub/pabee-base", seed=3, layers=12)]
    first, second = drawn("slowdown", *runs).axes
    assert first.get_title().startswith("deebert, same-token")
    assert second.get_title().startswith("pabee-base, same-token\n")
    assert first.get_ylim() == second.get_ylim()
    assert heights(second, 1) == pytest.approx(shares(runs[1].records(), "exit_layer_after", 12))
    assert (first.get_ylabel(), second.get_ylabel()) == ("Samples (%)", "")
    assert second.get_xlim()[1] > 12 > first.get_xlim()[1] > 6


def test_slowdown_has_a_panel_per_recipe_with_its_own_gain(store: ResultStore) -> None:
    recipes = ("same-token", "same-char", "random")
    run = attack_run(store, recipes=recipes)
    document = run.document()
    assert document is not None
    figure = drawn("slowdown", run)
    assert len(figure.axes) == 3
    for axes, recipe, row in zip(figure.axes, recipes, document["rows"], strict=True):
        own = [record for record in run.records() if record["recipe"] == recipe]
        assert recipe in axes.get_title()
        assert f"{100 * row['gain_removed']:.0f}" in axes.get_title()
        assert heights(axes, 1) == pytest.approx(shares(own, "exit_layer_after", 6))
    # The lowest panel of each column keeps its label.
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "Exit layer", "Exit layer"]


def test_slowdown_of_a_model_that_saved_nothing_says_so(store: ResultStore) -> None:
    record = {"id": "0", "exit_layer_before": 2, "exit_layer_after": 2}
    with store.create("attack", {"model": "deebert", "recipe": "same-token"}) as run:
        run.append(record)
        metrics = {"mean_exit_layer_after": 2, "gain_removed": None, "num_layers": 2}
        run.finish(metrics=metrics)
    (axes,) = drawn("slowdown", run).axes
    assert "no gain to remove" in axes.get_title().replace("\N{NO-BREAK SPACE}", " ")
    assert heights(axes, 0) == heights(axes, 1) == [0, 100]


def test_tradeoff_draws_every_setting_of_the_sweep(store: ResultStore) -> None:
    run = evaluate_run(store, sweep=True)
    document = run.document()
    assert document is not None
    (axes,) = drawn("tradeoff", run).axes
    curves = [item for item in axes.lines if len(item.get_xdata()) > 2]
    names = ["entropy", "margin", "patience", "static"]
    assert len(curves) == 4
    for name, curve in zip(names, curves, strict=True):
        rows = [row for row in document["rows"] if name in row.values()]
        expected = sorted((row["mean_exit_layer"], 100 * row["accuracy"]) for row in rows)
        assert sorted(map(tuple, curve.get_xydata())) == [pytest.approx(p) for p in expected]
        assert list(curve.get_xdata()) == sorted(curve.get_xdata())
        assert line(axes, name).get_color() == curve.get_color()
        assert line(axes, name).get_marker() == curve.get_marker()
    metrics = document["metrics"]
    star = line(axes, "default setting")
    assert list(star.get_xdata()) == [pytest.approx(metrics["mean_exit_layer"])]
    assert list(star.get_ydata()) == [pytest.approx(100 * metrics["accuracy"])]
    assert line(axes, "full model").get_ydata()[0] == pytest.approx(100 * metrics["accuracy_full"])
    assert axes.get_ylabel() == "Accuracy (%)"


def test_tradeoff_tells_a_chosen_setting_from_the_models_default(store: ResultStore) -> None:
    (axes,) = drawn("tradeoff", evaluate_run(store, sweep=True, threshold=0.3)).axes
    assert line(axes, "chosen setting") is not None


def test_tradeoff_of_several_models_keeps_colours_for_measures(store: ResultStore) -> None:
    runs = [
        evaluate_run(store, sweep=True),
        evaluate_run(store, sweep=True, model="pabee", seed=5, layers=12),
    ]
    (axes,) = drawn("tradeoff", *runs).axes
    curves = [item for item in axes.lines if len(item.get_xdata()) > 2]
    assert len(curves) == 8
    assert [c.get_color() for c in curves[:4]] == [c.get_color() for c in curves[4:]]
    assert {c.get_linestyle() for c in curves[:4]} == {line(axes, "deebert").get_linestyle()}
    assert {c.get_linestyle() for c in curves[4:]} == {line(axes, "pabee").get_linestyle()}
    assert line(axes, "deebert").get_linestyle() != line(axes, "pabee").get_linestyle()
    assert axes.get_xlim()[1] > 12


def test_tradeoff_leads_with_the_tasks_own_metric(store: ResultStore) -> None:
    run = evaluate_run(store, sweep=True, metric="matthews_correlation")
    document = run.document()
    assert document is not None
    (axes,) = drawn("tradeoff", run).axes
    assert axes.get_ylabel() == "Matthews correlation"
    curve = next(item for item in axes.lines if len(item.get_xdata()) > 2)
    largest = max(
        row["matthews_correlation"]
        for row in document["rows"]
        if row.get("confidence") == "entropy"
    )
    assert max(curve.get_ydata()) == pytest.approx(largest)  # a correlation is no percentage


def test_tradeoff_refuses_to_mix_metrics(store: ResultStore) -> None:
    runs = [
        evaluate_run(store, sweep=True),
        evaluate_run(store, sweep=True, model="m2", metric="pearson"),
    ]
    with pytest.raises(UsageError, match=r"accuracy \(deebert\), pearson \(m2\)"):
        drawn("tradeoff", *runs)


def test_tradeoff_leaves_out_what_was_not_measured(store: ResultStore) -> None:
    with store.create("evaluate", {"model": "deebert"}) as run:
        rows = [
            {"criterion": "patience", "patience": t, "accuracy": q, "mean_exit_layer": t + 1.0}
            for t, q in ((1, 0.5), (2, float("nan")), (3, 0.7))
        ]
        metrics = {"accuracy": 0.7, "accuracy_full": 0.8, "mean_exit_layer": 4, "num_layers": 6}
        run.finish(metrics=metrics, rows=rows)
    (axes,) = drawn("tradeoff", run).axes
    curve = axes.lines[1]
    assert list(curve.get_xdata()) == [2, 4]
    assert list(curve.get_ydata()) == [50, 70]


def test_exits_draws_shares_and_the_accuracy_of_each_exit(store: ResultStore) -> None:
    run = evaluate_run(store)
    records = run.records()
    (axes,) = drawn("exits", run).axes
    assert heights(axes, 0) == pytest.approx(shares(records, "exit_layer", 6))
    expected = [
        100 * np.mean([record["exit_predictions"][exit_] == record["label"] for record in records])
        for exit_ in range(6)
    ]
    quality = line(axes, "Accuracy of the exit, all samples")
    assert list(quality.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert list(quality.get_ydata()) == pytest.approx(expected)


def test_exits_of_an_attack_has_a_panel_before_and_one_after(store: ResultStore) -> None:
    run = attack_run(store)
    records = run.records()
    figure = drawn("exits", run)
    assert len(figure.axes) == 2
    for axes, when in zip(figure.axes, ("before", "after"), strict=True):
        assert when in axes.get_title()
        assert heights(axes, 0) == pytest.approx(shares(records, f"exit_layer_{when}", 6))
        (quality,) = [item for item in axes.lines if len(item.get_xdata())]
        for layer, value in zip(quality.get_xdata(), quality.get_ydata(), strict=True):
            left = [record for record in records if record[f"exit_layer_{when}"] == layer]
            right = [record[f"prediction_{when}"] == record["label"] for record in left]
            assert len(left) >= 5
            assert value == pytest.approx(100 * np.mean(right))


def test_exits_without_labels_draws_the_shares_alone(store: ResultStore) -> None:
    with store.create("attack", {"model": "deebert", "recipe": "same-token"}) as run:
        for layer in (1, 2, 2):
            run.append({"exit_layer_before": layer, "exit_layer_after": 2, "label": None})
        run.finish(metrics={"num_layers": 2, "mean_exit_layer_after": 2})
    first, second = drawn("exits", run).axes
    assert heights(first, 0) == pytest.approx([100 / 3, 200 / 3])
    assert heights(second, 0) == pytest.approx([0, 100])
    assert len(first.lines) == len(second.lines) == 0


def test_a_frame_keeps_whole_shares(store: ResultStore) -> None:
    runs = views(attack_run(store), attack_run(store, model="pabee", layers=12, seed=1))
    frame = FIGURES.load("slowdown").frame(runs)
    sums = frame.groupby([PANEL, "when"])["share"].sum()
    assert list(sums) == pytest.approx([1, 1, 1, 1])
    mean = (frame["share"] * frame["exit_layer"]).groupby([frame[PANEL], frame["when"]]).sum()
    stored = frame.groupby([PANEL, "when"])["mean_exit_layer"].first()
    assert list(mean) == pytest.approx(list(stored))


@pytest.mark.parametrize("layers", [2, 6, 12, 24, 48])
@pytest.mark.parametrize("width", [1.6, 3.3, 7.0])
def test_a_layer_axis_shows_the_last_layer_and_never_crowds(layers: int, width: float) -> None:
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(width, 2))
        axes = figure.subplots()
        layer_axis(axes, layers)
        figure.draw_without_rendering()
    ticks = axes.get_xticks()
    assert max(ticks) == layers
    assert min(ticks) >= 1
    boxes = sorted(
        (label.get_window_extent() for label in axes.get_xticklabels()), key=lambda box: box.x0
    )
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def document_of(run_id: str, **config: Any) -> dict[str, Any]:
    return {"run_id": run_id, "config": config}


def test_a_label_has_the_exit_behind_what_runs_it() -> None:
    exit = {"criterion": "threshold", "confidence": "entropy", "threshold": 0.2, "runtime": "onnx"}
    for label, expected in (
        ("a", "a onnx, entropy threshold 0.2"),
        ("a onnx", "a onnx, entropy threshold 0.2"),
    ):
        document = {"config": {"runtime": "onnx", "exit": exit}}
        assert with_setting(RunView("x", label, document, list)) == expected


def test_labels_say_what_differs_and_nothing_else() -> None:
    def labels(*configs: dict[str, Any]) -> list[str]:
        return run_labels([document_of(f"x-{i:04x}", **c) for i, c in enumerate(configs)])

    assert labels({"model": "hub/deebert-base", "task": "sst2", "seed": 1}) == ["deebert-base"]
    assert labels({"model": "a", "task": "x"}, {"model": "b", "task": "y"}) == ["a", "b"]
    assert labels({"model": "a", "threshold": 0.1}, {"model": "a", "threshold": 0.2}) == [
        "a threshold 0.1",
        "a threshold 0.2",
    ]
    assert labels({"model": "a", "task": "sst2"}, {"model": "a", "task": "cola"}) == [
        "a sst2",
        "a cola",
    ]
    assert labels({"model": "a", "threshold": [0.9, 0.5]}, {"model": "a", "split": "test"}) == [
        "a threshold 0.9, 0.5",
        "a test",
    ]
    assert labels({"model": "a"}, {"model": "a"}) == ["a (0000)", "a (0001)"]
    for ways, label in (
        ({"runtime": "onnx-int8"}, "a onnx-int8"),
        ({"weights": "int8"}, "a int8"),
        ({"runtime": "torch", "weights": "float"}, "a"),
        ({"runtime": ["torch", "onnx"]}, "a"),
    ):
        assert labels({"model": "a", **ways}) == [label]
    assert labels({"model": "a", "patience": None}, {"model": "a", "patience": 3}) == [
        "a",
        "a patience 3",
    ]
