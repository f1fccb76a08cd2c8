"""Several recipes in one table, several workers, whatever dies: the same samples and records."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attacks_tiny import ENTROPY_EXIT, TEXTS, save_classifier
from pebble.pool.process import PoolManager

from eexit_cli.attacks import ATTACKS, wordnet_env
from eexit_cli.attacks.recipe import Recipe
from eexit_cli.config import AttackConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress, SilentTicker
from eexit_cli.core.seed import stream
from eexit_cli.engine import Job, Work, processes
from eexit_cli.engine.processes import Processes
from eexit_cli.metrics.depth import gain_removed
from eexit_cli.pipelines.attack.attacker import Task, attacking
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.store.results import ResultStore

WORDS = [word for text in TEXTS for word in text.split()]
RECIPES = "same-token,deepwordbug,random"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("model"), ENTROPY_EXIT)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.jsonl"
    draw = stream(3, "reviews")
    rows = [
        {"text": " ".join(draw.choices(WORDS, k=draw.randint(3, 14))), "label": label}
        for label in ("negative", "positive") * 6
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(model_folder: Path, data_file: Path, tmp_path: Path) -> AttackConfig:
    return AttackConfig(
        model=str(model_folder),
        data_file=data_file,
        recipe=RECIPES,
        limit=8,
        top_n=8,
        beam_width=2,
        per_size=3,
        query_budget=60,
        results_dir=tmp_path / "results",
    )


DEFAULTS = AttackConfig()
SEARCH = ("top_n", "beam_width", "per_size")


def alone(config: AttackConfig, recipe: str) -> AttackConfig:
    """One recipe, with the settings that it reads."""
    unread = [name for name in SEARCH if name not in ATTACKS.load(recipe).reads]
    plain = {name: getattr(DEFAULTS, name) for name in unread}
    return replace(config, recipe=recipe, **plain)


def records_of(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """By recipe and sample, without the seconds, which no two runs share."""
    found = {}
    for line in (path / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        key = (record["recipe"], record["id"])
        assert key not in found, "attacked twice"
        found[key] = {name: value for name, value in record.items() if name != "seconds"}
    return found


class Hears(SilentProgress):
    """Remembers messages; calls ``at_record`` with the number of records so far."""

    def __init__(self, at_record: Any = None) -> None:
        self.heard: list[str] = []
        self.at_record = at_record
        self.records = 0

    def message(self, text: str) -> None:
        self.heard.append(text)

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[SilentTicker]:
        progress = self

        class Ticker(SilentTicker):
            def advance(self, steps: int = 1, note: str | None = None) -> None:
                if note and progress.at_record and title.startswith("Attack"):
                    progress.records += 1
                    progress.at_record(progress.records)

        yield Ticker()


def test_every_recipe_attacks_the_same_samples_within_one_budget(config: AttackConfig) -> None:
    result = run_attack(config)
    document, records = result.document, records_of(result.path)
    names = RECIPES.split(",")
    assert [row["recipe"] for row in document["rows"]] == names
    ids = {name: [i for recipe, i in records if recipe == name] for name in names}
    assert ids["same-token"] == ids["deepwordbug"] == ids["random"]
    assert len(ids["random"]) == 8
    before = {name: [records[name, i]["exit_layer_before"] for i in ids[name]] for name in names}
    assert before["same-token"] == before["deepwordbug"] == before["random"]
    for record in records.values():
        assert record["queries"] + record["gradient_passes"] <= 60
        assert record["progress"][-1][0] <= 60
        assert record["progress"][-1][1] == record["exit_layer_after"]
        assert [spent for spent, _ in record["progress"]] == sorted(
            spent for spent, _ in record["progress"]
        )
    for row in document["rows"]:
        own = [records[row["recipe"], i] for i in ids[row["recipe"]]]
        asks = any(record["gradient_passes"] for record in own)
        assert asks == ATTACKS.load(row["recipe"]).gradients
        after = sum(record["exit_layer_after"] for record in own) / len(own)
        assert row["mean_exit_layer_after"] == pytest.approx(after)
        assert row["gain_removed"] == pytest.approx(
            gain_removed(row["mean_exit_layer_before"], after, 5)
        )
        assert row["gain_removed_low"] <= row["gain_removed"] <= row["gain_removed_high"]
        assert row["latency_ms_after"] > 0
    best = max(document["rows"], key=lambda row: row["gain_removed"])
    assert document["report"]["metrics_of"] == best["recipe"]
    assert document["metrics"]["gain_removed"] == best["gain_removed"]
    pairs = document["report"]["comparisons"]
    assert [(pair["recipe"], pair["against"]) for pair in pairs] == [
        ("same-token", "deepwordbug"),
        ("same-token", "random"),
        ("deepwordbug", "random"),
    ]
    gains = {row["recipe"]: row["gain_removed"] for row in document["rows"]}
    for pair in pairs:
        difference = gains[pair["recipe"]] - gains[pair["against"]]
        assert pair["difference_gain"] == pytest.approx(difference)
        assert pair["p_value"] <= pair["p_holm"] <= 1


def test_a_recipe_in_a_table_has_the_records_that_it_has_alone(config: AttackConfig) -> None:
    table = records_of(run_attack(config).path)
    for name in RECIPES.split(","):
        single = records_of(run_attack(alone(config, name)).path)
        assert single == {key: value for key, value in table.items() if key[0] == name}


def test_baselines_change_answers_and_skip_what_is_wrong(config: AttackConfig) -> None:
    hears = Hears()
    result = run_attack(replace(alone(config, "deepwordbug"), limit=0), progress=hears)
    records = records_of(result.path).values()
    skipped = [record for record in records if record["status"] == "skipped"]
    assert skipped
    for record in skipped:
        assert record["reason"] == "misclassified"
        assert record["prediction_before"] != record["label"]
        assert record["perturbed_text"] == record["text"]
    assert any("are misclassified already" in line for line in hears.heard)
    won = [record for record in records if record["goal_reached"]]
    assert won
    for record in won:
        assert record["prediction_before"] == record["label"]
    row = result.document["rows"][0]
    attacked = len(records) - len(skipped)
    assert row["goal_success_rate"] == pytest.approx(len(won) / attacked)
    assert row["attacked"] == attacked
    assert row["samples"] == len(records)
    own = [record for record in records if record["status"] == "attacked"]
    added = sum(record["exit_layer_after"] - record["exit_layer_before"] for record in own)
    for name, saving in (("gain_removed", records), ("gain_removed_attacked", own)):
        # Samples that were not attacked add no layers, but what they save counts among all.
        saved = sum(5 - record["exit_layer_before"] for record in saving)
        assert row[name] == pytest.approx(added / saved)
    assert row["gain_removed_attacked"] != row["gain_removed"]


def test_what_cannot_run_here_is_a_row_and_not_a_crash(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet_env, "wordnet_is_there", lambda: False)
    recipe: Recipe = ATTACKS.load("textfooler")
    if recipe.missing is None or recipe.missing() is None:
        pytest.skip("this machine has all that TextFooler needs")
    hears = Hears()
    result = run_attack(
        replace(alone(config, "random"), recipe="random,textfooler"), progress=hears
    )
    done, lacking = result.document["rows"]
    assert "status" not in done
    assert set(lacking) == {"recipe", "status"}
    assert lacking["status"].startswith("needs counter-fitted vectors")
    assert any(line.startswith("textfooler is left out") for line in hears.heard)
    assert result.document["metrics"]["gain_removed"] == done["gain_removed"]
    with pytest.raises(MissingArtifactError, match="'textfooler' cannot run here") as raised:
        run_attack(alone(config, "textfooler"))
    assert "--list-recipes" in str(raised.value.hint)


def test_what_is_there_and_does_not_load_is_a_row_and_not_a_crash(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: Recipe = ATTACKS.load("textfooler")

    def half_there(*arguments: Any) -> Any:
        raise OSError("no file named\n  paragram.npy")

    broken = replace(recipe, missing=lambda: None, build=half_there)
    load = type(ATTACKS).load
    monkeypatch.setattr(
        type(ATTACKS),
        "load",
        lambda self, name: broken if name == "textfooler" else load(self, name),
    )
    hears = Hears()
    result = run_attack(
        replace(alone(config, "random"), recipe="random,textfooler"), progress=hears
    )
    done, lacking = result.document["rows"]
    assert done["samples"] == result.document["metrics"]["samples"]
    assert lacking == {
        "recipe": "textfooler",
        "status": "does not start here: OSError: no file named paragram.npy",
    }
    with pytest.raises(MissingArtifactError, match="'textfooler' does not start here: OSError"):
        run_attack(alone(config, "textfooler"))


def test_a_table_has_one_budget_although_no_recipe_has_one(config: AttackConfig) -> None:
    config = replace(config, query_budget=None, limit=2)
    both = alone(replace(config, beam_width=DEFAULTS.beam_width), "random")
    result = run_attack(replace(both, recipe="deepwordbug,random"))
    assert result.document["config"]["query_budget"] == 1000
    assert run_attack(alone(config, "random")).document["config"]["query_budget"] is None


def test_a_broken_off_table_is_resumed(config: AttackConfig) -> None:
    whole = run_attack(config)

    def interrupt(records: int) -> None:
        if records == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=Hears(interrupt))
    (broken,) = [run for run in ResultStore(config.results_dir).list() if run.status != "finished"]
    assert len(records_of(broken.path)) == 11
    resumed = run_attack(AttackConfig(resume=broken.id, results_dir=config.results_dir))
    assert records_of(resumed.path) == records_of(whole.path)
    rows = zip(resumed.document["rows"], whole.document["rows"], strict=True)
    assert all(one["gain_removed"] == other["gain_removed"] for one, other in rows)


def test_two_workers_give_the_records_of_one_although_one_is_killed(config: AttackConfig) -> None:
    one = run_attack(replace(config, workers=1))
    killed = []

    class Kills(Processes):
        def __enter__(self) -> Processes:
            pool = super().__enter__()
            assert isinstance(pool, Processes)

            def kill(records: int) -> None:
                if records in (2, 9):
                    # The other one may have finished seven samples before a death is heard.
                    killed.append(next(pid for pid in pool.pids if pid not in killed))
                    os.kill(killed[-1], signal.SIGKILL)

            hears.at_record = kill
            return pool

    hears = Hears()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "Processes", Kills)
        two = run_attack(replace(config, workers=2), progress=hears)
    assert len(killed) == 2
    assert sum(line.startswith("A worker died (killed by SIGKILL)") for line in hears.heard) == 2
    assert records_of(two.path) == records_of(one.path)
    assert two.document["timings"]["workers_startup_seconds"] > 0
    assert two.document["report"]["padding_factor"] >= 1
    assert two.document["report"]["engine"] == {
        "engine": "local",
        "workers": 2,
        "nodes": 1,
        "deaths": 2,
        "failed": 0,
    }
    for pid in killed:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def killing(monkeypatch: pytest.MonkeyPatch, spared: int = 0) -> None:
    """Workers die as they are given a sample, but for so many samples in the beginning."""
    real, given = Processes.give, []

    def give_and_kill(self: Processes, worker: Any, job: Job) -> None:
        if job.name not in given:
            given.append(job.name)
        real(self, worker, job)
        if given.index(job.name) >= spared:
            os.kill(worker.handle.pids[0], signal.SIGKILL)

    monkeypatch.setattr(Processes, "give", give_and_kill)


def test_a_sample_that_kills_every_worker_is_one_line(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing(monkeypatch)
    with pytest.raises(EexitError, match="No sample was attacked to its end") as raised:
        run_attack(replace(alone(config, "random"), workers=2, limit=1))
    assert "cost 3 workers, the last one killed by SIGKILL" in raised.value.message
    assert "resume" in str(raised.value.hint)
    monkeypatch.undo()
    resumed = run_attack(AttackConfig(resume="latest", results_dir=config.results_dir, workers=1))
    assert len(records_of(resumed.path)) == 1


def test_workers_that_cannot_start_are_one_line(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "environment", lambda: {"PYTHONHOME": "/nowhere"})
    with pytest.raises(EexitError, match="die as they start"):
        run_attack(replace(alone(config, "random"), workers=2))


@pytest.mark.parametrize("ready", [0, 2])
def test_a_job_that_a_dead_process_never_saw_is_no_wait_for_ever(
    ready: int, config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pebble's pool breaks before its thread has read the job from the queue."""
    real, given = PoolManager.schedule, []

    def late(self: PoolManager, task: Any) -> None:
        given.append(task)
        if len(given) in (ready + 1, ready + 2):  # the first two places, in one case their jobs
            (process,) = self.worker_manager.workers.values()
            process.kill()
            process.join()
            while self.context.alive:
                time.sleep(0.01)
            return
        real(self, task)

    monkeypatch.setattr(PoolManager, "schedule", late)
    run = run_attack(replace(alone(config, "random"), workers=2, limit=2))
    assert len(list(run.records())) == 2
    assert run.document["report"]["engine"]["deaths"] == 2


