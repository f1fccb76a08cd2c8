"""Evaluation and prediction of a decoder: reports again from records, rows from runs of one."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_decoders import WORDS, save_decoder, save_plain_t5, write_pairs

from eexit_cli.config import EvaluateConfig, PredictConfig
from eexit_cli.core.edits import edit_distance
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.families import stopwatch
from eexit_cli.families.decoders.costs import token_flops
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import SWEEP, decoder_settings, full_model
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.pipelines.evaluate import choices, run_evaluation
from eexit_cli.pipelines.predict import run_prediction
from eexit_cli.store.calibrations import StoredCalibration, keep, text_digest, weights_digest
from eexit_cli.store.models import resolve

SAMPLES = 40
SAME = ("phoneme_error_rate", "exact_match", "mean_exit_layer", "agreement", "flops_per_token")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def evaluate(folder, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")

    def run(**options):
        settings = {
            "model": str(folder),
            "device": "cpu",
            "limit": SAMPLES,
            "latency_samples": 0,
            "results_dir": results,
        }
        return run_evaluation(EvaluateConfig(**settings | options))

    return run


@pytest.fixture(scope="module")
def finished(evaluate):
    return evaluate(latency_samples=3)


@pytest.fixture(scope="module")
def records(finished):
    return list(finished.records())


def test_the_models_task_and_exit_are_the_defaults(finished) -> None:
    config = finished.document["config"]
    assert (config["task"], config["split"]) == ("pronunciation", "test")
    assert config["exit"] == {
        "criterion": "threshold",
        "confidence": "softmax",
        "threshold": 0.5,
        "min_layer": 1,
    }
    assert finished.document["rows"] == []


def test_quality_follows_from_the_records(finished, records) -> None:
    metrics = finished.document["metrics"]
    assert len(records) == SAMPLES == metrics["samples"]
    for output, suffix in (("output", ""), ("output_full", "_full")):
        edits = sum(edit_distance(r[output].split(), r["target"].split()) for r in records)
        phonemes = sum(len(r["target"].split()) for r in records)
        assert metrics[f"phoneme_error_rate{suffix}"] == pytest.approx(edits / phonemes)
        right = [r[output] == r["target"] for r in records]
        assert metrics[f"exact_match{suffix}"] == np.mean(right)
    same = [r["output"] == r["output_full"] for r in records]
    assert metrics["agreement"] == np.mean(same)
    assert 0 < metrics["agreement"] < 1


def test_depth_follows_from_the_records(finished, records) -> None:
    metrics = finished.document["metrics"]
    layers = [layer for record in records for layer in record["exit_layers"]]
    assert metrics["tokens"] == len(layers)
    assert metrics["mean_exit_layer"] == pytest.approx(np.mean(layers))
    assert metrics["speedup_layers"] == pytest.approx(3 / np.mean(layers))
    assert metrics["saved_layers"] == pytest.approx(1 - np.mean(layers) / 3)
    assert metrics["cost_layers"] == pytest.approx(np.mean(layers) / 3)
    assert metrics["layers_run_per_token"] == pytest.approx(np.mean(layers))
    for layer, count in Counter(layers).items():
        assert metrics[f"exited_at_{layer}"] == count > 0
    for record in records:
        assert len(record["tokens"]) == len(record["exit_layers"])
        assert record["mean_exit_layer"] == pytest.approx(np.mean(record["exit_layers"]))


def test_the_times_of_a_pass_fit_together(evaluate) -> None:
    metrics = evaluate().document["metrics"]
    names = ("encoder", "decoder", "filling", "confidence", "head", "other")
    for suffix in ("", "_full"):
        parts = sum(metrics[f"{name}_seconds{suffix}"] for name in names)
        assert 0 < parts <= metrics[f"seconds{suffix}"]
        tokens = metrics[f"tokens{suffix}"]
        rate = metrics[f"tokens_per_second{suffix}"]
        assert rate == pytest.approx(tokens / metrics[f"seconds{suffix}"])
    assert metrics["confidence_seconds_full"] == metrics["filling_seconds_full"] == 0
    assert metrics["filling_seconds"] > 0
    by_layer = sum(
        metrics[f"confidence_ms_layer_{layer}"]
        * sum(metrics[f"exited_at_{deeper}"] for deeper in range(layer, 4))
        for layer in (1, 2)
    )
    assert by_layer / 1000 == pytest.approx(metrics["confidence_seconds"])
    assert "confidence_ms_layer_3" not in metrics
    # Two passes do not compare.
    assert not [name for name in metrics if name.startswith("speedup_") and "layers" not in name]


def test_latency_compares_with_the_full_model_one_by_one(finished, evaluate) -> None:
    metrics = finished.document["metrics"]
    assert metrics["latency_samples"] == 3
    assert metrics["timing_repeats"] == 5
    assert metrics["throughput_samples"] == SAMPLES
    for name in ("speedup_seconds", "speedup_throughput", "tokens_per_second"):
        assert 0 < metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert metrics["tokens_per_second_single"] > 0
    assert "latency_ms" not in evaluate().document["metrics"]


def test_the_full_models_outputs_are_transformers_generate(folder, records) -> None:
    loaded = load_decoder(PredictConfig(model=str(folder), device="cpu"))
    batch = loaded.batcher()([record["source"] for record in records])
    expected = loaded.model.generate(
        **batch, max_new_tokens=loaded.max_new_tokens, do_sample=False, num_beams=1
    )
    texts = loaded.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert [record["output_full"] for record in records] == texts


def test_the_batch_size_changes_no_output(evaluate) -> None:
    runs = [evaluate(batch_size=size, dtype="float64", limit=20) for size in (1, 7)]
    one, other = (
        [(r["output"], r["exit_layers"], r["output_full"]) for r in run.records()] for run in runs
    )
    assert one == other
    for name in SAME:
        assert runs[0].document["metrics"][name] == runs[1].document["metrics"][name]


# --- several settings ----------------------------------------------------------------------------


def test_static_layers_make_a_row_each(evaluate) -> None:
    several = evaluate(static_layer=(1, 2, 3))
    rows = several.document["rows"]
    assert [(row["criterion"], row["static_layer"]) for row in rows] == [
        ("static", layer) for layer in (1, 2, 3)
    ]
    assert [row["mean_exit_layer"] for row in rows] == [1, 2, 3]
    assert rows[2]["agreement"] == 1
    metrics = several.document["metrics"]
    assert rows[2]["phoneme_error_rate"] == metrics["phoneme_error_rate_full"]
    for row in rows:
        alone = evaluate(static_layer=row["static_layer"]).document
        assert alone["rows"] == []
        assert {name: alone["metrics"][name] for name in SAME} == {name: row[name] for name in SAME}


def test_a_grid_is_every_combination_and_each_row_a_run_of_its_own(evaluate) -> None:
    several = evaluate(threshold=(0.9, 0.3), top_k_propagation=(0, 5, 20), dtype="float64")
    rows = several.document["rows"]
    assert [(row.get("top_k_propagation"), row["threshold"]) for row in rows] == [
        (k, threshold) for k in (None, 5, 20) for threshold in (0.9, 0.3)
    ]
    chosen = {name: several.document["metrics"][name] for name in SAME}
    assert chosen == {name: rows[0][name] for name in SAME}
    for row in rows:
        alone = evaluate(
            threshold=row["threshold"],
            top_k_propagation=row.get("top_k_propagation") or 0,
            dtype="float64",
        ).document["metrics"]
        assert {name: alone[name] for name in SAME} == {name: row[name] for name in SAME}
    # Figures read time per layer from the rows.
    assert all(
        {"confidence_ms_layer_1", "seconds", "tokens_per_second"} <= set(row) for row in rows
    )


def test_every_row_is_timed_in_turn_with_the_full_model(evaluate, monkeypatch) -> None:
    timed = []
    in_turn = stopwatch.time_in_turn

    def recorded(ways, items, **options):
        timed.append((list(ways), items, in_turn(ways, items, **options)))
        return timed[-1][2]

    monkeypatch.setattr(stopwatch, "time_in_turn", recorded)
    rows = evaluate(static_layer=(1, 3), latency_samples=4, timing_repeats=6).document["rows"]
    (names, singles, one), (others, _, many) = timed
    assert len(singles) == 4
    assert names == others
    assert [len(each) for each in one.values()] == [6] * 3
    full, _, _ = names
    for row, name in zip(rows, names[1:], strict=True):
        for figure, seconds in (("speedup_seconds", one), ("speedup_throughput", many)):
            ratios = sorted(seconds[full].sum(1) / seconds[name].sum(1))
            expected = [np.median(ratios), ratios[0], ratios[-1]]
            ends = [row[f"{figure}{end}"] for end in ("", "_low", "_high")]
            assert ends == pytest.approx(expected)
        rate = np.median(SAMPLES / many[name].sum(1))
        assert row["throughput"] == pytest.approx(rate)
        assert row["latency_ms"] == pytest.approx(1000 * np.median(one[name].mean(1)))
        for layer in range(1, row["static_layer"] + 1):
            ms = f"decoder_ms_layer_{layer}"
            assert row[f"{ms}_low"] <= row[ms] <= row[f"{ms}_high"]
    # One by one a sweep times its chosen setting alone, which is one of its thresholds here.
    timed.clear()
    swept = evaluate(sweep=True, confidence="softmax", limit=5, latency_samples=1).document
    assert [len(ways) for ways, _, _ in timed] == [2, 20]
    # In batches all take turns, so that no row's time is of another kind than its neighbours'.
    _, *rows = swept["rows"]
    assert all("tokens_per_second_low" in row for row in rows)
    (own,) = [r for r in rows if r["threshold"] == swept["config"]["exit"]["threshold"]]
    assert own["tokens_per_second"] == swept["metrics"]["tokens_per_second"]


def test_measures_form_rows_too(evaluate) -> None:
    rows = evaluate(confidence=("linear", "transformer_MLP_64"), threshold=0.5).document["rows"]
    assert [row["confidence"] for row in rows] == ["linear", "transformer_mlp_64"]
    assert len({row["mean_exit_layer"] for row in rows}) == 2


def test_the_sweep_starts_at_the_full_model(evaluate) -> None:
    swept = evaluate(sweep=True, confidence=("softmax", "saturation"), limit=10)
    rows = swept.document["rows"]
    assert rows[0]["criterion"] == "full"
    assert (rows[0]["mean_exit_layer"], rows[0]["agreement"]) == (3, 1)
    assert [(row["confidence"], row["threshold"]) for row in rows[1:]] == [
        (name, threshold) for name in ("softmax", "saturation") for threshold in SWEEP
    ]
    assert (SWEEP[0], SWEEP[-1], len(SWEEP)) == (0.95, 0.05, 19)
    # The chosen setting is the model's own: --confidence said what to sweep.
    assert swept.document["config"]["exit"]["threshold"] == 0.5


def test_the_sweep_of_everything_takes_what_the_model_has(tmp_path, evaluate) -> None:
    some = save_decoder(tmp_path / "some", classifiers=("mlp",))
    rows = evaluate(model=str(some), sweep=True, limit=3).document["rows"]
    named = Counter(row.get("confidence", row["criterion"]) for row in rows)
    assert named == {"full": 1, "softmax": 19, "saturation": 19, "mlp": 19, "static": 2}
    with_k = evaluate(model=str(some), sweep=True, limit=3, top_k_propagation=4).document["rows"]
    assert {row["confidence"] for row in with_k if row.get("top_k_propagation")} == {"softmax"}
    assert len(with_k) == len(rows)


def test_lists_on_a_classifier_make_rows_as_well(tmp_path) -> None:
    config = EvaluateConfig(
        model="deebert", limit=8, latency_samples=0, threshold=(0.1, 0.4), results_dir=tmp_path
    )
    rows = run_evaluation(config).document["rows"]
    assert [row["threshold"] for row in rows] == [0.1, 0.4]
    for row in rows:
        single = run_evaluation(dataclasses.replace(config, threshold=row["threshold"]))
        assert single.document["rows"] == []
        assert single.document["metrics"]["mean_exit_layer"] == row["mean_exit_layer"]
        assert single.document["metrics"]["accuracy"] == row["accuracy"]


def test_choices_are_the_product_of_the_lists() -> None:
    config = EvaluateConfig(confidence=("a", "b"), threshold=(0.1, 0.2, 0.1))
    assert [(one.confidence, one.threshold) for one in choices(config)] == [
        ("a", 0.1),
        ("a", 0.2),
        ("b", 0.1),
        ("b", 0.2),
    ]
    assert choices(EvaluateConfig()) == [EvaluateConfig()]


# --- FREE, decay, lengths ------------------------------------------------------------------------


def test_free_counts_the_stacked_tokens_as_run(evaluate) -> None:
    run = evaluate(shallow_layer=1, threshold=0.5)
    metrics = run.document["metrics"]
    ran = tokens = 0
    for record in run.records():
        layers = record["exit_layers"]
        deepest = max((at for at, layer in enumerate(layers) if layer == 3), default=-1)
        ran += 3 * (deepest + 1) + (len(layers) - deepest - 1)
        tokens += len(layers)
        assert set(layers) <= {1, 3}
    assert metrics["layers_run_per_token"] == pytest.approx(ran / tokens)
    assert metrics["mean_exit_layer"] < metrics["layers_run_per_token"]


def test_an_adaptive_threshold_is_reported(evaluate) -> None:
    run = evaluate(shallow_layer=1, threshold=0.7, adaptive_threshold=True, latency_samples=2)
    assert 0 <= run.document["metrics"]["adapted_threshold"] <= 1
    assert run.document["config"]["exit"]["adaptive"] is True


def test_the_longest_output_can_be_chosen(evaluate) -> None:
    run = evaluate(max_new_tokens=3, limit=10)
    assert all(len(record["tokens"]) <= 3 for record in run.records())
    decaying = evaluate(max_new_tokens=5, decay="code", temperature=2.0, limit=5)
    assert decaying.document["config"]["exit"]["decay_length"] == 5


def test_flops_are_the_formulas_sum(folder) -> None:
    loaded = load_decoder(PredictConfig(model=str(folder), device="cpu"))
    d, inner, ff, vocabulary = 32, 32, 48, 69

    def layer(position: int, source: int) -> int:
        own = 2 * d * 3 * inner + 2 * inner * d + 4 * inner * (position + 1)
        cross = 2 * d * inner + 2 * inner * d + 4 * inner * source
        return own + cross + 2 * 2 * d * ff

    full = decode_examples(loaded, list(WORDS), full_model(loaded))
    expected = sum(
        3 * layer(position, len(word) + 1) + 2 * d * vocabulary
        for word, tokens in zip(WORDS, full.tokens, strict=True)
        for position in range(len(tokens))
    )
    assert token_flops(loaded, full, full_model(loaded)) == expected
    settings = decoder_settings(PredictConfig(confidence="linear", threshold=0.4), loaded)
    early = decode_examples(loaded, list(WORDS), settings)
    expected = early.counts.filled * 2 * d * 2 * inner
    for word, layers in zip(WORDS, early.exit_layers, strict=True):
        for position, left in enumerate(layers):
            expected += left * layer(position, len(word) + 1) + 2 * d * vocabulary
            expected += min(left, 2) * 2 * d * 2
    assert token_flops(loaded, early, settings) == expected


# --- data and prefixes ---------------------------------------------------------------------------


def test_own_pairs_and_the_models_prefix(tmp_path, evaluate) -> None:
    prefixed = save_decoder(tmp_path / "prefixed", source_prefix="say ")
    pairs = write_pairs(tmp_path / "pairs.csv")
    run = evaluate(model=str(prefixed), data_file=pairs, limit=None)
    assert [record["source"] for record in run.records()] == [f"say {word}" for word in WORDS]
    assert {"rouge_l", "bleu", "exact_match"} <= set(run.document["metrics"])
    run = evaluate(model=str(prefixed), data_file=pairs, limit=None, source_prefix="")
    assert [record["source"] for record in run.records()] == list(WORDS)


def test_an_empty_source_in_a_file_is_one_clear_line(tmp_path, evaluate) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("source,target\nqueue,K Y UW\n  ,K\n", encoding="utf-8")
    with pytest.raises(UsageError, match="empty"):
        evaluate(data_file=path)


def test_cut_inputs_are_counted(evaluate) -> None:
    run = evaluate(max_length=4)
    long = [record for record in run.records() if len(record["source"]) > 3]
    assert run.document["metrics"]["truncated"] == len(long) > 0


def test_a_plain_t5_is_evaluated_as_the_full_model(tmp_path, evaluate) -> None:
    plain = save_plain_t5(tmp_path / "plain")
    run = evaluate(model=str(plain), task="pronunciation", limit=4, max_new_tokens=6)
    assert run.document["config"]["exit"] == {"criterion": "full"}
    assert run.document["metrics"]["agreement"] == 1


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patience": 2}, "--patience is for classifiers"),
        ({"voting": 1.0}, "--voting is for classifiers"),
        ({"confidence": "entropy", "threshold": 0.3}, "'entropy' is for classifiers"),
        ({"confidence": "saturation", "threshold": 0.3, "top_k_propagation": 9}, "'saturation'"),
        ({"static_layer": (1, 4)}, r"4 is outside 1\.\.3"),
        ({"top_k_propagation": (0, 70)}, "K = 70"),
        ({"sweep": True, "threshold": (0.1, 0.2)}, "--threshold and --sweep"),
        ({"task": "sst2"}, "the model writes text"),
    ],
)
def test_options_that_do_not_fit_a_decoder(evaluate, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k_propagation": 10}, "--top-k-propagation is for encoder-decoders"),
        ({"min_layer": 2}, "--min-layer is for encoder-decoders"),
        ({"decay": "paper"}, "--decay is for encoder-decoders"),
        ({"shallow_layer": 2}, "--shallow-layer is for encoder-decoders"),
        ({"max_new_tokens": 9}, "--max-new-tokens is for encoder-decoders"),
        ({"confidence": "saturation", "threshold": 0.3}, "'saturation' is for decoders"),
        ({"confidence": "mlp", "threshold": 0.3}, "'mlp' is for decoders"),
    ],
)
def test_calm_options_that_do_not_fit_a_classifier(evaluate, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(model="deebert", **options)
    if "threshold" not in options:
        with pytest.raises(UsageError, match=words):
            run_prediction(PredictConfig(model="deebert", texts=("fine",), **options))


# --- a stored calibration ------------------------------------------------------------------------


@pytest.fixture
def calibrated(tmp_path) -> Path:
    folder = save_decoder(tmp_path / "calibrated")
    ref = resolve(str(folder))
    keep(
        ref,
        folder,
        StoredCalibration(
            weights=weights_digest(folder),
            task="pairs",
            settings={
                "criterion": "threshold",
                "confidence": "linear",
                "threshold": 0.35,
                "min_layer": 2,
            },
            certified=True,
            guarantee="promised",
            delta=0.1,
            epsilon=0.1,
            consistency="textual",
            p_value_name="betting",
            procedure="fixed-sequence",
            p_value=0.01,
            samples=2,
            texts=[text_digest("queue"), text_digest("knight")],
            run_id="a-run",
            created="2026-01-01T00:00:00+00:00",
        ),
    )
    return folder


def test_the_calibrated_threshold_brings_its_measure_and_leaves_its_samples_out(
    calibrated, tmp_path, evaluate
) -> None:
    pairs = write_pairs(tmp_path / "pairs.csv")
    run = evaluate(model=str(calibrated), data_file=pairs, limit=None, threshold="calibrated")
    assert run.document["config"]["exit"] == {
        "criterion": "threshold",
        "confidence": "linear",
        "threshold": 0.35,
        "min_layer": 2,
    }
    assert run.document["metrics"]["samples"] == len(WORDS) - 2
    predicted = run_prediction(
        PredictConfig(model=str(calibrated), texts=("ox",), threshold="calibrated")
    )
    assert predicted["criterion"] == run.document["config"]["exit"]
    with pytest.raises(MissingArtifactError, match="was not made with --min-layer 1"):
        evaluate(model=str(calibrated), data_file=pairs, threshold="calibrated", min_layer=1)
    with pytest.raises(MissingArtifactError, match="No calibration on 'mlp'"):
        evaluate(model=str(calibrated), data_file=pairs, threshold="calibrated", confidence="mlp")


# --- predict -------------------------------------------------------------------------------------


def test_prediction_shows_every_token_with_its_layer(folder) -> None:
    texts = ("queue", "knight")
    document = run_prediction(PredictConfig(model=str(folder), device="cpu", texts=texts))
    json.dumps(document)
    loaded = load_decoder(PredictConfig(model=str(folder), device="cpu"))
    decoded = decode_examples(loaded, texts, decoder_settings(PredictConfig(), loaded))
    full = decode_examples(loaded, texts, full_model(loaded))
    assert document["num_layers"] == 3
    for index, result in enumerate(document["results"]):
        assert result["text"] == texts[index]
        assert result["output"] == decoded.outputs[index]
        assert result["output_full"] == full.outputs[index]
        assert [token["exit_layer"] for token in result["tokens"]] == decoded.exit_layers[index]
        for token in result["tokens"]:
            assert len(token["layers"]) == 3
            assert (token["confidence"] is None) == (token["exit_layer"] == 3)
            assert token["confidence"] is None or token["confidence"] > 0.5


def test_at_full_depth_the_last_layers_opinion_is_what_was_said(folder) -> None:
    config = PredictConfig(model=str(folder), device="cpu", texts=WORDS, static_layer=3)
    for result in run_prediction(config)["results"]:
        assert [token["layers"][-1] for token in result["tokens"]] == [
            token["token"] for token in result["tokens"]
        ]
        assert result["output"] == result["output_full"]


def test_predicting_nothing_is_an_error(folder) -> None:
    with pytest.raises(UsageError, match="empty"):
        run_prediction(PredictConfig(model=str(folder), texts=("queue", " ")))
    with pytest.raises(UsageError, match="--text-pair is for classifiers"):
        run_prediction(PredictConfig(model=str(folder), texts=("queue",), text_pair="two"))
