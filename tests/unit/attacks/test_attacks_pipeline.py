"""``run_attack`` from a model folder and a data file to a finished run, broken off and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from attacks_tiny import TEXTS, Listens, save_classifier
from textattack.shared import AttackedText

from eexit_cli.attacks import ATTACKS
from eexit_cli.config import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentTicker
from eexit_cli.core.seed import stream
from eexit_cli.pipelines.attack.run import list_recipes, run_attack
from eexit_cli.store.results import ResultStore

WORDS = [word for text in TEXTS for word in text.split()]


def write_model(folder: Path, *, classes: int = 2, **exit_defaults: Any) -> Path:
    names = ("negative", "positive", "neutral")[:classes]
    return save_classifier(folder, exit_defaults, names=names)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("model"),
        criterion="threshold",
        confidence="entropy",
        threshold=0.55,
    )


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.jsonl"
    draw = stream(3, "reviews")
    rows = [
        {"text": " ".join(draw.choices(WORDS, k=draw.randint(3, 14))), "label": label}
        for label in ("negative", "positive") * 7
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(model_folder: Path, data_file: Path, tmp_path: Path) -> AttackConfig:
    return AttackConfig(
        model=str(model_folder),
        data_file=data_file,
        limit=12,
        top_n=12,
        beam_width=2,
        per_size=3,
        results_dir=tmp_path / "results",
    )


def records_of(path: Path) -> list[dict[str, Any]]:
    """Without the seconds, which no two runs share."""
    lines = (path / "records.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in lines
    ]


class StopsAfter(Listens):
    """Ctrl-C after so many samples."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.left = samples

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[SilentTicker]:
        progress = self

        class Ticker(SilentTicker):
            def advance(self, steps: int = 1, note: str | None = None) -> None:
                progress.left -= steps if note else 0
                if progress.left == 0:
                    raise KeyboardInterrupt

        yield Ticker()


@pytest.mark.parametrize("recipe", ["same-token", "same-char"])
def test_a_run_has_records_and_metrics_that_agree(config: AttackConfig, recipe: str) -> None:
    listens = Listens()
    result = run_attack(replace(config, recipe=recipe), progress=listens)
    records, metrics = records_of(result.path), result.document["metrics"]
    assert len(records) == metrics["samples"] == 12
    assert any("12 of the 14" in line for line in listens.heard)
    attacked = [record for record in records if record["status"] == "attacked"]
    skipped = [record for record in records if record["status"] == "skipped"]
    assert attacked
    assert skipped
    assert (metrics["attacked"], metrics["skipped"]) == (len(attacked), len(skipped))
    assert any(f"{len(skipped)} of 12" in line for line in listens.heard)
    for record in skipped:
        assert record["perturbed_text"] == record["text"]
        assert record["exit_layer_before"] == record["exit_layer_after"] == metrics["num_layers"]
        assert record["queries"] == 1
        assert record["changed_words"] == []
    for record in attacked:
        words = AttackedText(record["text"]).words
        assert record["exit_layer_after"] >= record["exit_layer_before"]
        for change in record["changed_words"]:
            assert change["from"] == words[change["position"]]
            words[change["position"]] = change["to"]
        assert AttackedText(record["perturbed_text"]).words == words
    mean = sum(record["exit_layer_after"] for record in records) / 12
    assert metrics["mean_exit_layer_after"] == pytest.approx(mean)
    right = sum(record["prediction_before"] == record["label"] for record in records)
    assert metrics["accuracy_before"] == pytest.approx(right / 12)
    before = metrics["mean_exit_layer_before"]
    assert metrics["gain_removed"] == pytest.approx((mean - before) / (5 - before))
    assert metrics["queries_mean"] == pytest.approx(
        sum(record["queries"] for record in attacked) / len(attacked)
    )
    for when in ("before", "after"):
        assert metrics[f"latency_ms_{when}"] > 0
        low, speed, high = (metrics[f"speedup_seconds{e}_{when}"] for e in ("_low", "", "_high"))
        assert 0 < low <= speed <= high
    assert (metrics["latency_samples"], metrics["timing_repeats"]) == (12, 5)
    assert result.document["rows"] == [{"recipe": recipe, "unit": "words", **metrics}]
    assert result.document["config"]["exit"]["threshold"] == 0.55


