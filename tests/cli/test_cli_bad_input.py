"""Bad input: one clear line, the nearest names, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from eexit_cli.core.errors import INTERRUPTED, EexitError, MissingArtifactError


def _error(outcome) -> tuple[str, str]:
    """The two lines of an error; nothing else was said."""
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    lines = outcome.err.strip().splitlines()
    assert lines[-2].startswith("Error: "), outcome.err
    assert lines[-1].startswith("Hint: "), outcome.err
    return lines[-2].removeprefix("Error: "), lines[-1].removeprefix("Hint: ")


@pytest.mark.parametrize(
    ("arguments", "complaint", "nearest"),
    [
        ("attack --recipe same-tokn", "Unknown attack recipe 'same-tokn'", "same-token"),
        ("attack --recipe random,wafle", "Unknown attack recipe 'wafle'", "waffle"),
        ("attack --substitutes wordnt", "Unknown source of substitutes 'wordnt'", "wordnet"),
        ("attack --compat upstrem", "Unknown compatibility 'upstrem'", "upstream"),
        ("attack --task movie-review", "Unknown task 'movie-review'", "movie-reviews"),
        ("attack --dtype float31", "Unknown dtype 'float31'", "float32"),
        ("evaluate --model calm --weights int7", "Unknown weights 'int7'", "int8"),
        ("attack --device cdua", "Unknown device 'cdua'", "cuda"),
        ("attack --format cvs", "Unknown table format 'cvs'", "csv"),
        ("evaluate --confidence entropi", "Unknown confidence measure 'entropi'", "entropy"),
        ("train --model deebret", "Unknown model family 'deebret'", "deebert"),
        ("train --strategy two-stages", "Unknown training strategy 'two-stages'", "two-stage"),
        ("train --pooling means", "Unknown pooling 'means'", "mean"),
        ("train --save-dtype float61", "Unknown dtype 'float61'", "float16"),
        ("plot slowdwn", "Unknown figure 'slowdwn'", "slowdown"),
        ("results list --command atack", "Unknown recorded command 'atack'", "attack"),
        ("atack", "No such command 'atack'", "attack"),
        ("attack --reciepe same-token", "No such option: --reciepe", "--recipe"),
    ],
)
def test_unknown_name_suggests_the_nearest(eexit, arguments, complaint, nearest) -> None:
    done = eexit(*arguments.split())
    message, hint = _error(done)
    assert (done.code, message) == (2, complaint)
    assert nearest in hint
    assert hint.startswith("Did you mean")


def test_all_recipes_and_one_more_are_one_clear_line(eexit) -> None:
    done = eexit("attack", "--recipe", "all,random")
    message, hint = _error(done)
    assert (done.code, message) == (2, "--recipe all stands alone")
    assert "names" in hint


def test_unknown_model_suggests_the_nearest(eexit, tiny_model, monkeypatch) -> None:
    monkeypatch.setenv("EEXIT_MODELS_DIR", str(tiny_model.parent))
    done = eexit("evaluate", "--model", "tinny")
    message, hint = _error(done)
    assert (done.code, message) == (2, "Unknown model 'tinny'")
    assert "tiny" in hint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("attack --lam 3", "--lam"),
        ("attack --lam nan", "--lam"),
        ("attack --lam inf", "--lam"),
        ("train --learning-rate nan", "--learning-rate"),
        ("attack --limit -1", "--limit"),
        ("attack --limit two", "--limit"),
        ("attack --top-n 0", "--top-n"),
        ("attack --workers 0", "--workers"),
        ("attack --query-budget 0", "--query-budget"),
        ("attack --prefix-length 0", "--prefix-length"),
        ("attack --similarity 1.5", "--similarity"),
        ("attack --threshold -0.1", "--threshold"),
        ("attack --threshold nan", "--threshold"),
        ("attack --patience -1", "--patience"),
        ("attack --static-layer 0", "--static-layer"),
        ("attack --change-rate 1.5", "--change-rate"),
        ("attack --threshold", "--threshold"),
    ],
)
def test_value_outside_its_range(eexit, arguments, words) -> None:
    done = eexit(*arguments.split())
    message, _ = _error(done)
    assert done.code == 2
    assert words in message


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        ("attack --threshold 0.1 --patience 3", "--threshold", "--patience"),
        ("attack --patience 3 --static-layer 2", "--patience", "--static-layer"),
        ("evaluate --voting 1.5 --threshold 0.2", "--threshold", "--voting"),
        ("evaluate --confidence margin --patience 2", "--confidence", "--patience"),
        (
            "evaluate --regression-tolerance 1 --threshold 2",
            "--regression-tolerance",
            "--threshold",
        ),
        ("attack --json --quiet", "--json", "--quiet"),
        ("attack --json --format csv", "--json", "--format"),
        ("attack --data-file a.csv --data-dir b", "--data-file", "--data-dir"),
    ],
)
def test_options_that_contradict_each_other(eexit, arguments, first, second) -> None:
    done = eexit(*arguments.split())
    message, _ = _error(done)
    assert (done.code, message) == (2, f"{first} and {second} exclude each other")


@pytest.mark.parametrize("option", ["--text-column", "--text-pair-column", "--label-column"])
def test_no_option_is_silently_ignored(eexit, option) -> None:
    done = eexit("attack", option, "body")
    message, _ = _error(done)
    assert (done.code, message) == (2, f"{option} says nothing without --data-file")


@pytest.mark.parametrize("command", ["attack", "evaluate"])
def test_threshold_outside_the_measures_range(eexit, tiny_model, reviews, command) -> None:
    options = ("--model", tiny_model, "--data-file", reviews)
    done = eexit(command, *options, "--confidence", "margin", "--threshold", 1.5)
    message, _ = _error(done)
    assert done.code == 2
    assert "1.5" in message
    assert not (Path.cwd() / "results").exists()


def test_static_layer_that_the_model_lacks(eexit, tiny_model, reviews) -> None:
    done = eexit("evaluate", "--model", tiny_model, "--data-file", reviews, "--static-layer", 9)
    message, hint = _error(done)
    assert done.code == 2
    assert "9" in message
    assert "1..4" in hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("body,label\nfine,positive\n", "text"),
        ("text,label\nfine,positive\n ,negative\n", "empty"),
        ("text,label\nfine,positive\nbad,wrong\n", "wrong"),
    ],
    ids=["no such column", "empty text", "label outside the classes"],
)
def test_bad_data_file(eexit, tiny_model, tmp_path, content, words) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content, encoding="utf-8")
    done = eexit("evaluate", "--model", tiny_model, "--data-file", path)
    message, hint = _error(done)
    assert done.code == 2
    assert words in f"{message} {hint}"
    assert not (tmp_path / "results").exists()


def test_missing_data_file(eexit, tiny_model) -> None:
    done = eexit("evaluate", "--model", tiny_model, "--data-file", "nowhere.csv")
    message, _ = _error(done)
    assert done.code in (2, 3)
    assert "nowhere.csv" in message


def test_folder_that_is_no_model(eexit, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    done = eexit("evaluate", "--model", "./empty")
    message, _ = _error(done)
    assert done.code in (1, 3)
    assert "empty" in message


def test_truncated_weights(eexit, tiny_model, reviews, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    done = eexit("evaluate", "--model", broken, "--data-file", reviews)
    message, _ = _error(done)
    assert done.code == 1
    assert "model.safetensors" in message
    assert not (tmp_path / "results").exists()


def test_results_folder_that_is_a_file(eexit, tiny_model, reviews, tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    options = ("--model", tiny_model, "--data-file", reviews, "--results-dir", "taken")
    done = eexit("evaluate", *options)
    message, hint = _error(done)
    assert done.code == 2
    assert "taken" in message
    assert "--results-dir" in hint


def _fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from eexit_cli.pipelines import evaluate

    def fail(config, *, progress=None, **others):
        raise error

    monkeypatch.setattr(evaluate, "run_evaluation", fail)


def test_no_write_permission_for_real(eexit, tiny_model, reviews, tmp_path, monkeypatch) -> None:
    """The system's own refusal. The superuser may write anywhere, so mkdir refuses for it."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        make = Path.mkdir

        def refuse(self: Path, *arguments, **settings):
            if locked in self.parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return make(self, *arguments, **settings)

        monkeypatch.setattr(Path, "mkdir", refuse)
    options = ("--model", tiny_model, "--data-file", reviews, "--results-dir", locked / "results")
    done = eexit("evaluate", *options)
    message, hint = _error(done)
    assert done.code == 1
    assert "permission" in message
    assert str(locked) in message
    assert "--results-dir" in hint
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "results/x/records.jsonl"),
            "disk is full",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "results/x/records.jsonl"), "disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "results/x/records.jsonl"), "read-only"),
    ],
    ids=["ENOSPC", "EDQUOT", "EROFS"],
)
def test_system_refuses_to_write(eexit, monkeypatch, error, words) -> None:
    _fails_with(monkeypatch, error)
    done = eexit("evaluate")
    message, hint = _error(done)
    assert done.code == 1
    assert words in message
    assert "results/x/records.jsonl" in message
    assert "--results-dir" in hint


