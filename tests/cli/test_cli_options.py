"""Every field of every configuration is reachable; where values come from, and who wins."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from eexit_cli.config import (
    AttackConfig,
    CalibrateConfig,
    EvaluateConfig,
    PredictConfig,
    TrainConfig,
)
from eexit_cli.config.command_line import command_line
from eexit_cli.config.loader import read_config
from eexit_cli.config.plot import PlotConfig
from eexit_cli.config.report import ReportConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError

COMMANDS: dict[str, tuple[type, str, str]] = {
    "attack": (AttackConfig, "attack.run", "run_attack"),
    "train": (TrainConfig, "train", "run_training"),
    "evaluate": (EvaluateConfig, "evaluate", "run_evaluation"),
    "predict": (PredictConfig, "predict", "run_prediction"),
    "plot": (PlotConfig, "plot", "run_plot"),
    "report": (ReportConfig, "report", "run_report"),
}

# Another value than the default, as the option is written and as the field gets it.
VALUES: dict[str, tuple[list[str], Any]] = {
    "model": (["--model", "pabee"], "pabee"),
    "seed": (["--seed", "7"], 7),
    "device": (["--device", "cuda:1"], "cuda:1"),
    "dtype": (["--dtype", "float64"], "float64"),
    "weights": (["--weights", "int8"], "int8"),
    "runtime": (["--runtime", "onnx"], "onnx"),
    "surrogate": (["--surrogate", "pabee"], "pabee"),
    "batch_size": (["--batch-size", "5"], 5),
    "max_length": (["--max-length", "99"], 99),
    "lower_case": (["--no-lower-case"], False),
    "label_names": (["--label-names", "so so, good,1"], ("so so", "good", "1")),
    "results_dir": (["--results-dir", "out"], Path("out")),
    "task": (["--task", "SST-2"], "sst2"),
    "data_file": (["--data-file", "a.csv"], Path("a.csv")),
    "data_dir": (["--data-dir", "glue"], Path("glue")),
    "split": (["--split", "validation"], "validation"),
    "delimiter": (["--delimiter", ";", "--data-file", "a.csv"], ";"),
    "encoding": (["--encoding", "cp1252", "--data-file", "a.csv"], "cp1252"),
    "label_kind": (["--label-kind", "number", "--data-file", "a.csv"], "number"),
    "skip_faulty_rows": (["--skip-faulty-rows", "--data-file", "a.csv"], True),
    "include_training_rows": (["--include-training-rows"], True),
    "limit": (["--limit", "0"], 0),
    "text_column": (["--text-column", "body", "--data-file", "a.csv"], "body"),
    "text_pair_column": (["--text-pair-column", "two", "--data-file", "a.csv"], "two"),
    "label_column": (["--label-column", "y", "--data-file", "a.csv"], "y"),
    "source_column": (["--source-column", "in", "--data-file", "a.csv"], "in"),
    "target_column": (["--target-column", "out", "--data-file", "a.csv"], "out"),
    "source_prefix": (["--source-prefix", "read: "], "read: "),
    "confidence": (["--confidence", "max_prob"], "max-prob"),
    "threshold": (["--threshold", "0.19"], 0.19),
    "patience": (["--patience", "4"], 4),
    "regression_tolerance": (["--regression-tolerance", "0.3"], 0.3),
    "voting": (["--voting", "1.5"], 1.5),
    "static_layer": (["--static-layer", "2"], 2),
    "top_k_propagation": (["--top-k-propagation", "10"], 10),
    "min_layer": (["--min-layer", "2"], 2),
    "decay": (["--decay", "paper"], "paper"),
    "temperature": (["--temperature", "2"], 2.0),
    "shallow_layer": (["--shallow-layer", "3"], 3),
    "adaptive_threshold": (["--adaptive-threshold"], True),
    "prompt_template": (["--prompt-template", "Q: {source}"], "Q: {source}"),
    "chat": (["--chat"], True),
    "self_speculative": (["--self-speculative"], True),
    "exit_layer": (["--exit-layer", "2", "--self-speculative"], 2),
    "draft_tokens": (["--draft-tokens", "3", "--self-speculative"], 3),
    "draft_threshold": (["--draft-threshold", "0.5", "--self-speculative"], 0.5),
    "engine": (["--engine", "ray"], "ray"),
    "address": (["--address", "auto", "--engine", "ray"], "auto"),
    "gpus_per_worker": (["--gpus-per-worker", "0.5", "--engine", "ray"], 0.5),
    "sample_timeout": (["--sample-timeout", "30"], 30.0),
    "layer_dropout": (["--layer-dropout", "0.2"], 0.2),
    "train exit_layers": (["--exit-layers", "2,5"], (2, 5)),
    "early_exit_scale": (["--early-exit-scale", "0.5"], 0.5),
    "curriculum": (["--curriculum", "gradual"], "gradual"),
    "curriculum_interval": (["--curriculum-interval", "3"], 3),
    "max_new_tokens": (["--max-new-tokens", "9"], 9),
    "greedy": (["--greedy"], True),
    "recipe": (["--recipe", "same-char"], "same-char"),
    "lam": (["--lam", "0.5"], 0.5),
    "top_n": (["--top-n", "3"], 3),
    "beam_width": (["--beam-width", "2"], 2),
    "per_size": (["--per-size", "4"], 4),
    "change_rate": (["--change-rate", "0.2"], 0.2),
    "query_budget": (["--query-budget", "50"], 50),
    "letter_rate": (["--letter-rate", "0.5"], 0.5),
    "score": (["--score", "total-layers"], "total-layers"),
    "alpha": (["--alpha", "0.4"], 0.4),
    "similarity": (["--similarity", "0.8"], 0.8),
    "substitutes": (["--substitutes", "wordnet"], "wordnet"),
    "prefix_length": (["--prefix-length", "4"], 4),
    "search_samples": (["--search-samples", "9"], 9),
    "compat": (["--compat", "upstream"], "upstream"),
    "workers": (["--workers", "2"], 2),
    "transfer": (["--transfer", "one", "--transfer", "two"], ("one", "two")),
    "defences": (["--defences"], True),
    "sweep": (["--sweep"], True),
    "latency_samples": (["--latency-samples", "0"], 0),
    "timing_repeats": (["--timing-repeats", "7"], 7),
    "energy": (["--energy"], True),
    "text_pair": (["--text-pair", "other"], "other"),
    "backbone": (["--backbone", "enc"], "enc"),
    "output": (["--output", "place"], Path("place")),
    "strategy": (["--strategy", "alternating"], "alternating"),
    "train confidence": (["--confidence", "mlp,linear"], "mlp,linear"),
    "num_layers": (["--num-layers", "3"], 3),
    "num_decoder_layers": (["--num-decoder-layers", "3"], 3),
    "d_model": (["--d-model", "64"], 64),
    "d_ff": (["--d-ff", "64"], 64),
    "num_heads": (["--num-heads", "2"], 2),
    "dropout": (["--dropout", "0.2"], 0.2),
    "distillation": (["--distillation", "last"], "last"),
    "distillation_weight": (["--distillation-weight", "0.5"], 0.5),
    "optimizer": (["--optimizer", "sgd"], "sgd"),
    "max_target_length": (["--max-target-length", "20"], 20),
    "validation_limit": (["--validation-limit", "20"], 20),
    "pooling": (["--pooling", "mean"], "mean"),
    "epochs": (["--epochs", "0.5"], 0.5),
    "learning_rate": (["--learning-rate", "1e-4"], 1e-4),
    "weight_decay": (["--weight-decay", "0.1"], 0.1),
    "warmup_ratio": (["--warmup-ratio", "0.3"], 0.3),
    "head_dropout": (["--head-dropout", "0.2"], 0.2),
    "evaluations_per_epoch": (["--evaluations-per-epoch", "2"], 2),
    "gradient_accumulation": (["--gradient-accumulation", "2"], 2),
    "freeze_embeddings": (["--freeze-embeddings"], True),
    "vocabulary": (["--vocabulary", "15000"], 15000),
    "vocabulary_keep": (["--vocabulary-keep", "frequency", "--vocabulary", "9"], "frequency"),
    "save_dtype": (["--save-dtype", "float16"], "float16"),
    "licence": (["--licence", "mit"], "mit"),
    "runs": (["--run", "a", "--run", "b"], ("a", "b")),
    "report runs": (["a", "b"], ("a", "b")),
    "format": (["--format", "svg"], "svg"),
    "dpi": (["--dpi", "100"], 100),
    "width": (["--width", "7"], 7.0),
    "height": (["--height", "2.5"], 2.5),
    "title": (["--title", "Slow"], "Slow"),
    "figure": (["tradeoff"], "tradeoff"),
    "texts": (["one", "two"], ("one", "two")),
    "file": (["--file", "texts.txt"], Path("texts.txt")),
}
RESUME = {"attack": (["--resume", "latest"], "latest"), "train": (["--resume"], True)}
ARGUMENTS = {"predict": ["a text"], "plot": ["slowdown"]}


class _StopError(Exception):
    """Raised in place of the work, which is not what is tested here."""


@pytest.fixture
def configured(eexit, monkeypatch):
    """What configuration does a command line give its pipeline?"""

    def configure(command: str, *options: object) -> Any:
        import importlib

        _, module, function = COMMANDS[command]
        seen = []

        def stop(config, *, progress=None, **others):
            seen.append(config)
            raise _StopError

        monkeypatch.setattr(
            importlib.import_module(f"eexit_cli.pipelines.{module}"), function, stop
        )
        with pytest.raises(_StopError):
            eexit(command, *options)
        return seen[0]

    return configure


@pytest.mark.parametrize("command", list(COMMANDS))
def test_defaults_are_the_configurations_own(configured, command) -> None:
    config = configured(command, *ARGUMENTS.get(command, []))
    expected = COMMANDS[command][0]()
    if command == "predict":
        expected = dataclasses.replace(expected, texts=("a text",))
    assert config == expected


FIELDS = [
    pytest.param(command, item.name, id=f"{command} {item.name}")
    for command, (config_class, _, _) in COMMANDS.items()
    for item in dataclasses.fields(config_class)
]


@pytest.mark.parametrize(("command", "name"), FIELDS)
def test_every_field_has_an_option_that_reaches_it(configured, command, name) -> None:
    value = VALUES.get(f"{command} {name}") or VALUES.get(name)
    options, expected = RESUME[command] if name == "resume" else value
    arguments = [] if name in ("texts", "figure") else ARGUMENTS.get(command, [])
    default = getattr(COMMANDS[command][0](), name)
    assert expected != default
    assert getattr(configured(command, *arguments, *options), name) == expected


RUNS = ("attack", "train", "evaluate")
"""Of which a page says how to run them again."""


@pytest.mark.parametrize(("command", "name"), [f for f in FIELDS if f.values[0] in RUNS])
def test_a_configuration_gives_its_command_back(configured, command, name) -> None:
    value = VALUES.get(f"{command} {name}") or VALUES.get(name)
    options, _ = RESUME[command] if name == "resume" else value
    config = configured(command, *options)
    program, *words = shlex.split(command_line(command, config.as_dict()))
    assert (program, words[0]) == ("eexit", command)
    again = configured(*words)
    assert again == dataclasses.replace(
        config, **({"resume": again.resume} if name == "resume" else {})
    )


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("evaluate", "--threshold 0.5,0.9 --confidence entropy,margin"),
        ("evaluate", "--model calm --top-k-propagation none,10 --source-prefix ''"),
        ("evaluate", "--patience 1,2 --model='a folder; rm -rf *'"),
        ("calibrate", "--thresholds 1,0.9,0.5 --deltas 0.1,0.2 --no-store --strict"),
        ("calibrate", "--confidence softmax,linear --top-k-propagation none --delta 0.05"),
        ("calibrate", "--losses losses.csv --full-model full --delta 0.1 --compare-naive"),
        ("attack", "--transfer one --transfer two --defences"),
    ],
)
def test_several_values_give_their_command_back(configured, monkeypatch, command, line) -> None:
    monkeypatch.setitem(
        COMMANDS, "calibrate", (CalibrateConfig, "calibrate.run", "run_calibration")
    )
    config = configured(command, *shlex.split(line))
    asked = json.loads(json.dumps(config.as_dict()))
    assert configured(*shlex.split(command_line(command, asked))[1:]) == config


def test_the_originals_command_line_translates_one_to_one(configured) -> None:
    line = (
        "--model mattymchen/deebert-base-sst2 --threshold 0.19 --task sst2"
        " --data-dir glue_data/SST-2 --lam 0.8 --top-n 100 --beam-width 5 --per-size 10"
    )
    config = configured("attack", *line.split())
    assert config == AttackConfig(
        model="mattymchen/deebert-base-sst2",
        threshold=0.19,
        task="sst2",
        data_dir=Path("glue_data/SST-2"),
    )


def test_several_recipes_are_checked_one_by_one(configured) -> None:
    config = configured("attack", "--recipe", "same, waffle,same-token,random")
    assert config.recipe == "same-token,waffle,random"
    assert configured("attack", "--recipe", "all").recipe == "all"


FILES = {
    "yaml": "top-n: 7\nlam: 0.25\nlower_case: false\n",
    "toml": "top-n = 7\nlam = 0.25\nlower_case = false\n",
    "json": '{"top-n": 7, "lam": 0.25, "lower_case": false}',
}


@pytest.mark.parametrize("form", list(FILES))
def test_file_fills_the_defaults(configured, tmp_path, form) -> None:
    path = tmp_path / f"settings.{form}"
    path.write_text(FILES[form], encoding="utf-8")
    config = configured("attack", "--config", path)
    assert config == AttackConfig(top_n=7, lam=0.25, lower_case=False)


def test_label_names_from_a_file_and_from_the_environment(
    configured, tmp_path, monkeypatch
) -> None:
    """A list in a file may hold names with commas; one name stays one name."""
    path = tmp_path / "settings.json"
    path.write_text('{"label_names": ["yes, indeed", "no"]}', encoding="utf-8")
    assert configured("evaluate", "--config", path).label_names == ("yes, indeed", "no")
    monkeypatch.setenv("EEXIT_LABEL_NAMES", "bad,good")
    assert configured("evaluate").label_names == ("bad", "good")
    assert configured("evaluate", "--label-names", "alone").label_names == ("alone",)


def test_command_line_then_environment_then_file_then_default(
    configured, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("top_n: 1\nbeam_width: 1\nper_size: 1\n", encoding="utf-8")
    monkeypatch.setenv("EEXIT_TOP_N", "2")
    monkeypatch.setenv("EEXIT_BEAM_WIDTH", "2")
    config = configured("attack", "--config", path, "--top-n", 3)
    assert (config.top_n, config.beam_width, config.per_size) == (3, 2, 1)
    assert config.lam == AttackConfig.lam


def test_command_line_overrides_a_rival_from_elsewhere(configured, tmp_path, monkeypatch) -> None:
    """A threshold in the environment does not forbid --patience; both on one line do."""
    monkeypatch.setenv("EEXIT_THRESHOLD", "0.3")
    config = configured("attack", "--patience", 3)
    assert (config.patience, config.threshold) == (3, None)
    assert configured("attack").threshold == 0.3
    path = tmp_path / "settings.toml"
    path.write_text("static_layer = 2\n", encoding="utf-8")
    config = configured("attack", "--config", path)
    assert (config.threshold, config.static_layer) == (0.3, None)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yaml", "topn: 3\n", "Unknown key 'topn'"),
        ("a.yaml", "help: true\n", "Unknown key 'help'"),
        ("a.yaml", "top_n: 3\ntop-n: 4\n", "twice"),
        ("a.yaml", "top_n: {a: 3}\n", "table"),
        ("a.yaml", "just words\n", "no settings"),
        ("a.yaml", "a: [\n", "not valid YAML"),
        ("a.toml", "top_n = \n", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.ini", "", "no configuration file"),
    ],
)
def test_bad_file(eexit, tmp_path, name, content, words) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    done = eexit("attack", "--config", name)
    assert (done.code, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert words in error
    assert name in error
    assert hint.startswith("Hint: ")


def test_unknown_key_names_the_nearest_option(tmp_path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("beam-with: 3\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_config(path, ["beam_width", "lam"])
    assert caught.value.hint == "Did you mean --beam-width?"


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(MissingArtifactError):
        read_config(tmp_path / "none.yaml", ["lam"])
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        read_config(tmp_path / "folder.yaml", ["lam"])


def test_values_of_a_file_are_checked_like_options(eexit, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("lam: 7\n", encoding="utf-8")
    done = eexit("attack", "--config", "a.yaml")
    assert done.code == 2
    assert "--lam" in done.err
    (tmp_path / "b.yaml").write_text("limit: 2.5\n", encoding="utf-8")
    done = eexit("attack", "--config", "b.yaml")
    assert done.code == 2
    assert "--limit" in done.err


def test_run_of_another_command_is_refused(tmp_path) -> None:
    path = tmp_path / "config.json"
    run = {"schema_version": 1, "command": "train", "config": {"epochs": 1}}
    path.write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(UsageError, match="run of 'train'"):
        read_config(path, ["lam"], command="attack")
    assert read_config(path, ["epochs"], command="train") == {"epochs": 1}


def test_exclusive_options_in_one_file_are_an_error(eexit, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("threshold: 0.1\npatience: 2\n", encoding="utf-8")
    done = eexit("attack", "--config", "a.yaml")
    assert done.code == 2
    assert "--threshold and --patience exclude each other" in done.err


def test_a_variable_that_is_no_option_is_named(eexit, monkeypatch) -> None:
    for name in ("EEXIT_MODEL", "EEXIT_TOP_N", "EEXIT_FIGURE_FORMAT", "EEXIT_HOME", "EEXIT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EEXIT_TOP_N", "5")  # another command's
    monkeypatch.setenv("EEXIT_HOME", "home")
    assert eexit("models", "list").err == ""
    monkeypatch.setenv("EEXIT_MODLE", "pabee")
    monkeypatch.setenv("EEXIT_TEXTS", "an argument")
    done = eexit("models", "list")
    assert done.code == 0
    first, second = done.err.splitlines()
    assert first.startswith(
        "The environment's EEXIT_MODLE is no option of eexit and is not read; did you mean "
        "EEXIT_MODEL"
    )
    assert second.startswith("The environment's EEXIT_TEXTS is no option of eexit")
    assert eexit("models", "list", "--quiet").err == ""