@pytest.mark.parametrize("recipe", ["same-token", "same-char"])
def test_broken_off_and_resumed_gives_the_records_of_an_unbroken_run(
    config: AttackConfig, recipe: str
) -> None:
    config = replace(config, recipe=recipe)
    whole = run_attack(config)
    stops = StopsAfter(4)
    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=stops)
    (broken,) = [run for run in ResultStore(config.results_dir).list() if run.status != "finished"]
    assert len(records_of(broken.path)) == 4
    assert stops.heard[-1].startswith("Stopped after 4 of ")
    resumed = run_attack(AttackConfig(resume=str(broken.path), results_dir=config.results_dir))
    assert resumed.path == broken.path
    assert records_of(resumed.path) == records_of(whole.path)
    timed = ("seconds", "latency_ms", "latency_full_ms")
    for name, value in whole.document["metrics"].items():
        if not any(part in name for part in timed):
            assert resumed.document["metrics"][name] == value


def test_a_sample_of_the_samples_has_the_same_records(config: AttackConfig) -> None:
    few = {r["id"]: r for r in records_of(run_attack(replace(config, limit=5)).path)}
    many = {r["id"]: r for r in records_of(run_attack(replace(config, limit=0)).path)}
    assert len(few) == 5
    assert len(many) == 14
    assert all(many[name] == record for name, record in few.items())


def test_resuming_with_other_options_is_refused(config: AttackConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=StopsAfter(2))
    changed = AttackConfig(resume="latest", results_dir=config.results_dir, top_n=7)
    with pytest.raises(UsageError, match="--top-n 7 differs from the run's 12"):
        run_attack(changed)
    # What is said holds, even where it is the default.
    default = AttackConfig(resume="latest", results_dir=config.results_dir)
    with pytest.raises(UsageError, match=f"--top-n {default.top_n} differs from the run's 12"):
        run_attack(default, explicit={"top_n"})
    same = AttackConfig(resume="latest", results_dir=config.results_dir, top_n=12)
    assert run_attack(same).document["metrics"]["samples"] == 12


def test_resuming_with_changed_data_is_refused(config: AttackConfig, tmp_path: Path) -> None:
    rows = [{"text": text, "label": "positive"} for text in TEXTS]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(config, data_file=path, task=None, limit=4)
    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=StopsAfter(2))
    path.write_text("".join(json.dumps(row) + "\n" for row in [rows[-1], *rows[:-1]]))
    with pytest.raises(UsageError, match=r"attacked another sample .* than the data have now"):
        run_attack(AttackConfig(resume="latest", results_dir=config.results_dir))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    resumed = run_attack(AttackConfig(resume="latest", results_dir=config.results_dir))
    assert resumed.document["metrics"]["samples"] == 4


def test_resuming_a_model_whose_exit_changed_is_refused(
    config: AttackConfig, tmp_path: Path
) -> None:
    settings = {"criterion": "threshold", "confidence": "entropy"}
    folder = write_model(tmp_path / "model", threshold=0.5, **settings)
    config = replace(config, model=str(folder))
    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=StopsAfter(2))
    write_model(folder, threshold=0.4, **settings)
    with pytest.raises(UsageError, match="was started with exit"):
        run_attack(AttackConfig(resume="latest", results_dir=config.results_dir))


