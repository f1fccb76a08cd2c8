"""One name is one measure: what classifiers and decoders both report, derived anew from records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eexit_cli.config import AttackConfig, EvaluateConfig
from eexit_cli.core.types import RunResult
from eexit_cli.data import task_info
from eexit_cli.families.decoders.training_report import DecodedSetting
from eexit_cli.pipelines.attack.report import attack_metrics
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.store.results import ResultStore
from eexit_cli.ui.measures import MEASURES

Records = list[dict[str, Any]]
MODELS = {"encoder": "deebert", "decoder": "calm"}
LAYERS = 6
TIMED = ("latency_", "speedup_seconds", "throughput", "speedup_throughput", "timing_", "seconds")


def exits(records: Records, when: str = "") -> np.ndarray:
    """Every exit that was taken: one per input of a classifier, one per token of a decoder."""
    tokens = "token_layers" if when else "exit_layers"
    return np.concatenate(
        [np.atleast_1d(r.get(f"{tokens}{when}", r.get(f"exit_layer{when}"))) for r in records]
    )


def area(layers: np.ndarray) -> float:
    """Trapezoids under the share of exits taken up to each layer."""
    left = [float((layers <= layer).mean()) for layer in range(LAYERS + 1)]
    return sum((a + b) / 2 for a, b in pairwise(left)) / LAYERS


DEPTH: Mapping[str, Callable[[np.ndarray], float]] = {
    "mean_exit_layer": lambda layers: float(layers.mean()),
    "speedup_layers": lambda layers: LAYERS / float(layers.mean()),
    "saved_layers": lambda layers: 1 - float(layers.mean()) / LAYERS,
    "cost_layers": lambda layers: float(layers.mean()) / LAYERS,
    "efficacy": area,
}


def attacked(records: Records) -> Records:
    return [record for record in records if record["status"] == "attacked"]


def gain(records: Records) -> float:
    before, after = exits(records, "_before").mean(), exits(records, "_after").mean()
    return float((after - before) / (LAYERS - before))


def mean(name: str) -> Callable[[Records], float]:
    return lambda records: float(np.mean([r[name] for r in attacked(records)]))


def share(test: Callable[[dict[str, Any]], bool]) -> Callable[[Records], float]:
    return lambda records: float(np.mean([test(r) for r in attacked(records)]))


def rates(records: Records) -> list[float]:
    return [len(r["changed_words"]) / r["num_words"] for r in attacked(records)]


OF_ATTACKS: Mapping[str, Callable[[Records], float]] = {
    "num_layers": lambda records: LAYERS,
    "samples": len,
    "attacked": lambda records: len(attacked(records)),
    "skipped": lambda records: len(records) - len(attacked(records)),
    "gain_removed": gain,
    "gain_removed_attacked": lambda records: gain(attacked(records)),
    "goal_success_rate": mean("goal_reached"),
    "last_layer_rate": share(lambda r: bool((exits([r], "_after") == LAYERS).all())),
    "queries_mean": mean("queries"),
    "gradient_passes_mean": mean("gradient_passes"),
    "seconds_mean": mean("seconds"),
    "changes_mean": lambda records: float(
        np.mean([len(r["changed_words"]) for r in attacked(records)])
    ),
    "change_rate_mean": lambda records: float(np.mean(rates(records))),
    "change_rate_max": lambda records: max(rates(records)),
    "similarity_characters_mean": mean("similarity_characters"),
    **{
        f"{name}_{when}": lambda records, of=of, when=when: of(exits(records, f"_{when}"))
        for name, of in DEPTH.items()
        for when in ("before", "after")
    },
}


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    # Recipes with other goals than the last layer: the two rates must not be one.
    options: dict[str, dict[str, Any]] = {
        "encoder": {"recipe": "deepwordbug,random", "limit": 12},
        "decoder": {"recipe": "random", "limit": 8, "score": "total-layers"},
    }
    results = tmp_path_factory.mktemp("results")
    return {
        family: run_attack(
            AttackConfig(
                model=model, query_budget=30, device="cpu", results_dir=results, **options[family]
            )
        )
        for family, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    results = tmp_path_factory.mktemp("results")
    return {
        family: run_evaluation(
            EvaluateConfig(
                model=model, limit=30, device="cpu", results_dir=results, latency_samples=4
            )
        )
        for family, model in MODELS.items()
    }


def shared(results: Mapping[str, RunResult]) -> set[str]:
    names = [
        {key for key in result.document["metrics"] if not key.startswith(TIMED) or "mean" in key}
        for result in results.values()
    ]
    return set.intersection(*names)


def test_every_figure_that_attacks_share_is_derived_here(attacks) -> None:
    bounds = {
        name for name in shared(attacks) if "_low" in name or "_high" in name or "level" in name
    }
    assert shared(attacks) - bounds == set(OF_ATTACKS)


@pytest.mark.parametrize("family", MODELS)
def test_figures_of_attacks_mean_what_their_names_say(family: str, attacks) -> None:
    result = attacks[family]
    assert len(result.document["rows"]) == (2 if family == "encoder" else 1)
    for row in result.document["rows"]:
        records = [record for record in result.records() if record["recipe"] == row["recipe"]]
        for name, of in OF_ATTACKS.items():
            assert row[name] == pytest.approx(of(records)), (row["recipe"], name)
        assert row["unit"] == ("words" if family == "encoder" else "letters")
        for name, when in (("gain_removed", ""), ("mean_exit_layer", "_after")):
            assert row[f"{name}_low{when}"] <= row[f"{name}{when}"] <= row[f"{name}_high{when}"]


def test_a_goal_is_the_recipes_own_and_the_last_layer_another_thing(attacks) -> None:
    fooled, slowed = attacks["encoder"].document["rows"]
    records = [r for r in attacks["encoder"].records() if r["status"] == "attacked"]
    own = [r for r in records if r["recipe"] == "deepwordbug"]
    wrong = np.mean([r["prediction_after"] != r["label"] for r in own])
    assert fooled["goal_success_rate"] == pytest.approx(wrong)
    assert fooled["goal_success_rate"] != fooled["last_layer_rate"]
    assert slowed["goal_success_rate"] == slowed["last_layer_rate"] > 0
    # With total-layers the goal is all layers in each of as many tokens as there may be.
    first, *others = (dict(record) for record in attacks["decoder"].records())
    first |= {"status": "attacked", "token_layers_after": [LAYERS] * 4, "tokens_after": 4}
    found = attack_metrics(task_info("pronunciation"), [first, *others], LAYERS, seed=0)
    count = len(attacked([first, *others]))
    for name in ("goal_success_rate", "last_layer_rate"):
        assert found[name] == pytest.approx(OF_ATTACKS[name]([first, *others]))
    assert found["goal_success_rate"] + 1 / count == pytest.approx(found["last_layer_rate"])


OF_EVALUATIONS = {
    "samples": len,
    "num_layers": lambda records: LAYERS,
    **{name: lambda records, of=of: of(exits(records)) for name, of in DEPTH.items()},
    **{
        f"exited_at_{layer}": lambda records, layer=layer: int((exits(records) == layer).sum())
        for layer in range(1, LAYERS + 1)
    },
}
WORK = {"flops_per_sample", "flops_full"}
"""By formula, derived in the tests of the formulas; of all inputs' mean for both."""


