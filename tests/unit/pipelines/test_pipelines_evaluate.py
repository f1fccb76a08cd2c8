"""Evaluation and prediction on the bundled model: reports derived again from the records."""

from collections import Counter

import numpy as np
import pytest
import torch

from eexit_cli.config import EvaluateConfig, PredictConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.families.encoder.model import load_model
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.predict import run_prediction
from eexit_cli.store.results import ResultStore

SAMPLES = 24


def evaluate(tmp_path, **options):
    settings = {
        "model": "deebert",
        "split": "validation",
        "limit": SAMPLES,
        "latency_samples": 0,
        "results_dir": tmp_path,
    }
    return run_evaluation(EvaluateConfig(**settings | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp("results"), sweep=True, latency_samples=2, batch_size=8)


def test_metrics_follow_from_the_records(finished):
    metrics = finished.document["metrics"]
    run = ResultStore(finished.path.parent).open(finished.path.name)
    records = run.records()
    assert len(records) == SAMPLES == metrics["samples"]
    layers = [record["exit_layer"] for record in records]
    assert metrics["mean_exit_layer"] == pytest.approx(np.mean(layers))
    right = [record["prediction"] == record["label"] for record in records]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    for layer in range(1, 7):
        right = [record["exit_predictions"][layer - 1] == record["label"] for record in records]
        assert metrics[f"accuracy_exit_{layer}"] == pytest.approx(np.mean(right))
        assert metrics[f"exited_at_{layer}"] == Counter(layers)[layer]
    assert metrics["accuracy_full"] == metrics["accuracy_exit_6"]


def test_each_record_left_at_its_first_sure_exit(finished):
    threshold = finished.document["config"]["exit"]["threshold"]
    for record in ResultStore(finished.path.parent).open(finished.path.name).records():
        sure = [value < threshold for value in record["exit_confidences"]] + [True]
        assert record["exit_layer"] == min(sure.index(True) + 1, 6)
        assert record["prediction"] == record["exit_predictions"][record["exit_layer"] - 1]


def test_the_sweep_holds_the_full_model_and_every_criterion(finished):
    rows = finished.document["rows"]
    metrics = finished.document["metrics"]
    criteria = {row["criterion"] for row in rows}
    assert criteria == {"threshold", "patience", "voting", "static"}
    for row in rows:
        if row["mean_exit_layer"] == 6 and row["criterion"] != "voting":
            assert row["accuracy"] == metrics["accuracy_full"]
    for layer in range(1, 7):
        (row,) = [row for row in rows if row.get("static_layer") == layer]
        assert row["mean_exit_layer"] == layer
        assert row["accuracy"] == metrics[f"accuracy_exit_{layer}"]


def test_no_row_of_a_sweep_is_timed_where_only_the_chosen_setting_is(tmp_path):
    chosen = {"confidence": "margin", "threshold": 0.5}
    swept = evaluate(tmp_path, sweep=True, latency_samples=2, **chosen).document
    assert any(row["threshold"] == 0.5 for row in swept["rows"])
    assert not any("throughput" in row for row in swept["rows"])
    assert "throughput" in swept["metrics"]


def test_measured_time_stands_beside_the_layers(finished):
    metrics = finished.document["metrics"]
    for name in ("latency_ms", "latency_full_ms", "throughput", "throughput_full"):
        assert metrics[name] > 0
    for name in ("speedup_seconds", "speedup_throughput"):
        assert 0 < metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert (metrics["timing_repeats"], metrics["throughput_samples"]) == (5, 24)
    assert metrics["flops_per_sample"] < metrics["flops_full"]
    assert (metrics["batch_size"], metrics["latency_samples"]) == (8, 2)


def test_the_live_path_leaves_where_the_evaluation_says(finished):
    loaded = load_model(EvaluateConfig(model="deebert"))
    from eexit_cli.data import load_examples
    from eexit_cli.families.encoder.exits import criterion_from

    settings = finished.document["config"]["exit"]
    criterion = criterion_from(settings, num_layers=6, num_classes=2)
    examples = load_examples(
        EvaluateConfig(task="movie-reviews", limit=SAMPLES), default_split="validation"
    )
    live = {}
    for sample in examples.dataset:
        batch = loaded.batcher()([sample["text"]])
        live[sample["id"]] = int(loaded.model.infer(**batch, criterion=criterion).exit_layers)
    run = ResultStore(finished.path.parent).open(finished.path.name)
    assert live == {record["id"]: record["exit_layer"] for record in run.records()}


def test_a_sweep_of_one_measure_needs_no_threshold(tmp_path):
    rows = evaluate(tmp_path, sweep=True, confidence="margin").document["rows"]
    assert {row["confidence"] for row in rows} == {"margin"}
    assert len(rows) == 41


def test_a_model_meets_a_task_of_other_classes(tmp_path):
    file = tmp_path / "three.csv"
    file.write_text("text,label\nfine,0\nbad,1\nwell,2\n")
    with pytest.raises(UsageError):
        evaluate(tmp_path / "results", data_file=file, split=None)
    assert not list((tmp_path / "results").glob("*/all_results.json"))


def test_prediction_shows_every_exit_and_agrees_with_the_live_path():
    text = "a gripping, beautifully shot film"
    answer = run_prediction(PredictConfig(model="deebert", texts=(text, "dull")))
    assert answer["num_layers"] == 6
    result = answer["results"][0]
    assert [entry["layer"] for entry in result["exits"]] == [1, 2, 3, 4, 5, 6]
    executed = [entry["executed"] for entry in result["exits"]]
    assert executed == [layer <= result["exit_layer"] for layer in range(1, 7)]
    assert result["label_name"] == "positive"
    loaded = load_model(PredictConfig(model="deebert"))
    with torch.inference_mode():
        logits = loaded.model(**loaded.batcher()([text])).logits[0]
    probabilities = torch.softmax(logits, dim=-1).amax(dim=-1).tolist()
    found = [entry["probability"] for entry in result["exits"]]
    assert found == pytest.approx(probabilities, abs=1e-5)


@pytest.mark.parametrize("texts", [(), ("  ",)])
def test_prediction_needs_a_text(texts):
    with pytest.raises(UsageError, match=r"text"):
        run_prediction(PredictConfig(model="deebert", texts=texts))
