"""``run_calibration`` end to end: losses from files, and tiny random encoders."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from calibration_tiny import THRESHOLDS, graded_losses, ids_and_texts, labels_of, tiny_model

from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.core.errors import RiskNotControlledError, UsageError
from eexit_cli.data import load_examples
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.families.encoder.model import load_model
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.store.calibrations import find, weights_digest
from eexit_cli.store.results import ResultStore


@pytest.fixture
def losses(tmp_path) -> Path:
    table = pd.DataFrame(graded_losses(400), columns=[str(value) for value in THRESHOLDS])
    layers = np.linspace(6, 1, 20) + np.zeros((400, 1))
    names = [f"exit_layer_{value}" for value in THRESHOLDS]
    path = tmp_path / "losses.parquet"
    table.join(pd.DataFrame(layers, columns=names)).to_parquet(path)
    return path


class TestExternalLosses:
    def test_the_answer_is_the_loop_over_its_own_calibration_part(self, calibrate, losses):
        result = calibrate(None, losses=losses, test_share=0.5)
        document = result.document
        samples, *columns = result.records()
        rows = np.array([int(name) - 1 for name in samples["calibration"]])
        table = graded_losses(400)
        assert set(samples["calibration"]).isdisjoint(samples["test"])
        assert len(samples["calibration"]) == len(samples["test"]) == 200
        accepted = None
        for index in range(20):
            p = P_VALUES.load("hoeffding-bentkus").p_value(table[rows, index], 0.1)
            if p > 0.05:
                break
            accepted = index
        metrics = document["metrics"]
        assert metrics["threshold_index"] == accepted
        assert metrics["threshold"] == THRESHOLDS[accepted]
        assert metrics["mean_loss"] == pytest.approx(table[rows, accepted].mean())
        rest = np.array([int(name) - 1 for name in samples["test"]])
        assert metrics["test_mean_loss"] == pytest.approx(table[rest, accepted].mean())
        assert metrics["mean_exit_layer"] == pytest.approx(np.linspace(6, 1, 20)[accepted])
        assert metrics["num_layers"] == 6
        first = next(record for record in columns if record["kind"] == "threshold")
        assert first["losses"] == pytest.approx(table[rows, 0].tolist())
        assert document["config"]["model"] is None

    def test_the_document_says_everything(self, calibrate, losses):
        document = calibrate(None, losses=losses).document
        assert document["command"] == "calibrate"
        report = document["report"]
        assert report["guarantee"].startswith("With probability at least 95 %")
        names = [row["p_value"] for row in report["alternatives"]]
        assert names == [name for name in P_VALUES if name != "binomial"]
        assert all(row["promise"] for row in report["alternatives"])
        (chosen,) = [row for row in document["rows"] if row["chosen"]]
        assert chosen["threshold"] == document["metrics"]["threshold"]
        assert len(document["rows"]) == 20

    def test_seed_alone_decides_the_split(self, calibrate, losses):
        first, again, other = (
            next(calibrate(None, losses=losses, seed=seed).records()) for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other

    def test_curves_bring_bands(self, calibrate, losses):
        result = calibrate(None, losses=losses, curves=True, repeats=5)
        kinds = {record["kind"] for record in result.records()}
        assert kinds == {"samples", "threshold", "p-value", "sweep", "split"}
        sweep = [
            record
            for record in result.records()
            if record["kind"] == "sweep" and record["p_value"] == "hoeffding-bentkus"
        ]
        assert [record["delta"] for record in sweep] == list(CalibrateConfig().deltas)
        indices = [-1 if record["index"] is None else record["index"] for record in sweep]
        assert indices == sorted(indices)

    def test_nothing_certified(self, calibrate, losses):
        document = calibrate(None, losses=losses, limit=20).document
        assert document["metrics"]["certified"] is False
        assert "threshold" not in document["metrics"]
        assert "at least 29 samples" in document["report"]["needs"][0]

    def test_strict_is_exit_code_4_and_keeps_the_run(self, calibrate, losses, tmp_path):
        with pytest.raises(RiskNotControlledError, match="Nothing certified") as caught:
            calibrate(None, losses=losses, limit=20, strict=True)
        assert caught.value.exit_code == 4
        assert "at least 29 samples" in caught.value.hint
        assert ResultStore(tmp_path / "results").latest("calibrate").finished
        calibrate(None, losses=losses, strict=True)

    @pytest.mark.parametrize(
        ("options", "calibration", "test", "said"),
        [
            ({}, 400, 0, "all 400 samples of 'losses.parquet'; none tests"),
            ({"limit": 0}, 400, 0, "all 400 samples of 'losses.parquet'; none tests"),
            ({"test_limit": 0}, 400, 0, "all 400 samples of 'losses.parquet'; none tests"),
            ({"limit": 100, "test_limit": 0}, 100, 0, "100 of 400 samples"),
            ({"limit": 100}, 100, 300, "100 of 400 samples of 'losses.parquet', testing on 300"),
            ({"test_limit": 30}, 370, 30, "370 of 400 samples of 'losses.parquet', testing on 30"),
            ({"test_share": 0.25}, 300, 100, "300 of 400"),
            ({"test_share": 0.25, "limit": 50}, 50, 100, "50 of 400"),
            (
                {"test_share": 0.5},
                200,
                200,
                "one half of 'losses.parquet', 200 samples, testing on",
            ),
        ],
    )
    def test_all_rows_calibrate_unless_some_are_set_aside(
        self, losses, tmp_path, told, options, calibration, test, said
    ):
        config = CalibrateConfig(losses=losses, results_dir=tmp_path / "results", **options)
        result = run_calibration(config, progress=told)
        samples = next(result.records())
        assert (len(samples["calibration"]), len(samples["test"])) == (calibration, test)
        assert len({*samples["calibration"], *samples["test"]}) == calibration + test
        assert any(said in line for line in told.lines)
        metrics = result.document["metrics"]
        assert metrics["samples"] == calibration
        assert ("test_mean_loss" in metrics) == (test > 0)
        untested = "No test samples: nothing was checked on samples kept aside."
        assert (untested in result.document["report"]["notes"]) == (test == 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"limit": 401}, "400 samples, fewer than asked: 401 calibration"),
            ({"limit": 300, "test_limit": 101}, "300 calibration and 101 test"),
            ({"test_limit": 400}, "fewer than asked"),
            ({"test_share": 0.75, "limit": 101}, "101 calibration and 300 test"),
            ({"test_share": 1.0}, "--test-share 1.0 is outside"),
            ({"test_share": 0.5, "test_limit": 9}, "--test-share and --test-limit exclude"),
            ({"delta": 1.2}, "delta 1.2 is outside"),
            ({"epsilon": 0.0}, "epsilon 0.0 is outside"),
            ({"deltas": (0.1, 2.0)}, "deltas 2.0 is outside"),
            ({"num_layers": 3}, "exit layers up to 6, above --num-layers 3"),
            ({"thresholds": (1.0, 0.5)}, "--thresholds needs a model"),
            ({"compare_naive": True}, "--compare-naive needs a model"),
            ({"verify_on": "x"}, "--verify-on needs a model"),
            ({"under_attack": "same-token"}, "--under-attack needs a model"),
            ({"p_value": "binomial"}, "exactly 0 or 1"),
        ],
    )
    def test_refusals(self, calibrate, losses, options, message):
        with pytest.raises(UsageError, match=message) as caught:
            calibrate(None, losses=losses, **options)
        assert caught.value.hint

    def test_the_full_model_is_the_answer_where_nothing_is_certified(self, calibrate, tmp_path):
        """As with CALM's public losses on CNN/DM: n = 100 is too few for Hoeffding at 0.1, 0.1."""
        names = ["full", "careful", "bold"]
        table = pd.DataFrame(np.zeros((100, 3)), columns=names)
        for name, depth in zip(names, (14.8757, 9.0, 4.5), strict=True):
            table[f"exit_layer_{name}"] = depth
        path = tmp_path / "calm.csv"
        table.to_csv(path, index=False)
        options = {"losses": path, "p_value": "hoeffding", "epsilon": 0.1, "test_limit": 0}
        document = calibrate(None, **options).document
        assert document["metrics"]["certified"] is False
        assert "mean_exit_layer" not in document["metrics"]
        document = calibrate(None, **options, full_model="full").document
        metrics = document["metrics"]
        assert metrics["certified"] is False
        assert (metrics["mean_loss"], metrics["mean_loss_bound"]) == (0, 0)
        assert metrics["mean_exit_layer"] == pytest.approx(14.8757)
        # The depth as it is, not the next whole number.
        assert metrics["num_layers"] == 14.8757
        assert metrics["speedup_layers"] == pytest.approx(1.0)
        assert "the answer is the full model (threshold full)" in document["report"]["guarantee"]
        assert "need at least 116 samples" in document["report"]["needs"][0]
        given = calibrate(None, **options, full_model="first", num_layers=24.0).document["metrics"]
        assert given["num_layers"] == 24
        with pytest.raises(UsageError, match=r"up to 14\.8757, above --num-layers 14\.5"):
            calibrate(None, **options, num_layers=14.5)

    def test_losses_that_fall_are_said_to(self, calibrate, tmp_path):
        path = tmp_path / "turned.csv"
        pd.DataFrame(graded_losses(60)[:, ::-1], columns=[f"c{i}" for i in range(20)]).to_csv(
            path, index=False
        )
        _, note = calibrate(None, losses=path).document["report"]["notes"]
        assert "seem to run from eager to cautious" in note
        assert "from column 'c0' to column 'c19'" in note

    def test_torch_is_not_needed(self, losses, tmp_path):
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from eexit_cli.config.calibrate import CalibrateConfig\n"
            "from eexit_cli.pipelines.calibrate.run import run_calibration\n"
            f"run_calibration(CalibrateConfig(losses=Path({str(losses)!r}), "
            f"results_dir=Path({str(tmp_path)!r})))\n"
            "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]"


