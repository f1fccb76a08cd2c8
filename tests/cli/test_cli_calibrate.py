"""``eexit calibrate`` and ``--threshold calibrated`` as a person meets them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_decoders import save_decoder

THRESHOLDS = [round(1 - 0.05 * step, 2) for step in range(20)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EEXIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    base = np.random.default_rng(0).random((600, 1))
    table = pd.DataFrame(np.linspace(0, 0.4, 20) * (0.5 + base), columns=map(str, THRESHOLDS))
    for column, depth in zip(THRESHOLDS, np.linspace(6, 1, 20), strict=True):
        table[f"exit_layer_{column}"] = depth
    path = tmp_path / "losses.parquet"
    table.to_parquet(path)
    return path


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose folder a test may write to."""
    return Path(shutil.copytree(tiny_model, tmp_path / "own"))


def test_losses_of_ones_own(eexit, losses) -> None:
    done = eexit("calibrate", "--losses", losses, "--delta", 0.1, "--test-share", 0.5)
    assert done.code == 0, done.err
    assert "testing on the other, 300: no sample is in both" in done.err
    said = " ".join(done.out.split())
    assert "With probability at least 95 % over the draw of the 300 calibration samples" in said
    assert "keeps the mean loss at or below 0.1" in said
    assert "Bound on the mean loss (95 % sure)" in said
    assert "over the draw of the 300 test samples, which took no part in the choice" in said
    assert "it does not cover choosing the most eager of these thresholds afterwards" in said
    for words in ("hoeffding-bentkus", "betting", "no guarantee", "Mean exit layer", "Chosen"):
        assert words in said
    assert "eexit plot calibration --run" in done.err


def test_losses_of_ones_own_all_calibrate(eexit, losses) -> None:
    done = eexit("calibrate", "--losses", losses, "--delta", 0.1)
    assert done.code == 0, done.err
    assert "Calibrating on all 600 samples of 'losses.parquet'; none tests" in done.err
    said = " ".join(done.out.split())
    assert "over the draw of the 600 calibration samples" in said
    assert "No test samples: nothing was checked" in said
    for figure in ("calibration", "calibration-risk"):
        assert eexit("plot", figure).code == 0


def test_what_gives_no_guarantee_certifies_nothing(eexit, losses) -> None:
    done = eexit("calibrate", "--losses", losses, "--delta", 0.1, "--p-value", "naive", "--strict")
    assert done.code == 4
    assert "without a guarantee" in done.err
    assert "--p-value hoeffding-bentkus does" in done.err
    done = eexit("calibrate", "--losses", losses, "--delta", 0.1, "--p-value", "naive")
    assert done.code == 0
    assert "Bound on" not in done.out
    assert "nothing certified" in eexit("results", "list").out


def test_json_is_the_document_and_nothing_else(eexit, losses, tmp_path) -> None:
    done = eexit("calibrate", "--losses", losses, "--json", "--thresholds", "")
    document = json.loads(done.out)
    folder = tmp_path / "results" / document["run_id"]
    assert document == json.loads((folder / "all_results.json").read_text())
    assert document["metrics"]["certified"] is True
    assert document["report"]["guarantee"].startswith("With probability")


def test_csv_has_every_threshold(eexit, losses) -> None:
    done = eexit("calibrate", "--losses", losses, "--format", "csv")
    lines = done.out.splitlines()
    assert lines[0].startswith("threshold,mean_loss,mean_exit_layer,p_value,rejected,chosen")
    assert len(lines) == 21


def test_results_show_prints_it_again(eexit, losses) -> None:
    first = eexit("calibrate", "--losses", losses)
    again = eexit("results", "show", "latest")
    assert again.code == 0, again.err
    assert again.out == first.out
    listed = eexit("results", "list")
    assert "certified" in listed.out