def test_a_failed_sample_is_named_and_the_others_count(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sample is attacked; whoever takes another one dies."""
    whole = run_attack(replace(alone(config, "random"), limit=2))
    killing(monkeypatch, spared=1)
    hears = Hears()
    run = run_attack(replace(alone(config, "random"), workers=2, limit=2), progress=hears)
    ((record),) = run.records()
    assert record["id"] in {each["id"] for each in whole.records()}
    (failed,) = run.document["report"]["failed"]
    assert failed["recipe"] == "random"
    assert {failed["id"], record["id"]} == {each["id"] for each in whole.records()}
    assert run.document["report"]["engine"]["deaths"] == 3
    assert run.document["metrics"]["samples"] == 1
    (told,) = [line for line in hears.heard if "left out of every figure" in line]
    assert told.startswith(
        f"1 of 2 samples failed and are left out of every figure: '{failed['id']}'"
    )


def test_a_sample_past_its_time_fails_alone(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is stopped does nothing until it is ended."""
    real, stopped = Processes.give, []

    def give_and_stop(self: Processes, worker: Any, job: Job) -> None:
        real(self, worker, job)
        if not stopped:
            stopped.append(job.name)
            os.kill(worker.handle.pids[0], signal.SIGSTOP)

    monkeypatch.setattr(Processes, "give", give_and_stop)
    run = run_attack(replace(alone(config, "random"), sample_timeout=20.0, limit=3))
    (failed,) = run.document["report"]["failed"]
    assert failed["reason"] == "took longer than 20 s"
    assert f"sample '{failed['id']}' of random" == stopped[0]
    assert len(list(run.records())) == 2


def test_an_error_in_a_worker_is_the_error_of_the_run(config: AttackConfig) -> None:
    sample = {"id": "1", "text": "a film", "label": 0}
    with (
        pytest.raises(UsageError, match="Unknown attack recipe 'nothing'"),
        Processes(Work(attacking, (config,)), 1) as engine,
    ):
        list(engine.run([Job("1", Task("nothing", sample, None))]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "same-token,nothing"}, "Unknown attack recipe 'nothing'"),
        ({"recipe": "deepwordbug", "top_n": 5}, "--top-n says nothing to deepwordbug"),
        ({"recipe": "same-token", "alpha": 0.25}, "--alpha says nothing to same-token"),
        ({"workers": 0}, "--workers 0 is outside its range"),
        ({"query_budget": 0}, "--query-budget 0 leaves nothing"),
        ({"defences": True}, "--defences says nothing without --transfer"),
        ({"recipe": "random", "compat": "upstream"}, "has no --compat upstream"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    config: AttackConfig, options: dict[str, Any], message: str
) -> None:
    plain = {name: getattr(DEFAULTS, name) for name in SEARCH}
    with pytest.raises(UsageError, match=message):
        run_attack(replace(config, **{**plain, **options}))
    assert not config.results_dir.exists()


def test_a_recipe_for_another_family_is_one_clear_line(
    config: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = replace(ATTACKS.load("random"), family="decoder")
    load = ATTACKS.load
    monkeypatch.setattr(ATTACKS, "load", lambda name: decoder if name == "random" else load(name))
    with pytest.raises(UsageError, match="Recipe 'random' attacks decoders") as raised:
        run_attack(alone(config, "random"))
    assert "same-token" in str(raised.value.hint)
    assert "random" not in str(raised.value.hint)


def test_a_prefix_is_learned_once_on_texts_that_are_not_reported(config: AttackConfig) -> None:
    config = replace(
        alone(config, "universal"), top_n=8, beam_width=2, per_size=2, prefix_length=2, limit=6
    )
    whole = run_attack(config)
    row = whole.document["rows"][0]
    learned = json.loads((whole.path / "learned.json").read_text())["learned"]["universal"]
    assert row["prefix"] == learned["prefix"]
    assert row["search_queries"] == learned["queries"] > 0
    reported = {record["text"] for record in whole.records()}
    for record in whole.records():
        assert record["queries"] <= 2
        if record["status"] == "attacked":
            assert record["perturbed_text"].endswith(record["text"])
    every = [json.loads(line)["text"] for line in config.data_file.open()]  # type: ignore[union-attr]
    assert learned["search_samples"] == len(set(every) - reported)

    def interrupt(records: int) -> None:
        if records == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=Hears(interrupt))
    (broken,) = [run for run in ResultStore(config.results_dir).list() if run.status != "finished"]
    path = broken.path / "learned.json"
    content = json.loads(path.read_text())
    assert content["learned"]["universal"]["prefix"] == learned["prefix"]
    # Another prefix in the file is the one that the rest is attacked with: nothing is learned anew.
    content["learned"]["universal"]["prefix"] = "awful awful"
    path.write_text(json.dumps(content))
    resumed = run_attack(AttackConfig(resume=broken.id, results_dir=config.results_dir))
    later = list(resumed.records())[2:]
    assert any(record["perturbed_text"].startswith("awful awful") for record in later)


def test_no_text_left_to_learn_on_is_one_clear_line(config: AttackConfig) -> None:
    config = replace(alone(config, "universal"), top_n=8, prefix_length=1, limit=0)
    with pytest.raises(UsageError, match="No texts are left to learn a prefix on") as raised:
        run_attack(config)
    assert "--limit" in str(raised.value.hint)


def test_an_ordered_recipe_is_repeated_when_resumed_and_has_one_worker(
    config: AttackConfig,
) -> None:
    config = replace(
        alone(config, "same-token"), compat="upstream", top_n=8, beam_width=2, per_size=2
    )
    config = replace(config, limit=5, query_budget=None)
    assert ATTACKS.load("same-token").is_ordered(config)
    with pytest.raises(UsageError, match="one worker only"):
        run_attack(replace(config, workers=2))
    whole = run_attack(config)

    def interrupt(records: int) -> None:
        if records == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(config, progress=Hears(interrupt))
    hears = Hears()
    (broken,) = [run for run in ResultStore(config.results_dir).list() if run.status != "finished"]
    resumed = run_attack(
        AttackConfig(resume=broken.id, results_dir=config.results_dir), progress=hears
    )
    assert records_of(resumed.path) == records_of(whole.path)
    assert any("in order" in line for line in hears.heard)