def test_full_disk_behind_a_librarys_own_error(eexit, monkeypatch) -> None:
    """safetensors and torch only pass on the system's words, or chain its error."""
    _fails_with(monkeypatch, RuntimeError("I/O error: No space left on device (os error 28)"))
    done = eexit("evaluate")
    assert done.code == 1
    assert _error(done)[0].startswith("The disk is full")
    chained = RuntimeError("PytorchStreamWriter failed writing file")
    chained.__context__ = OSError(errno.ENOSPC, "No space left on device")
    _fails_with(monkeypatch, chained)
    done = eexit("evaluate")
    assert done.code == 1
    assert _error(done)[0].startswith("The disk is full")


def test_bug_keeps_its_traceback(eexit, monkeypatch) -> None:
    _fails_with(monkeypatch, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        eexit("evaluate")


def test_error_codes_and_lines(eexit, monkeypatch) -> None:
    _fails_with(monkeypatch, MissingArtifactError("No such\n thing", hint="Make it: eexit train"))
    done = eexit("evaluate")
    assert done.code == 3
    assert done.err.endswith("Error: No such thing\nHint: Make it: eexit train\n")
    _fails_with(monkeypatch, EexitError("It failed"))
    done = eexit("evaluate")
    assert done.code == 1
    assert done.err.endswith("Error: It failed\n")


@pytest.mark.parametrize("how", ["--debug", "environment"])
def test_traceback_only_when_asked_for(eexit, monkeypatch, how) -> None:
    _fails_with(monkeypatch, EexitError("It failed"))
    if how == "environment":
        monkeypatch.setenv("EEXIT_DEBUG", "1")
    done = eexit("evaluate", *(["--debug"] if how == "--debug" else []))
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.endswith("Error: It failed\n")


def test_interrupt_without_a_run(eexit, monkeypatch) -> None:
    _fails_with(monkeypatch, KeyboardInterrupt())
    done = eexit("evaluate")
    assert (done.code, done.out) == (INTERRUPTED, "")
    assert done.err.splitlines()[-1] == "Interrupted"


@pytest.mark.parametrize("begun", [False, True])
def test_interrupted_training_names_the_command_that_goes_on(
    eexit, monkeypatch, tmp_path, begun
) -> None:
    from eexit_cli.pipelines import train

    def interrupt(config, *, progress=None, **others):
        if begun:
            (tmp_path / "mine.training").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_training", interrupt)
    done = eexit("train", "--output", "mine")
    assert done.code == INTERRUPTED
    resume = ". Go on with: eexit train --output mine --resume" if begun else ""
    assert done.err.splitlines()[-1] == f"Interrupted{resume}"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ([], ". Go on with: eexit attack --resume {run}"),
        (
            ["--results-dir", "my runs"],
            ". Go on with: eexit attack --resume {run} --results-dir 'my runs'",
        ),
        (["--transfer", "latest"], ""),
    ],
)
def test_interrupted_attack_hints_at_resume_only_where_that_works(
    eexit, monkeypatch, options, hint
) -> None:
    from eexit_cli.pipelines.attack import run as attack
    from eexit_cli.store.results import ResultStore

    begun = []

    def interrupt(config, *, progress=None, **others):
        with ResultStore(config.results_dir).create("attack", config.as_dict()) as run:
            begun.append(run.id)
            raise KeyboardInterrupt

    monkeypatch.setattr(attack, "run_attack", interrupt)
    done = eexit("attack", "--model", "deebert", *options)
    assert done.code == INTERRUPTED
    assert done.err.splitlines()[-1] == f"Interrupted{hint.format(run=begun[0])}"


