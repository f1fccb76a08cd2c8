"""A decoder on the command line: evaluate, predict, list, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from tiny_decoders import save_decoder, save_plain_t5, write_pairs

FAST = ("--limit", 12, "--latency-samples", 0)


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "spell")


def _error(done) -> tuple[str, str]:
    """The two lines of an error, after at most a line of what was begun."""
    assert done.out == ""
    assert "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert lines[-2].startswith("Error: "), done.err
    assert lines[-1].startswith("Hint: "), done.err
    return lines[-2].removeprefix("Error: "), lines[-1].removeprefix("Hint: ")


def test_evaluate_prints_one_document(eexit, decoder) -> None:
    done = eexit("evaluate", "--model", decoder, "--json", "--quiet", *FAST)
    assert done.code == 2  # --json and --quiet
    done = eexit("evaluate", "--model", decoder, "--json", *FAST)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["command"] == "evaluate"
    assert document["rows"] == []
    assert document["metrics"]["samples"] == 12
    run = Path("results") / document["run_id"]
    assert json.loads((run / "all_results.json").read_text()) == document
    again = eexit("evaluate", "--config", run / "config.json", "--json")
    assert again.code == 0, again.err
    names = ("phoneme_error_rate", "mean_exit_layer", "agreement", "tokens")
    metrics = json.loads(again.out)["metrics"]
    assert [metrics[name] for name in names] == [document["metrics"][name] for name in names]


def test_the_screen_compares_with_the_full_model(eexit, decoder) -> None:
    done = eexit("evaluate", "--model", decoder, "--limit", 12, "--latency-samples", 2)
    assert done.code == 0, done.err
    for words in (
        "softmax above 0.5",
        "Layer by layer",
        "Confidence, ms per token",
        "Phoneme error rate",
        "Tokens per second, batch 32",
        "Tokens per second, batch 1 ",
        "Speedup in seconds, batch 1",
        "Time filling skipped layers",
    ):
        assert words in done.out
    assert "eexit plot exits-position --run" in done.err
    assert max(map(len, done.out.splitlines())) <= 100
    shown = eexit("results", "show", "latest")
    assert shown.out == done.out


def test_lists_make_rows(eexit, decoder) -> None:
    done = eexit("evaluate", "--model", decoder, "--static-layer", "1,2,3", *FAST)
    assert done.code == 0, done.err
    for layer in (1, 2, 3):
        assert re.search(rf"^ layer {layer} ", done.out, flags=re.MULTILINE)
    grid = ("--threshold", "0.9,0.5", "--top-k-propagation", "none,10,20")
    done = eexit("evaluate", "--model", decoder, *grid, "--format", "csv", *FAST)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["threshold"], row["top_k_propagation"]) for row in rows] == [
        (threshold, k) for k in ("", "10", "20") for threshold in ("0.9", "0.5")
    ]
    shown = eexit("results", "show", "latest").out
    assert "softmax > 0.9, top 10" in shown
    run = eexit("results", "list", "--quiet").out.split()[0]
    again = eexit("evaluate", "--config", Path("results") / run / "config.json", "--json")
    assert again.code == 0, again.err
    assert [row["threshold"] for row in json.loads(again.out)["rows"]] == [0.9, 0.5] * 3


@pytest.mark.parametrize("width", [80, 120])
def test_a_sweep_fits_the_terminal(eexit, decoder, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    options = ("--sweep", "--confidence", "softmax,transformer_linear_512")
    done = eexit("evaluate", "--model", decoder, *options, "--limit", 5, "--latency-samples", 0)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= width
    assert "full model" in done.out
    assert "transformer_linear_512 > 0.95" in done.out
    assert "--format csv prints all" in done.err
    assert "eexit plot quality-layers" in done.err
    figures = ("quality-layers", "quality-time", "exits-position")
    for figure in figures:
        drawn = eexit("plot", figure, "--output", f"{figure}.png", "--dpi", 60)
        assert drawn.code == 0, drawn.err
        assert Path(f"{figure}.png").stat().st_size > 1000


def test_confidence_time_is_drawn_from_a_grid(eexit, decoder) -> None:
    eexit("evaluate", "--model", decoder, "--top-k-propagation", "none,10", *FAST)
    drawn = eexit("plot", "confidence-time", "--output", "k.svg")
    assert drawn.code == 0, drawn.err
    assert "K = 10" in Path("k.svg").read_text()


def test_options_come_from_a_file_and_the_environment(eexit, decoder, monkeypatch) -> None:
    Path("run.yaml").write_text(
        f"model: {decoder}\nstatic-layer: [1, 3]\nlimit: 4\nlatency-samples: 0\n"
    )
    rows = json.loads(eexit("evaluate", "--config", "run.yaml", "--json").out)["rows"]
    assert [row["static_layer"] for row in rows] == [1, 3]
    monkeypatch.setenv("EEXIT_STATIC_LAYER", "2,3")
    rows = json.loads(eexit("evaluate", "--config", "run.yaml", "--json").out)["rows"]
    assert [row["static_layer"] for row in rows] == [2, 3]


def test_predict_shows_where_each_token_left(eexit, decoder, monkeypatch) -> None:
    done = eexit("predict", "--model", decoder, "knight", "a [bold]queue[/]")
    assert done.code == 0, done.err
    assert '"knight"' in done.out
    assert '"a [bold]queue[/]"' in done.out
    assert done.out.count("left at") == 2
    document = json.loads(eexit("predict", "--model", decoder, "knight", "--json").out)
    tokens = document["results"][0]["tokens"]
    left = next(line for line in done.out.splitlines() if "left at" in line)
    assert left.split()[2:] == [str(token["exit_layer"]) for token in tokens]
    monkeypatch.setenv("COLUMNS", "40")
    narrow = eexit("predict", "--model", decoder, "knight")
    assert max(map(len, narrow.out.splitlines())) <= 40
    assert narrow.out.count("left at") > 1
    quiet = eexit("predict", "--model", decoder, "knight", "--quiet")
    assert quiet.out.strip() == document["results"][0]["output"]
    rows = csv.DictReader(
        io.StringIO(eexit("predict", "--model", decoder, "knight", "--format", "csv").out)
    )
    assert [row["token"] for row in rows] == [token["token"] for token in tokens]


def test_models_are_listed_with_their_classifiers(eexit, decoder, monkeypatch) -> None:
    monkeypatch.setenv("EEXIT_MODELS_DIR", str(decoder.parent))
    listed = json.loads(eexit("models", "list", "--json").out)["models"]
    mine = next(model for model in listed if model["name"] == "spell")
    assert (mine["family"], mine["layers"], mine["task"]) == ("calm", 3, "pronunciation")
    assert "linear" in mine["classifiers"]
    shown = eexit("models", "show", "spell").out
    assert "transformer_mlp_64" in shown
    assert "softmax above 0.5" in shown
    assert "labels" not in shown


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ("--confidence saturation --threshold .5 --top-k-propagation 9", "saturation", "softmax"),
        ("--top-k-propagation 1", "K = 1 is outside 2..69", "between 2 and"),
        ("--top-k-propagation none,70", "K = 70 is outside 2..69", "between 2 and"),
        ("--static-layer 1,4", "Static layer 4 is outside 1..3", "--static-layer 1..3"),
        ("--static-layer 0", "--static-layer", "eexit evaluate --help"),
        ("--min-layer 4", "Minimum exit layer 4 is outside 1..3", "--min-layer 1..3"),
        ("--shallow-layer 3", "Shallow layer 3 is outside 1..2", "--shallow-layer 1..2"),
        ("--confidence linear", "stores no threshold for 'linear'", "--threshold"),
        ("--confidence entropy --threshold .5", "'entropy' is for classifiers", "softmax"),
        ("--confidence saturatio --threshold .5", "Unknown confidence measure", "saturation"),
        ("--confidence linear,lineer --threshold .5", "Unknown confidence measure", "linear"),
        ("--patience 2", "--patience is for classifiers", "leaves by --confidence"),
        ("--voting 1.5", "--voting is for classifiers", "Drop --voting"),
        ("--threshold 0.5,,0.1", "empty value between its commas", "--help"),
        ("--threshold 0.5,nan", "--threshold", "finite"),
        ("--threshold 0.5,-1", "not in the range", "--help"),
        ("--threshold 1.5", "outside [0, 1]", "full model"),
        ("--threshold calibrated", "No calibration for", "eexit calibrate --model"),
        ("--top-k-propagation ten", "not a valid integer", "--help"),
        ("--decay linear", "Unknown threshold decay 'linear'", "paper"),
        ("--temperature 2", "--temperature says nothing", "--decay paper"),
        ("--adaptive-threshold", "nothing without --shallow-layer", "--shallow-layer N"),
        ("--max-length 1", "--max-length 1", "at least 2"),
        ("--task movie-reviews", "the model writes text", "pronunciation"),
        ("--text-column body --data-file pairs.csv", "--text-column is for classifiers", "deebert"),
        ("--sweep --static-layer 1,2", "--static-layer and --sweep", "drop --sweep"),
    ],
)
def test_what_does_not_fit_a_decoder_is_one_clear_line(
    eexit, decoder, options, words, hint
) -> None:
    write_pairs(Path("pairs.csv"))
    done = eexit("evaluate", "--model", decoder, *options.split())
    message, repair = _error(done)
    assert done.code in (2, 3)
    assert words in message
    assert hint in repair
    assert not Path("results").exists()


def test_a_missing_classifier_names_the_command_that_trains_it(eexit, tmp_path) -> None:
    model = save_decoder(tmp_path / "some", classifiers=("linear",))
    for command in (["evaluate"], ["predict", "queue"]):
        done = eexit(*command, "--model", model, "--confidence", "MLP", "--threshold", 0.5)
        message, hint = _error(done)
        assert done.code == 2
        assert message == f"Model '{model}' has no classifier 'mlp' (it has linear)"
        assert hint == f"Train one: eexit train --confidence mlp --model {model}"


def test_an_empty_source_names_the_row(eexit, decoder, tmp_path) -> None:
    (tmp_path / "pairs.csv").write_text("source,target\nqueue,K\n,K\n", encoding="utf-8")
    message, _ = _error(eexit("evaluate", "--model", decoder, "--data-file", "pairs.csv"))
    assert "empty" in message
    message, _ = _error(eexit("predict", "--model", decoder, "queue", ""))
    assert "empty" in message


def test_long_inputs_are_cut_and_counted(eexit, decoder) -> None:
    done = eexit("evaluate", "--model", decoder, "--max-length", 3, *FAST)
    assert done.code == 0
    assert re.search(r"\d+ of 12 inputs were cut at 3 tokens", done.err)
    assert "inputs cut" in done.out


@pytest.mark.parametrize(
    "option",
    [
        "--top-k-propagation 10",
        "--min-layer 2",
        "--decay paper",
        "--temperature 2",
        "--shallow-layer 2",
        "--adaptive-threshold",
        "--max-new-tokens 5",
    ],
)
def test_calms_options_on_a_classifier_are_one_clear_line(eexit, tiny_model, option) -> None:
    for command in (["evaluate"], ["predict", "good"]):
        done = eexit(*command, "--model", tiny_model, *option.split())
        message, hint = _error(done)
        assert done.code == 2
        assert message.startswith(f"{option.split()[0]} is for encoder-decoders (CALM)")
        assert "calm" in hint


def test_a_decoders_measure_on_a_classifier(eexit, tiny_model, reviews) -> None:
    options = ("--confidence", "saturation", "--threshold", 0.5)
    done = eexit("evaluate", "--model", tiny_model, "--data-file", reviews, *options)
    message, hint = _error(done)
    assert (
        message == "Confidence 'saturation' is for decoders (CALM, LayerSkip), not for classifiers"
    )
    assert "margin" in hint


def test_a_plain_t5_says_that_it_was_not_trained_for_this(eexit, tmp_path) -> None:
    model = save_plain_t5(tmp_path / "plain")
    options = ("--task", "pronunciation", "--max-new-tokens", 4, *FAST)
    done = eexit("evaluate", "--model", model, *options)
    assert done.code == 0, done.err
    assert "not trained to answer early" in done.err
    assert "none, the full model" in done.out


def test_lists_on_a_classifier_make_rows(eexit, tiny_model, reviews) -> None:
    options = ("--data-file", reviews, "--latency-samples", 0)
    done = eexit("evaluate", "--model", tiny_model, "--threshold", "0.1,0.3", "--json", *options)
    rows = json.loads(done.out)["rows"]
    assert [row["threshold"] for row in rows] == [0.1, 0.3]
    done = eexit("evaluate", "--model", tiny_model, "--patience", "1,2", *options)
    assert "patience 2" in done.out


def test_completion_offers_both_kinds_of_measures_after_each_comma() -> None:
    from eexit_cli.ui.completion import of_catalog_list

    complete = of_catalog_list("any confidence measure")
    assert {"entropy", "softmax", "transformer_mlp_64"} <= set(complete(""))
    assert complete("sat") == ["saturation"]
    assert complete("softmax,sat") == ["softmax,saturation"]
    assert complete("softmax,zzz") == []


def test_help_tells_which_options_are_calms(eexit) -> None:
    for command in ("evaluate", "predict"):
        out = eexit(command, "--help").out
        calm = out.partition("Decoder (CALM, LayerSkip):")[2]
        for option in ("--top-k-propagation", "--min-layer", "--decay", "--shallow-layer"):
            assert option in calm