def test_pairs_are_attacked(config: AttackConfig, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"text": first, "second": second, "label": "positive"}
        for first, second in zip(TEXTS, reversed(TEXTS), strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_attack(replace(config, data_file=path, text_pair_column="second", limit=0))
    records = records_of(result.path)
    assert sorted(record["text_pair"] for record in records) == sorted(TEXTS)
    changed = [
        record["perturbed_text"] != record["text"]
        or record["perturbed_text_pair"] != record["text_pair"]
        for record in records
    ]
    assert changed == [bool(record["changed_words"]) for record in records]
    assert any(changed)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"recipe": "same-tokn"}, "Unknown attack recipe", "same-token"),
        ({"query_budget": 0}, "--query-budget 0", "first query"),
        ({"top_n": 0}, "--top-n 0", "at least 1"),
        ({"beam_width": -1}, "--beam-width -1", "at least 1"),
        ({"per_size": 0}, "--per-size 0", "at least 1"),
        ({"lam": 1.5}, "--lam 1.5", "0.8"),
        ({"change_rate": 0.0}, "--change-rate 0.0", "0.1"),
        ({"static_layer": 2}, "static exit layer", "--threshold"),
    ],
)
def test_what_cannot_be_attacked_is_one_clear_line(
    config: AttackConfig, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        run_attack(replace(config, **options))
    assert hint in str(raised.value.hint)
    assert not config.results_dir.exists()


def test_regression_and_full_models_are_refused(config: AttackConfig, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": 0.5}) + "\n" for t in TEXTS))
    regression = write_model(tmp_path / "regression", classes=1)
    with pytest.raises(UsageError, match="regression"):
        run_attack(replace(config, model=str(regression), data_file=path))
    full = write_model(tmp_path / "full")
    with pytest.raises(UsageError, match="no exit setting") as raised:
        run_attack(replace(config, model=str(full)))
    assert "--patience" in str(raised.value.hint)


def test_inputs_that_use_all_layers_are_skipped_and_counted(config: AttackConfig) -> None:
    result = run_attack(replace(config, threshold=0.0, limit=4))
    metrics = result.document["metrics"]
    assert (metrics["attacked"], metrics["skipped"]) == (0, 4)
    assert metrics["gain_removed"] is None
    assert metrics["goal_success_rate"] is metrics["last_layer_rate"] is None


def test_listing_recipes_does_not_import_textattack() -> None:
    code = (
        "import sys; from eexit_cli.pipelines.attack.run import list_recipes; "
        "print([r['name'] for r in list_recipes()]); assert 'textattack' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "same-char" in done.stdout
    assert [row["name"] for row in list_recipes()] == list(ATTACKS)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"workers": 2}, {"workers": 3}),
        ({"workers": 2}, {"engine": "ray", "workers": 2}),
        ({"engine": "ray", "workers": 2}, {"engine": "local", "workers": 1}),
    ],
)
def test_killed_at_any_moment_it_resumes(
    config: AttackConfig, tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """And whoever worked for it goes with it."""
    whole = run_attack(config)
    killed = replace(config, results_dir=tmp_path / "killed", **before)
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(killed).items()
    }
    code = textwrap.dedent(
        f"""
        from eexit_cli.config import AttackConfig
        from eexit_cli.pipelines.attack.run import run_attack
        run_attack(AttackConfig(**{settings!r}))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        found = list(killed.results_dir.glob("*/records.jsonl"))
        if found and found[0].read_bytes().count(b"\n") >= 1:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) >= before.get("workers", 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    # Ray's agents look after their node every so often.
    _, alive = psutil.wait_procs(others, timeout=200)
    assert alive == []
    resumed = run_attack(AttackConfig(resume="latest", results_dir=killed.results_dir, **after))
    expected = {record["id"]: record for record in records_of(whole.path)}
    assert {record["id"]: record for record in records_of(resumed.path)} == expected


@pytest.mark.slow
def test_textattack_is_imported_offline_and_without_a_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    code = textwrap.dedent(
        """
        import os, socket
        def refuse(*args, **kwargs):
            raise AssertionError("tried to reach the network")
        socket.socket.connect = refuse
        before = dict(os.environ)
        from eexit_cli.attacks.textattack_env import prepare
        prepare()
        from textattack.constraints.pre_transformation import StopwordModification
        assert "the" in StopwordModification().stopwords
        for name in ("TA_CACHE_DIR", "HF_HOME", "XDG_CACHE_HOME", "TFHUB_CACHE_DIR"):
            assert os.environ.get(name) == before.get(name), name
        """
    )
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert not list(home.glob(".cache/textattack*"))
    assert "textattack" not in done.stderr.lower()