@pytest.mark.parametrize(
    ("options", "message", "advice"),
    [
        (
            ["--transfer", "a-run,b-run"],
            "--transfer takes one run, not 'a-run,b-run'",
            "Repeat it: --transfer a-run --transfer b-run",
        ),
        (
            ["--model", "deebert,pabee"],
            "An attack takes one model, not 'deebert,pabee'",
            "Lists of models work only with --transfer RUN, which replays a run's inputs",
        ),
    ],
)
def test_lists_where_one_name_belongs(eexit, options, message, advice) -> None:
    done = eexit("attack", *options)
    assert (done.code, *_error(done)) == (2, message, advice)


def test_the_readme_names_every_exit_code() -> None:
    from eexit_cli.core import errors

    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text("utf-8").split())
    codes = readme.partition("Exit codes: ")[2].partition(". ")[0]
    known = {value for name, value in vars(errors).items() if name.isupper() and type(value) is int}
    known |= {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
    assert all(f"{code} " in codes for code in known | {0})


def test_an_unfinished_replay_starts_again(eexit, tmp_path) -> None:
    from eexit_cli.store.results import ResultStore

    settings = {"model": "deebert,pabee", "transfer": ["a-run", "b-run"]}
    with ResultStore(tmp_path / "results").create("attack", settings) as run:
        pass
    _, hint = _error(eexit("results", "show", run.id))
    assert hint == (
        "Start it again: eexit attack --transfer a-run --transfer b-run --model deebert,pabee"
    )


def test_unfinished_run_is_not_shown_but_named(eexit, tmp_path) -> None:
    from eexit_cli.store.results import ResultStore

    with ResultStore(tmp_path / "results").create("attack", {"model": "deebert"}) as run:
        pass
    done = eexit("results", "show", run.id)
    message, hint = _error(done)
    assert (done.code, message) == (3, f"Run '{run.id}' is not finished")
    assert hint == f"Go on with: eexit attack --resume {run.id}"


def test_closed_pipe_is_no_error(eexit_process, tmp_path) -> None:
    """``eexit models list | head -0``: quiet, whatever the exit code."""
    import subprocess
    import sys

    writer = subprocess.Popen(
        [sys.executable, "-m", "eexit_cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    writer.wait()


def test_nothing_is_printed_to_stdout_by_a_failure(eexit_process) -> None:
    done = eexit_process("attack", "--model", "no-such-model", "--json")
    assert (done.code, done.out) == (2, "")
    assert "Error: Unknown model 'no-such-model'" in done.err


def test_json_document_survives_when_stderr_talks(eexit_process, tmp_path) -> None:
    done = eexit_process("results", "list", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {"runs": []}