def test_every_figure_that_evaluations_share_is_derived_here(evaluations) -> None:
    assert shared(evaluations) - {"batch_size"} - WORK == set(OF_EVALUATIONS)


@pytest.mark.parametrize("family", MODELS)
def test_figures_of_evaluations_mean_what_their_names_say(family: str, evaluations) -> None:
    metrics, records = evaluations[family].document["metrics"], list(evaluations[family].records())
    for name, of in OF_EVALUATIONS.items():
        assert metrics[name] == pytest.approx(of(records)), name
    assert 0 < metrics["flops_per_sample"] < metrics["flops_full"]


def test_a_trainings_depth_is_over_the_same_exits() -> None:
    layers = [1, 1, 2, LAYERS]
    found = DecodedSetting({}, {}, layers, LAYERS).depth
    assert found == pytest.approx({name: of(np.array(layers)) for name, of in DEPTH.items()})
    assert DecodedSetting({}, {}, [], LAYERS).depth["mean_exit_layer"] == LAYERS


def test_every_shared_name_has_words(attacks, evaluations) -> None:
    for name in shared(attacks) | shared(evaluations):
        base = name.removesuffix("_before").removesuffix("_after")
        if base.startswith(("exited_at", "interval")) or "_low" in base or "_high" in base:
            continue
        assert base in MEASURES or base in {"batch_size"}, name


OLD = {
    "encoder": ({"success_rate": 0.5, "goal_success_rate": 0.2, "words_changed_mean": 1.5}, {}),
    "decoder": ({"success_rate": 0.2, "words_changed_mean": 1.5, "tokens_mean_before": 4.0}, {}),
}


@pytest.mark.parametrize("family", OLD)
def test_documents_with_the_old_names_are_read_under_the_new(family: str, tmp_path: Path) -> None:
    figures, _ = OLD[family]
    store = ResultStore(tmp_path)
    with store.create("attack", {"model": "m"}) as run:
        run.finish(metrics=figures, rows=[{"recipe": "r", **figures}])
    document = store.open(run.id).document() or {}
    for found in (document["metrics"], document["rows"][0], store.list()[0].metrics):
        assert "success_rate" not in found
        assert found["goal_success_rate"] == 0.2
        assert found.get("last_layer_rate") == (0.5 if family == "encoder" else None)
        assert found["changes_mean"] == 1.5
        assert "words_changed_mean" not in found
    # What is stored stays as it was written.
    stored = json.loads((run.path / "all_results.json").read_text(encoding="utf-8"))
    assert stored["metrics"] == figures


def test_an_old_decoders_throughput_counts_inputs_as_a_classifiers_does(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    # Twice as many tokens in as many seconds were "2x"; as many inputs are no speedup.
    row = {"seconds": 3.0, "tokens_per_second": 20.0, "speedup_throughput": 2.0}
    with store.create("evaluate", {"model": "m"}) as run:
        run.finish(metrics={**row, "seconds_full": 3.0}, rows=[row, {**row, "seconds": 1.5}])
    document = store.open(run.id).document() or {}
    found = [row["speedup_throughput"] for row in (document["metrics"], *document["rows"])]
    assert found == [1.0, 1.0, 2.0]