def test_all_panels_from_the_last_calibration(eexit, losses) -> None:
    assert eexit("calibrate", "--losses", losses, "--curves", "--repeats", 5).code == 0
    done = eexit("plot", "calibration")
    assert done.code == 0, done.err
    path = Path(done.out.strip())
    assert path.name == "calibration.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_calibrated_threshold_is_used_and_goes_stale(eexit, own_model, reviews) -> None:
    data = ("--data-file", reviews, "--latency-samples", 0)
    missing = eexit("evaluate", "--model", own_model, *data, "--threshold", "calibrated")
    assert missing.code == 3
    assert f"No calibration for '{own_model}'" in missing.err
    assert f"Run: eexit calibrate --model {own_model}" in missing.err

    done = eexit("calibrate", "--model", own_model, *data, "--delta", 0.4, "--json")
    assert done.code == 0, done.err
    setting = json.loads(done.out)["report"]["exit"]
    used = eexit("evaluate", "--model", own_model, *data, "--threshold", "calibrated", "--json")
    assert used.code == 0, used.err
    config = json.loads(used.out)["config"]
    assert config["exit"] == setting
    assert config["threshold"] == setting["threshold"]
    predicted = eexit(
        "predict", "--model", own_model, "--threshold", "calibrated", "--json", "a fine film"
    )
    assert json.loads(predicted.out)["criterion"] == setting

    settings = json.loads((own_model / "config.json").read_text())
    settings["exit_defaults"]["threshold"] = 0.2
    (own_model / "config.json").write_text(json.dumps(settings))
    stale = eexit("evaluate", "--model", own_model, *data, "--threshold", "calibrated")
    assert stale.code == 3
    assert "is stale" in stale.err
    assert f"Run: eexit calibrate --model {own_model}" in stale.err


def test_a_model_shows_what_it_keeps(eexit, own_model, reviews) -> None:
    data = ("--model", own_model, "--data-file", reviews, "--latency-samples", 0)
    first, second, failed = (
        json.loads(eexit("calibrate", *data, "--delta", delta, "--json").out)
        for delta in (0.4, 0.5, 0.001)
    )
    assert not failed["metrics"]["certified"]
    shown = eexit("models", "show", own_model)
    assert shown.code == 0, shown.err
    assert "Calibrations, oldest first" in shown.out
    table = shown.out[shown.out.index("Calibrations, oldest first") :]
    assert [word for word in table.split() if word in ("taken", "kept", "stale")] == [
        "kept", "taken", "kept",
    ]  # fmt: skip
    assert "calibrated:RUN" in shown.err
    document = json.loads(eexit("models", "show", own_model, "--json").out)
    assert [(entry["run_id"], entry["state"]) for entry in document["calibrations"]] == [
        (first["run_id"], "kept"), (second["run_id"], "taken"), (failed["run_id"], "kept"),
    ]  # fmt: skip
    assert [entry["delta"] for entry in document["calibrations"]] == [0.4, 0.5, 0.001]
    for word, run in (("calibrated", second), (f"calibrated:{first['run_id']}", first)):
        used = eexit("evaluate", *data, "--threshold", word)
        assert used.code == 0, used.err
        assert f"Calibrated in run {run['run_id']}. With probability at least" in used.err
    hints = eexit("calibrate", *data, "--delta", 0.001).err
    assert "--threshold calibrated:20" in hints
    unknown = eexit("evaluate", *data, "--threshold", "calibrated:20990101")
    assert unknown.code == 3
    assert f"See what it keeps: eexit models show {own_model}" in unknown.err
    assert eexit("evaluate", *data, "--threshold", "calibrated:").code == 2


def test_another_tasks_calibration_is_refused(eexit, own_model, reviews) -> None:
    eexit("calibrate", "--model", own_model, "--data-file", reviews, "--latency-samples", 0)
    done = eexit("evaluate", "--model", own_model, "--task", "tweets", "--threshold", "calibrated")
    assert done.code == 3
    assert "is for task 'reviews', not for 'tweets'" in done.err
    assert f"eexit calibrate --model {own_model} --task tweets" in done.err


