"""The figures of attack tables, against numbers computed here from the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from synthetic_decodings import decoder_attack_run
from synthetic_runs import attack_run, transfer_run

from eexit_cli.plots import FIGURES
from eexit_cli.plots.figure import RunView
from eexit_cli.plots.rendering import render
from eexit_cli.store.results import ResultStore, Run

RECIPES = ("same-token", "waffle", "random")


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def view(run: Run, label: str = "deebert") -> RunView:
    return RunView(run.id, label, run.document() or {}, run.records)


def drawn(name: str, run: Run) -> Figure:
    spec = FIGURES.load(name)
    return render(spec, spec.frame([view(run)]))


def test_recipes_are_ranked_by_the_gain_that_they_remove(store: ResultStore) -> None:
    run = attack_run(store, recipes=RECIPES)
    spec = FIGURES.load("recipes")
    frame = spec.frame([view(run)])
    rows = sorted((run.document() or {})["rows"], key=lambda row: -row["gain_removed"])
    assert list(frame["recipe"]) == [row["recipe"] for row in rows]
    (axes,) = render(spec, frame).axes
    points = axes.lines[0]
    assert points.get_xdata() == pytest.approx([100 * row["gain_removed"] for row in rows])
    names = [item.get_text() for item in axes.get_yticklabels()]
    assert names == [f"{row['recipe']} ({row['mean_exit_layer_after']:.2f})" for row in rows]


def test_recipes_draw_the_interval_that_the_run_has(store: ResultStore) -> None:
    run = attack_run(store, recipes=("same-token", "random"))
    document = run.document() or {}
    document["rows"][0] |= {
        "gain_removed_low": 0.25,
        "gain_removed_high": 0.75,
        "interval_level": 0.95,
    }
    spec = FIGURES.load("recipes")
    figure = render(spec, spec.frame([RunView(run.id, "x", document, run.records)]))
    (axes,) = figure.axes
    first, _ = axes.collections[0].get_segments()
    assert first[:, 0] == pytest.approx([25, 75])
    assert "95 % interval" in str(axes.get_legend_handles_labels()[1])


def test_the_area_of_an_efficacy_curve_is_the_efficacy(store: ResultStore) -> None:
    from eexit_cli.metrics.depth import efficacy

    run = attack_run(store, recipes=RECIPES, layers=6)
    frame = FIGURES.load("efficacy").frame([view(run)])
    assert list(dict.fromkeys(frame["series"])) == ["no attack", *RECIPES]
    for series, rows in frame.groupby("series"):
        records = [r for r in run.records() if r["recipe"] == series] or [
            r for r in run.records() if r["recipe"] == RECIPES[0]
        ]
        when = "before" if series == "no attack" else "after"
        layers = [record[f"exit_layer_{when}"] for record in records]
        expected = efficacy(layers, 6)
        assert rows["efficacy"].iloc[0] == pytest.approx(expected)
        left, depth = rows["left"].to_numpy(), rows["depth"].to_numpy()
        area = ((left[1:] + left[:-1]) / 2 * np.diff(depth)).sum()
        assert area == pytest.approx(expected)
        assert rows["left"].is_monotonic_increasing
        assert rows["left"].iloc[-1] == 1
    (axes,) = drawn("efficacy", run).axes
    assert len(axes.lines) == 4


@pytest.mark.parametrize("budget", [1, 2, 30, 100, 421])
def test_the_budget_curve_is_what_the_best_texts_so_far_remove(
    store: ResultStore, budget: int
) -> None:
    run = attack_run(store, recipes=RECIPES, layers=6)
    frame = FIGURES.load("budget").frame([view(run)])
    for recipe in RECIPES:
        records = [record for record in run.records() if record["recipe"] == recipe]
        removed = 0
        for record in records:
            reached = [layer for spent, layer in record["progress"] if spent <= budget]
            removed += (reached[-1] if reached else record["exit_layer_before"]) - record[
                "exit_layer_before"
            ]
        saved = sum(6 - record["exit_layer_before"] for record in records)
        line = frame[(frame["series"] == recipe) & (frame["budget"] <= budget)]
        assert line["gain_removed"].iloc[-1] == pytest.approx(removed / saved)
    last = frame.groupby("series")["gain_removed"].last()
    rows = {row["recipe"]: row["gain_removed"] for row in (run.document() or {})["rows"]}
    assert last.to_dict() == pytest.approx(rows)


def test_what_was_learned_once_comes_before_the_curve_of_its_recipe(store: ResultStore) -> None:
    run = attack_run(store, recipes=RECIPES, layers=6)
    plain = FIGURES.load("budget").frame([view(run)])
    path = run.path / "all_results.json"
    document = json.loads(path.read_text())
    cost = {"search_queries": 100, "search_gradient_passes": 21}
    document["rows"][0] |= cost
    samples = document["rows"][0]["samples"]
    path.write_text(json.dumps(document))
    learned = FIGURES.load("budget").frame([view(run)])
    name, other = (document["rows"][place]["recipe"] for place in (0, 1))
    share = -(-121 // samples)

    def steps(frame: Any, series: str) -> list[tuple[int, float]]:
        rows = frame[frame["series"] == series]
        rows = rows[rows["gain_removed"].diff().abs() > 1e-12]
        return list(zip(rows["budget"], rows["gain_removed"], strict=True))

    assert steps(learned, name) == [(at + share, gain) for at, gain in steps(plain, name)]
    assert steps(learned, other) == steps(plain, other) != []


def test_a_decoders_budget_curve_ends_at_the_figure_of_its_table(store: ResultStore) -> None:
    run = decoder_attack_run(store, recipes=("same-token", "random"))
    frame = FIGURES.load("budget").frame([view(run)])
    last = frame.groupby("series")["gain_removed"].last()
    rows = {row["recipe"]: row["gain_removed"] for row in (run.document() or {})["rows"]}
    assert last.to_dict() == pytest.approx(rows)
    # Samples weigh alike nowhere: their outputs have different lengths.
    records = [record for record in run.records() if record["recipe"] == "same-token"]
    gained = sum(r["exit_layer_after"] - r["exit_layer_before"] for r in records)
    by_sample = gained / sum(6 - r["exit_layer_before"] for r in records)
    assert abs(rows["same-token"] - by_sample) > 0.01
    assert (frame.groupby("series")["gain_removed"].first() == 0).all()


@pytest.mark.parametrize(("budget", "ticks"), [(40, [1, 2, 5, 10, 20, 50]), (5000, None)])
def test_the_budget_axis_holds_the_runs_budget_and_no_step_lies_on_its_border(
    store: ResultStore, budget: int, ticks: list[int] | None
) -> None:
    run = attack_run(store, recipes=RECIPES, query_budget=budget, samples=5)
    (axes,) = drawn("budget", run).axes
    right = axes.get_xlim()[1]
    assert right > budget
    assert all(max(line.get_xdata()) < right for line in axes.lines[: len(RECIPES)])
    assert list(axes.get_xticks()) == (ticks or [1, 10, 100, 1000])[: len(axes.get_xticks())]
    assert len(axes.get_xticks()) >= 4


@pytest.mark.parametrize("name", ["efficacy", "budget"])
def test_every_recipe_of_the_catalog_has_a_look_of_its_own(store: ResultStore, name: str) -> None:
    from matplotlib.colors import to_hex

    from eexit_cli.attacks import ATTACKS

    recipes = tuple(ATTACKS)
    assert len(recipes) >= 12
    (axes,) = drawn(name, attack_run(store, recipes=recipes)).axes
    lines = {str(line.get_label()): line for line in axes.lines}
    looks = {
        (to_hex(lines[recipe].get_color()), str(lines[recipe]._dash_pattern)) for recipe in recipes
    }
    assert len(looks) == len(recipes)
    assert not {colour for colour, _ in looks} & {"#000000"}
    if name == "efficacy":
        assert len({lines[recipe].get_marker() for recipe in recipes}) == len(recipes)
        assert to_hex(lines["no attack"].get_color()) not in {colour for colour, _ in looks}
        assert not any(line.get_clip_on() for line in axes.lines)


@pytest.mark.parametrize(("name", "words"), [("slowdown", "{} (%)"), ("efficacy", "{} that have")])
def test_axes_say_whether_samples_or_tokens_are_counted(
    store: ResultStore, name: str, words: str
) -> None:
    runs = [view(attack_run(store)), view(decoder_attack_run(store), "calm")]
    spec = FIGURES.load(name)
    first, second = render(spec, spec.frame(runs)).axes
    assert first.get_ylabel().startswith(words.format("Samples"))
    assert second.get_ylabel().startswith(words.format("Tokens"))


def test_a_run_of_one_recipe_has_no_recipes_to_compare(store: ResultStore) -> None:
    assert not FIGURES.load("recipes").suits(view(attack_run(store)))


def test_a_heat_map_has_a_cell_per_maker_and_victim(store: ResultStore) -> None:
    run = transfer_run(store, defences=True)
    (axes,) = drawn("transfer", run).axes
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(cells) == len(axes.texts) == 4 * 8
    rows = (run.document() or {})["rows"]
    makers = [item.get_text() for item in axes.get_xticklabels()]
    victims = [item.get_text() for item in axes.get_yticklabels()]
    assert makers[0] == "deebert: same-token"
    assert victims[:4] == [
        "deebert",
        "deebert, patience 4",
        "deebert, voting",
        "deebert, recalibrated",
    ]
    first = rows[0]["gain_removed"]
    assert axes.texts[0].get_text() == f"{100 * first:.0f}"
    # The darker, the more is removed.
    gains = [row["gain_removed"] for row in rows]
    shades = {
        item.get_text(): sum(c.get_facecolor()[:3])
        for item, c in zip(axes.texts, cells, strict=True)
    }
    darkest = min(shades, key=shades.__getitem__)
    assert darkest == f"{100 * max(gains):.0f}"


def cells(*runs: Run) -> dict[tuple[str, str], float]:
    frame = FIGURES.load("transfer").frame([view(run) for run in runs])
    columns = zip(frame["made_on"], frame["victim"], frame["gain_removed"], strict=True)
    found = {(made_on, victim): gain for made_on, victim, gain in columns}
    assert len(found) == len(frame)
    return found


def gains(*runs: Run) -> list[float]:
    return [row["gain_removed"] for run in runs for row in (run.document() or {})["rows"]]


def test_two_runs_on_one_model_are_two_makers(store: ResultStore) -> None:
    run = transfer_run(
        store,
        recipes=("same-token",),
        victims={"deebert": {}},
        sources={
            "20260101-1-ab12": {"split": "test"},
            "20260101-2-cd34": {"split": "test", "compat": "upstream"},
            "20260101-3-ef56": {"split": "test", "compat": "upstream", "query_budget": 40},
            "20260101-4-0a0a": {"split": "test", "compat": "upstream", "query_budget": 40},
        },
    )
    found = cells(run)
    assert [made_on for made_on, _ in found] == [
        "deebert",
        "deebert upstream",
        "deebert upstream query budget 40 (ef56)",
        "deebert upstream query budget 40 (0a0a)",
    ]
    assert list(found.values()) == gains(run)


def test_recipes_of_two_replays_are_two_makers(store: ResultStore) -> None:
    runs = [
        transfer_run(
            store,
            recipes=(recipe,),
            victims={"deebert": {}},
            sources={f"run-{recipe}": {}},
            seed=seed,
        )
        for seed, recipe in enumerate(("same-token", "waffle"))
    ]
    found = cells(*runs)
    assert [made_on for made_on, _ in found] == ["deebert: same-token", "deebert: waffle"]
    assert list(found.values()) == gains(*runs)


def test_victims_of_one_name_are_told_apart(store: ResultStore) -> None:
    exits = [
        {"criterion": "threshold", "confidence": "softmax", "threshold": 0.9, "min_layer": 1},
        {"criterion": "threshold", "confidence": "softmax", "threshold": 0.5, "min_layer": 1},
        {"criterion": "threshold", "confidence": "linear", "threshold": 0.5, "min_layer": 1},
        {"criterion": "static", "static_layer": 2},
    ]
    runs = [
        transfer_run(
            store,
            recipes=("same-token",),
            makers=("calm",),
            victims={"calm": described, "runs/one/spell": {}, "runs/two/spell": {}},
            seed=seed,
        )
        for seed, described in enumerate(exits)
    ]
    victims = [victim for _, victim in cells(*runs)]
    # The folders are the same in each replay, and the last one's count.
    assert set(victims) == {
        "calm softmax threshold 0.9",
        "calm softmax threshold 0.5",
        "calm linear threshold 0.5",
        "calm static layer 2",
        "one/spell",
        "two/spell",
    }
    found = cells(*runs)
    assert found["calm", "calm softmax threshold 0.5"] == gains(runs[1])[0]
    assert found["calm", "two/spell"] == gains(runs[3])[2]


def test_classifiers_and_decoders_share_no_heat_map(store: ResultStore) -> None:
    encoder = transfer_run(store, makers=("deebert",), recipes=("same-token",))
    decoder = transfer_run(
        store, makers=("calm",), recipes=("same-token",), family="decoder", seed=4
    )
    spec = FIGURES.load("transfer")
    first, second = render(spec, spec.frame([view(encoder), view(decoder)])).axes
    for axes, run, name in ((first, encoder, "Classifiers"), (second, decoder, "Decoders")):
        assert axes.get_title() == f"{name}:\ngain removed (%)"
        assert [text.get_text() for text in axes.texts] == [f"{100 * g:.0f}" for g in gains(run)]
    (alone,) = drawn("transfer", decoder).axes
    assert alone.get_title() == "Gain removed (%)"


def test_a_pair_that_nobody_replayed_has_no_cell(store: ResultStore) -> None:
    runs = [transfer_run(store, makers=(name,), recipes=("same-token",)) for name in ("one", "two")]
    spec = FIGURES.load("transfer")
    (axes,) = render(spec, spec.frame([view(run) for run in runs])).axes
    assert len(axes.patches) == len(axes.texts) == 2


@pytest.mark.parametrize("name", ["slowdown", "recipes", "efficacy", "budget", "exits"])
def test_a_replay_is_no_attack_to_draw(store: ResultStore, name: str) -> None:
    assert not FIGURES.load(name).suits(view(transfer_run(store)))
    assert not FIGURES.load("transfer").suits(view(attack_run(store)))


@pytest.mark.parametrize("name", ["efficacy", "budget"])
def test_a_recipe_looks_alike_in_every_panel(store: ResultStore, name: str) -> None:
    runs = [
        view(attack_run(store, recipes=("same-token", "waffle", "random")), "deebert"),
        view(attack_run(store, recipes=("random", "same-token"), model="pabee"), "pabee"),
    ]
    spec = FIGURES.load(name)
    first, second = render(spec, spec.frame(runs)).axes
    colours = [
        {str(line.get_label()): line.get_color() for line in axes.lines} for axes in (first, second)
    ]
    for recipe in ("same-token", "random"):
        assert colours[0][recipe] == colours[1][recipe]
    assert colours[0]["same-token"] != colours[0]["random"]