class TestEncoders:
    @pytest.mark.parametrize("family", ["deebert", "pabee"])
    @pytest.mark.parametrize("consistency", ["textual", "risk"])
    def test_losses_are_those_of_running_the_model_live(
        self, calibrate, models, family, consistency
    ):
        result = calibrate(
            family, delta=0.3, consistency=consistency, dtype="float64", limit=40, test_limit=9
        )
        records = list(result.records())
        config = CalibrateConfig(model=str(models / family), dtype="float64")
        loaded = load_model(config)
        samples = records[0]
        ids, sentences = ids_and_texts(models / "data.csv")
        texts = dict(zip(ids, sentences, strict=True))
        labels = dict(zip(ids, labels_of(models / "data.csv"), strict=True))
        columns = [r for r in records if r["kind"] == "threshold" and r["part"] == "calibration"]
        assert len(columns) == len(result.document["rows"])
        for record, row in zip(columns[::4], result.document["rows"][::4], strict=True):
            settings = (
                {"criterion": "patience", "patience": int(row["threshold"])}
                if family == "pabee"
                else {
                    "criterion": "threshold",
                    "confidence": "entropy",
                    "threshold": row["threshold"],
                }
            )
            live = criterion_from(settings, num_layers=4, num_classes=2)
            losses, layers = [], []
            for name in samples["calibration"]:
                batch = loaded.batcher()([texts[name]])
                with torch.inference_mode():
                    early = loaded.model.infer(**batch, criterion=live)
                    full = loaded.model.infer(**batch, criterion=None)
                a, b = int(early.predictions[0]), int(full.predictions[0])
                label = labels[name]
                textual = float(a != b)
                risk = max(0.0, float(a != label) - float(b != label))
                losses.append(textual if consistency == "textual" else risk)
                layers.append(int(early.exit_layers[0]))
            assert record["losses"] == losses
            assert record["exit_layers"] == layers

    def test_the_full_model_comes_first_and_the_grid_is_the_default(self, calibrate):
        document = calibrate(confidence="margin").document
        grid = [1.0, 0.999, 0.99, 0.98, *(step / 20 for step in range(19, 0, -1))]
        assert [row["threshold"] for row in document["rows"]] == grid
        assert document["rows"][0]["mean_loss"] == 0
        assert document["rows"][0]["mean_exit_layer"] == 4
        assert document["config"]["confidence"] == "margin"

    def test_own_thresholds_in_order(self, calibrate):
        document = calibrate(thresholds=(0.0, 0.1, 0.5)).document
        assert [row["threshold"] for row in document["rows"]] == [0.0, 0.1, 0.5]
        with pytest.raises(UsageError, match="not in order"):
            calibrate(thresholds=(0.0, 0.5, 0.1))
        with pytest.raises(UsageError, match="lack the full model"):
            calibrate("pabee", thresholds=(3.0, 1.0))

    def test_the_threshold_is_stored_with_the_model(self, calibrate, models, tmp_path):
        folder = tiny_model(tmp_path / "own", seed=3)
        document = calibrate(
            None, model=str(folder), data_file=models / "data.csv", delta=0.3
        ).document
        config = CalibrateConfig(model=str(folder))
        loaded = load_model(config)
        stored = find(loaded.ref, loaded.folder, task="data")
        assert document["report"]["stored"] == str(folder / "calibration.json")
        assert stored.settings == document["report"]["exit"]
        assert stored.settings["threshold"] == document["metrics"]["threshold"]
        assert stored.run_id == document["run_id"]
        assert stored.weights == weights_digest(folder)
        assert (stored.delta, stored.epsilon, stored.samples) == (0.3, 0.05, 120)
        assert stored.guarantee == document["report"]["guarantee"]
        # The model still loads, and is still the same model.
        assert weights_digest(folder) == stored.weights

    @pytest.mark.parametrize("options", [{"store": False}, {"p_value": "naive"}])
    def test_what_has_no_guarantee_is_not_stored(self, calibrate, models, tmp_path, options):
        folder = tiny_model(tmp_path / "own", seed=3)
        document = calibrate(
            None, model=str(folder), data_file=models / "data.csv", **options
        ).document
        assert "stored" not in document["report"]
        assert not (folder / "calibration.json").exists()

    def test_the_full_model_is_stored_when_it_is_the_answer(self, calibrate, models, tmp_path):
        folder = tiny_model(tmp_path / "own", seed=3)
        document = calibrate(
            None, model=str(folder), data_file=models / "data.csv", delta=0.01
        ).document
        assert document["metrics"]["certified"] is False
        assert document["metrics"]["threshold"] == 0.0
        (stored,) = json.loads((folder / "calibration.json").read_text())["calibrations"]
        assert stored["certified"] is False
        assert stored["settings"]["threshold"] == 0.0
        assert "need at least 299 samples" in document["report"]["needs"][0]

    def test_two_splits_of_a_task_are_used_as_they_are(self, calibrate, monkeypatch):
        """No task of texts comes with a calibration split yet: validation stands in for it."""
        from eexit_cli.pipelines.calibrate import samples as calibrate_samples

        monkeypatch.setattr(calibrate_samples, "two_splits", lambda _: ("validation", "test"))
        result = calibrate(task="movie-reviews", limit=30, test_limit=40)
        samples = next(result.records())
        assert (len(samples["calibration"]), len(samples["test"])) == (30, 40)
        assert result.document["config"]["calibration_split"] == "validation"
        assert result.document["config"]["test_split"] == "test"
        for option in ("limit", "test_limit"):
            flag = f"--{option.replace('_', '-')}"
            with pytest.raises(UsageError, match=f"fewer than asked: {flag} 100000"):
                calibrate(task="movie-reviews", **{"limit": 20, option: 100_000})

    @pytest.mark.parametrize("task", ["movie-reviews", "tweets"])
    def test_the_test_split_is_divided_where_there_is_no_other(self, calibrate, task):
        result = calibrate(task=task, limit=30, test_limit=40)
        samples = next(result.records())
        assert set(samples["calibration"]).isdisjoint(samples["test"])
        assert (len(samples["calibration"]), len(samples["test"])) == (30, 40)
        assert result.document["config"]["calibration_split"] == "test"

    @pytest.mark.parametrize("limit", [None, 0])
    def test_halves_are_said_to_be_halves(self, models, tmp_path, told, limit):
        config = CalibrateConfig(
            model=str(models / "deebert"), data_file=models / "data.csv", limit=limit, store=False,
            latency_samples=0, results_dir=tmp_path / "results",
        )  # fmt: skip
        samples = next(run_calibration(config, progress=told).records())
        assert len(samples["calibration"]) == len(samples["test"]) == 120
        assert not {*samples["calibration"]} & {*samples["test"]}
        assert (
            "Calibrating on one half of 'data.csv', 120 samples, testing on the other, 120: no "
            "sample is in both"
        ) in told.lines

    def test_a_share_tests(self, calibrate):
        samples = next(calibrate(test_share=0.1).records())
        assert (len(samples["calibration"]), len(samples["test"])) == (216, 24)

    def test_the_first_samples_of_a_limit_are_test_samples(self, calibrate):
        """So that an attack or an evaluation of a few, with this seed, meets no other."""
        samples = next(calibrate(limit=100).records())
        few = load_examples(
            CalibrateConfig(data_file=calibrate.data, limit=50),
            default_split="test",
            label_names=("LABEL_0", "LABEL_1"),
        )
        assert set(few.dataset["id"]) <= set(samples["test"])

    def test_an_evaluation_leaves_the_calibration_samples_out(self, calibrate, models, tmp_path):
        folder = tiny_model(tmp_path / "own", seed=3)
        data = {"model": str(folder), "data_file": models / "data.csv"}
        result = calibrate(None, **data, delta=0.3, limit=100)
        samples = next(result.records())
        config = EvaluateConfig(
            **data, threshold="calibrated", latency_samples=0, results_dir=tmp_path / "results"
        )
        evaluated = run_evaluation(config)
        assert {record["id"] for record in evaluated.records()} == set(samples["test"])
        metrics, promised = evaluated.document["metrics"], result.document["metrics"]
        assert metrics["mean_exit_layer"] == pytest.approx(promised["test_mean_exit_layer"])
        assert metrics["accuracy"] == pytest.approx(promised["test_quality"])
        everything = calibrate(None, **data, delta=0.3, test_limit=0)
        assert everything.document["metrics"]["samples"] == 240
        with pytest.raises(UsageError, match="Every one of these samples was used to calibrate"):
            run_evaluation(config)
        with pytest.raises(UsageError, match="Threshold 'calibratd' is no number"):
            run_evaluation(dataclasses.replace(config, threshold="calibratd"))

    def test_fewer_samples_than_asked(self, calibrate):
        with pytest.raises(UsageError, match="1100 samples, fewer than asked: 100000"):
            calibrate(task="movie-reviews", limit=100_000)
        with pytest.raises(UsageError, match="240 samples, fewer than asked: 300"):
            calibrate(limit=300)

    def test_speed_is_measured_in_seconds_too(self, calibrate):
        document = calibrate(delta=0.3, limit=20, test_limit=20, latency_samples=3).document
        metrics = document["metrics"]
        ends = metrics["speedup_seconds_low"], metrics["speedup_seconds_high"]
        assert 0 < ends[0] <= metrics["speedup_seconds"] <= ends[1]
        assert (metrics["latency_samples"], metrics["timing_repeats"]) == (3, 5)
        assert document["metrics"]["latency_ms"] > 0
        assert document["timings"]["latency_seconds"] > 0

    def test_the_naive_search_beside_it(self, calibrate):
        document = calibrate(delta=0.3, consistency="risk", compare_naive=True).document
        rows = {row["choice"]: row for row in document["report"]["comparison"]}
        assert list(rows) == [
            "full model", "calibrated", "keeps 90 % of the quality", "keeps 95 % of the quality",
        ]  # fmt: skip
        assert rows["calibrated"]["threshold"] == document["metrics"]["threshold"]
        full = rows["full model"]["quality"]
        for share in (0.9, 0.95):
            row = rows[f"keeps {100 * share:g} % of the quality"]
            assert row["quality"] >= share * full
            assert row["guarantee"] is False
            # No more eager threshold would have kept it.
            records = document["rows"]
            assert row["threshold"] <= records[-1]["threshold"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": "regression"}, "regression model"),
            ({"criterion": "patience", "confidence": "margin"}, "--confidence says nothing"),
            ({"criterion": "voting"}, "Unknown criterion to calibrate 'voting'"),
            ({"confidence": "entropie"}, "Unknown confidence measure 'entropie'"),
            ({"consistency": "semantic"}, "Unknown consistency 'semantic'"),
            ({"num_layers": 6}, "go with --losses"),
            ({"clean_share": 1.5}, "clean-share 1.5 is outside"),
            ({"verify_on": "a", "under_attack": "b"}, "exclude each other"),
        ],
    )
    def test_refusals(self, calibrate, options, message):
        with pytest.raises(UsageError, match=message) as caught:
            calibrate(options.pop("model", "deebert"), **options)
        assert caught.value.hint

    def test_risk_consistency_needs_labels(self, calibrate, monkeypatch):
        """As on a split whose labels are not public."""
        from eexit_cli.families.encoder import model as encoder

        def unlabelled(*args, **options):
            examples = load_examples(*args, **options)
            return dataclasses.replace(examples, dataset=examples.dataset.remove_columns("label"))

        monkeypatch.setattr(encoder, "load_examples", unlabelled)
        assert calibrate(consistency="textual").document["metrics"]["samples"] == 120
        with pytest.raises(UsageError, match="needs labels"):
            calibrate(consistency="risk")


def test_a_configuration_can_be_repeated_from_its_own_run(calibrate, models):
    """What a run notes beside its options does not change what the options mean."""
    document = calibrate(delta=0.3).document
    names = {field.name for field in dataclasses.fields(CalibrateConfig)}
    asked = {k: v for k, v in document["config"].items() if k in names and v is not None}
    paths = ("data_file", "results_dir")
    asked = {
        k: Path(v) if k in paths else tuple(v) if isinstance(v, list) else v
        for k, v in asked.items()
    }
    again = run_calibration(CalibrateConfig(**asked)).document
    assert again["metrics"] == document["metrics"]
    assert again["rows"] == document["rows"]