def test_a_calibration_survives_an_attackers_texts_or_not(eexit, own_model, reviews) -> None:
    data = ("--model", own_model, "--data-file", reviews, "--seed", 1)
    small = ("--limit", 12, "--top-n", 5, "--beam-width", 2, "--per-size", 2)
    attacked = eexit("attack", *data, *small, "--json")
    assert attacked.code == 0, attacked.err
    run = json.loads(attacked.out)["run_id"]
    done = eexit(
        "calibrate", *data, "--delta", 0.4, "--verify-on", run, "--latency-samples", 0
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Under attack" in done.out
    assert re.search(
        r"On \d+ (adversarial inputs|inputs \(\d+ attacked, \d+ skipped and unchanged\)) "
        r"the mean loss is",
        " ".join(done.out.split()),
    )


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        ("--delta 2", 2, "delta 2.0 is outside (0, 1)"),
        ("--epsilon 0", 2, "epsilon 0.0 is outside (0, 1)"),
        ("--delta 0.0001 --strict", 4, "Nothing certified"),
        ("--limit 601", 2, "600 samples, fewer than asked"),
        ("--thresholds 1,x", 2, "'1,x' is no list of numbers"),
        ("--deltas 0.1,1", 2, "deltas 1.0 is outside (0, 1)"),
        ("--p-value hofding", 2, "Unknown p-value 'hofding'"),
        ("--procedure hollm", 2, "Unknown testing procedure 'hollm'"),
        ("--consistency text", 2, "Unknown consistency 'text'"),
        ("--metric bleu", 2, "Unknown text metric 'bleu'"),
        ("--criterion voting", 2, "Unknown calibrated criterion 'voting'"),
        ("--starts 3", 2, "--starts says nothing"),
        ("--data-file x.csv", 2, "--losses and --data-file exclude each other"),
        ("--verify-on x", 2, "--verify-on needs a model"),
        ("--full-model 0.9", 2, "column '0.9' of 'losses.parquet', is not the first"),
    ],
)
def test_bad_input_is_one_clear_line(eexit, losses, options, code, complaint) -> None:
    done = eexit("calibrate", "--losses", losses, *options.split())
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    error, hint = done.err.strip().splitlines()[-2:]
    assert error.startswith("Error: ")
    assert complaint in error
    assert hint.startswith("Hint: ")


def test_a_bad_threshold_names_the_word(eexit) -> None:
    for value in ("calibratd", "-0.5"):
        done = eexit("evaluate", "--threshold", value)
        assert done.code == 2
        assert value in done.err


def test_options_of_the_losses_need_them(eexit) -> None:
    done = eexit("calibrate", "--exit-layers", "x.npy")
    assert done.code == 2
    assert "--exit-layers says nothing without --losses" in done.err
    done = eexit("calibrate", "--full-model", "first")
    assert done.code == 2
    assert "--full-model says nothing without --losses" in done.err


def test_the_full_model_of_ones_own_losses(eexit, losses) -> None:
    done = eexit("calibrate", "--losses", losses, "--full-model", 1, "--delta", 0.0001)
    assert done.code == 0, done.err
    assert "the answer is the full model" in " ".join(done.out.split())


# Decoders ----------------------------------------------------------------------------------------

SMALL = ("--limit", 40, "--test-limit", 30, "--latency-samples", 0)
FEW = ("--thresholds", "1,0.8,0.6,0.4,0.2")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "spell")


