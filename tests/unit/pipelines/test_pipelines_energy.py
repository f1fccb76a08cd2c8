"""``--energy`` from a command to its document, on a machine whose counter counts executed layers.

A layer is a joule there, and idling costs nothing: what a sample takes is known from its record.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_decoders import save_decoder, write_pairs

from eexit_cli.config import AttackConfig, EvaluateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.families import stopwatch
from eexit_cli.metrics.counters import PROCESSOR, Counter, Meter
from eexit_cli.models.decoding.decoder import ExitDecoder
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.evaluate import run_evaluation

TIMED = 3


class Listens(SilentProgress):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


class Layers:
    """Counts what models run; its clock moves whenever it is read."""

    def __init__(self) -> None:
        self.run = 0
        self.now = itertools.count()

    def meter(self, device: Any = None) -> Meter:
        counter = Counter("layers", PROCESSOR, lambda: self.run, 1.0, None, 5.0)
        return Meter([counter], clock=lambda: float(next(self.now)), sleep=lambda seconds: None)


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Layers:
    counts = Layers()
    infer, decode = MultiExitClassifier.infer, ExitDecoder.decode

    def counted_infer(self: Any, *args: Any, **given: Any) -> Any:
        decision = infer(self, *args, **given)
        counts.run += int(decision.exit_layers.sum())
        return decision

    def counted_decode(self: Any, *args: Any, **given: Any) -> Any:
        decoded = decode(self, *args, **given)
        counts.run += decoded.counts.layer_tokens
        return decoded

    monkeypatch.setattr(MultiExitClassifier, "infer", counted_infer)
    monkeypatch.setattr(ExitDecoder, "decode", counted_decode)
    monkeypatch.setattr(stopwatch, "meter_of", counts.meter)
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("energy")
    save_decoder(root / "spell", seed=2)
    write_pairs(root / "pairs.csv")
    return root


def evaluated(folder: Path, model: str, **options: Any) -> Any:
    common = {"latency_samples": TIMED, "device": "cpu", "results_dir": folder / "results"}
    return run_evaluation(EvaluateConfig(**{"model": model, "energy": True, **common, **options}))


def test_a_classifiers_exits_and_all_its_layers(layers: Layers, folder: Path) -> None:
    result = evaluated(folder, "deebert", limit=8, split="validation", threshold=(0.2, 0.6))
    assert len(result.document["rows"]) == 2
    for row in result.document["rows"]:
        assert row["joules_per_sample_full"] == 6
        assert row["joules_share"] == pytest.approx(row["joules_per_sample"] / 6)
    first, second = result.document["rows"]
    assert second["joules_per_sample"] < first["joules_per_sample"]
    metrics = result.document["metrics"]
    own = np.mean([record["exit_layer"] for record in list(result.records())[:TIMED]])
    for end in ("", "_low", "_high"):
        assert metrics[f"joules_per_sample{end}"] == pytest.approx(own)
    assert metrics["joules_per_sample"] == first["joules_per_sample"]
    assert metrics["idle_watts"] == 0
    assert result.document["report"]["energy"]["counters"] == ["layers"]


def test_a_decoders_tokens(layers: Layers, folder: Path) -> None:
    model, data = str(folder / "spell"), folder / "pairs.csv"
    # The counter counts a token's layers, the first token's too.
    result = evaluated(folder, model, data_file=data, static_layer=(1, 2))
    for layer, row in zip((1, 2), result.document["rows"], strict=True):
        assert row["joules_per_token"] == pytest.approx(layer)
        assert row["joules_per_token_full"] == pytest.approx(
            result.document["metrics"]["num_layers"]
        )
        tokens = [len(record["tokens"]) for record in list(result.records())[:TIMED]]
        if layer == 1:  # the records are the first setting's
            assert row["joules_per_sample"] == pytest.approx(np.mean(tokens))


@pytest.mark.parametrize("recipe", ["same-token", "same-token,random"])
def test_an_attack_before_and_after(layers: Layers, folder: Path, recipe: str) -> None:
    listens = Listens()
    config = AttackConfig(
        model="deebert",
        recipe=recipe,
        query_budget=30,
        limit=4,
        latency_samples=TIMED,
        energy=True,
        results_dir=folder / "results",
        device="cpu",
    )
    result = run_attack(config, progress=listens)
    records = list(result.records())
    assert len(result.document["rows"]) == len(recipe.split(","))
    for row in result.document["rows"]:
        own = [record for record in records if record["recipe"] == row["recipe"]][:TIMED]
        expected = {w: np.mean([r[f"exit_layer_{w}"] for r in own]) for w in ("before", "after")}
        for when, value in expected.items():
            assert row[f"joules_per_sample_{when}"] == pytest.approx(value)
            assert row[f"joules_per_sample_full_{when}"] == pytest.approx(6)
            assert row[f"joules_share_{when}"] == pytest.approx(value / 6)
        assert row["joules_growth"] == pytest.approx(expected["after"] / expected["before"])
        assert row["joules_growth"] > 1
    assert not [line for line in listens.heard if "nergy" in line]


def test_a_replay_and_its_tokens(layers: Layers, folder: Path) -> None:
    common: dict[str, Any] = {
        "model": str(folder / "spell"),
        "results_dir": folder / "results",
        "device": "cpu",
    }
    done = run_attack(
        AttackConfig(
            **common,
            data_file=folder / "pairs.csv",
            recipe="random",
            query_budget=10,
            latency_samples=0,
        )
    )
    replay = AttackConfig(
        **common,
        transfer=(done.path.name,),
        static_layer=2,
        latency_samples=TIMED,
        energy=True,
    )
    result = run_attack(replay)
    (row,) = result.document["rows"]
    for when in ("before", "after"):
        assert row[f"joules_per_token_{when}"] == pytest.approx(2)
        tokens = [record[f"tokens_{when}"] for record in list(result.records())[:TIMED]]
        assert row[f"joules_per_sample_{when}"] == pytest.approx(2 * np.mean(tokens))
    assert result.document["report"]["energy"]["counters"] == ["layers"]


def test_what_cannot_be_measured_is_said_and_the_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stopwatch, "meter_of", lambda device: Meter([], {"processor": "no counter"})
    )
    listens = Listens()
    config = EvaluateConfig(
        model="deebert",
        limit=4,
        latency_samples=2,
        energy=True,
        results_dir=folder / "results",
        device="cpu",
    )
    document = run_evaluation(config, progress=listens).document
    assert "Energy of the processor is not measured: no counter" in listens.heard
    joules = {name: value for name, value in document["metrics"].items() if "joules" in name}
    assert "joules_per_sample" in joules
    assert set(joules.values()) == {None}
    assert document["metrics"]["idle_watts"] is None
    assert document["metrics"]["latency_ms"] > 0
    assert document["report"]["energy"]["lacking"] == {"processor": "no counter"}


def test_nothing_is_said_of_energy_unless_it_is_asked_for(layers: Layers, folder: Path) -> None:
    document = evaluated(folder, "deebert", limit=4, energy=False).document
    assert not [name for name in document["metrics"] if "joules" in name or "watts" in name]
    assert "energy" not in (document["report"] or {})


@pytest.mark.parametrize(
    ("run", "config"), [(run_evaluation, EvaluateConfig), (run_attack, AttackConfig)]
)
def test_joules_of_no_sample_are_refused(run: Any, config: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--latency-samples 0 times none"):
        run(config(model="deebert", energy=True, latency_samples=0, results_dir=tmp_path))
    assert not list(tmp_path.iterdir())