def test_a_decoder_is_calibrated_and_the_threshold_used(eexit, decoder, tmp_path) -> None:
    own = Path(shutil.copytree(decoder, tmp_path / "own"))
    done = eexit("calibrate", "--model", own, "--delta", 0.4, *SMALL)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    for words in (
        "over the draw of the 40 calibration samples, softmax threshold",
        "the mean dissimilarity from the full model's output (1 - exact match)",
        "calibrated on calibration tested on test",
        "Mean exit layer",
        "or further",
    ):
        assert words in said
    assert max(map(len, done.out.splitlines())) <= 100
    evaluated = eexit(
        "evaluate", "--model", own, "--threshold", "calibrated", "--limit", 10,
        "--latency-samples", 0, "--json",
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    exit_ = json.loads(evaluated.out)["config"]["exit"]
    stored = json.loads((own / "calibration.json").read_text())["calibrations"][-1]
    assert exit_["threshold"] == stored["settings"]["threshold"]
    predicted = eexit("predict", "--model", own, "--threshold", "calibrated", "queue")
    assert predicted.code == 0, predicted.err


def test_several_measures_share_a_screen_a_table_and_the_panels(eexit, decoder, tmp_path) -> None:
    names = ("softmax", "saturation", "mlp")
    done = eexit(
        "calibrate", "--model", decoder, "--no-store", "--delta", 0.4, "--curves", "--repeats", 4,
        "--confidence", ",".join(names), *SMALL, *FEW,
    )  # fmt: skip
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "Each measure" in said
    for name in names:
        assert f"{name} threshold" in said
    assert "it does not cover choosing the best of them" in said
    assert eexit("results", "show", "latest").out == done.out
    table = eexit("results", "show", "latest", "--format", "csv").out.splitlines()
    assert table[0].startswith("confidence,threshold,mean_loss")
    assert len(table) == 1 + 5 * len(names)
    for figure in (
        "calibration", "calibration-risk", "calibration-layers", "calibration-threshold",
        "calibration-p-values", "calibration-samples", "calibration-violations",
    ):  # fmt: skip
        drawn = eexit("plot", figure)
        assert drawn.code == 0, drawn.err
        assert Path(drawn.out.strip()).read_bytes().startswith(b"\x89PNG")


def test_a_decoders_json_is_the_document(eexit, decoder) -> None:
    done = eexit("calibrate", "--model", decoder, "--no-store", "--json", *SMALL, *FEW)
    document = json.loads(done.out)
    assert document["config"]["metric"] == "exact-match"
    assert [row["threshold"] for row in document["rows"]][:2] == [1.0, 0.8]
    assert document["metrics"]["num_layers"] == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--confidence entropy", "Confidence 'entropy' is for classifiers"),
        ("--confidence softmax,entropi", "Unknown confidence measure 'entropi'"),
        ("--criterion patience", "--criterion patience is for classifiers"),
        ("--adaptive-threshold", "no value of it can be calibrated"),
        ("--confidence saturation --top-k-propagation 5", "for softmax response"),
        ("--thresholds 0.9,0.5", "Thresholds lack the full model"),
        ("--thresholds 1,0.5,0.6", "not in order from cautious to eager"),
        ("--limit 4000", "fewer than asked: --limit 4000"),
        ("--metric bleu", "Unknown text metric 'bleu'"),
        ("--delta 1", "delta 1.0 is outside (0, 1)"),
    ],
)
def test_bad_input_of_a_decoder_is_one_clear_line(eexit, decoder, options, complaint) -> None:
    done = eexit("calibrate", "--model", decoder, "--no-store", *options.split())
    assert done.code == 2, done.err
    assert done.out == ""
    error, hint = done.err.strip().splitlines()[-2:]
    assert error.startswith("Error: ")
    assert complaint in error
    assert hint.startswith("Hint: ")


@pytest.mark.parametrize(
    "options", ["--top-k-propagation 5", "--decay paper", "--min-layer 2", "--metric exact-match"]
)
def test_what_decoders_have_is_refused_for_a_classifier(
    eexit, tiny_model, reviews, options
) -> None:
    done = eexit("calibrate", "--model", tiny_model, "--data-file", reviews, *options.split())
    assert done.code == 2, done.err
    assert f"{options.split()[0]} is for encoder-decoders" in done.err


def test_the_bundled_decoder_is_the_default(eexit) -> None:
    done = eexit("calibrate", "--limit", 60, "--test-limit", 20, "--latency-samples", 0, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["config"]["model"] == "calm"
    assert document["config"]["calibration_split"] == "calibration"
    assert document["metrics"]["samples"] == 60
