"""Rows that a model was trained on say nothing about it: they are left out, whatever brings them.

Which rows those are is derived here from the file and the seed alone, not from what training noted.
"""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tiny_decoders import save_decoder
from training_tiny import GOOD, LETTERS, Listener, write_backbone

from eexit_cli.config import AttackConfig, CalibrateConfig, EvaluateConfig, TrainConfig
from eexit_cli.core.errors import EexitError, RiskNotControlledError, UsageError
from eexit_cli.data import load_examples
from eexit_cli.pipelines.attack.subject import open_subject
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.train import run_training
from eexit_cli.store.training_rows import (
    FILE,
    TrainingRows,
    digests_of,
    read_training_rows,
    write_training_rows,
)

TEXTS = 300


def _write(path: Path, rows: list[tuple[str, str]], columns: tuple[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


def _reviews(folder: Path) -> Path:
    chance = random.Random(3)
    rows = [
        (f"film {' '.join(chance.choices(LETTERS, k=6))} {n}", ("bad", "good")[n % 2])
        for n in range(TEXTS)
    ]
    return _write(folder / "reviews.csv", rows, ("review", "mood"))


def _config(folder: Path, **options: Any) -> TrainConfig:
    return TrainConfig(
        backbone=str(write_backbone(folder / "backbone", layers=2)),
        data_file=_reviews(folder),
        text_column="review",
        label_column="mood",
        epochs=0.1,
        output=folder / "mine",
        results_dir=folder / "results",
        device="cpu",
        **options,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    made = _config(tmp_path_factory.mktemp("seen"))
    run_training(made)
    return made


@pytest.fixture(scope="module")
def held_out(config: TrainConfig) -> set[str]:
    """Ids of the tenth that the seed sets aside."""
    examples = load_examples(replace(config, split="validation"), default_split="validation")
    return set(examples.dataset["id"])


def _options(config: TrainConfig, folder: Path, **more: Any) -> dict[str, Any]:
    common = {"results_dir": folder / "results", "device": "cpu", "latency_samples": 0}
    return {"model": str(config.output), "data_file": config.data_file, **common, **more}


def _ids(result: Any) -> set[str]:
    return {record["id"] for record in result.records()}


def test_evaluation_on_the_file_that_trained_it(
    config: TrainConfig, held_out: set[str], tmp_path: Path
) -> None:
    listener = Listener()
    options = _options(config, tmp_path)
    result = run_evaluation(EvaluateConfig(**options), progress=listener)
    assert _ids(result) == held_out
    assert len(held_out) == 30
    assert (
        "Left out 270 of 300 samples, which trained "
        f"'{config.output}'; 30 stay, of which 30 chose its default exit"
    ) in listener.messages
    assert result.document["config"]["training_rows"] == {
        "of": 300,
        "left_out": 270,
        "included": 0,
        "chose_the_exit": 30,
    }
    # Columns are as they were in training.
    assert result.document["config"]["text_column"] == "review"
    everything = run_evaluation(EvaluateConfig(**options, include_training_rows=True))
    assert len(_ids(everything)) == 300
    assert everything.document["config"]["training_rows"]["included"] == 270


def test_a_limit_counts_what_stays(config: TrainConfig, held_out: set[str], tmp_path: Path) -> None:
    result = run_evaluation(EvaluateConfig(**_options(config, tmp_path, limit=20)))
    assert len(_ids(result)) == 20
    assert _ids(result) <= held_out


def test_an_attack_leaves_them_out(config: TrainConfig, held_out: set[str], tmp_path: Path) -> None:
    options = _options(config, tmp_path, limit=0)
    del options["latency_samples"]
    subject = open_subject(AttackConfig(**options), Listener())
    assert {str(sample["id"]) for sample in subject.samples} == held_out
    assert subject.settings()["training_rows"]["left_out"] == 270


def test_the_same_texts_in_another_file_and_order_are_the_same_rows(
    config: TrainConfig, tmp_path: Path
) -> None:
    assert config.data_file is not None
    rows = list(csv.reader(config.data_file.open(encoding="utf-8")))[1:]
    new = [(f"quite new {n}", "good") for n in range(7)]
    other = _write(tmp_path / "other.csv", [*new, *map(tuple, rows[::-1])], ("text", "label"))
    result = run_evaluation(EvaluateConfig(**_options(config, tmp_path, data_file=other)))
    assert len(_ids(result)) == 30 + 7


def test_a_calibration_takes_none_of_them_and_says_when_too_few_stay(
    config: TrainConfig, held_out: set[str], tmp_path: Path
) -> None:
    options = _options(config, tmp_path, store=False)
    # 15 of the 30 calibrate. Even without a loss p is (1 - delta)^n: 0.9^28 > .05 >= 0.9^29.
    with pytest.raises(UsageError, match="270 trained the model; 15 of the 30 that stay") as few:
        run_calibration(CalibrateConfig(**options, delta=0.1))
    assert "at least 29" in few.value.message
    assert "--test-limit 0" in (few.value.hint or "")
    result = run_calibration(CalibrateConfig(**options, delta=0.1, test_limit=0))
    samples = next(iter(result.records()))
    assert set(samples["calibration"]) == held_out
    notes = " ".join(result.document["report"]["notes"])
    assert "30 of the samples chose the model's default exit" in notes
    with pytest.raises(UsageError, match="without the 270 samples that trained the model"):
        run_calibration(CalibrateConfig(**options, delta=0.5, limit=40, test_limit=0))


def test_who_insists_gets_no_guarantee(config: TrainConfig, tmp_path: Path) -> None:
    options = _options(config, tmp_path, delta=0.9, include_training_rows=True)
    document = run_calibration(CalibrateConfig(**options)).document
    assert document["metrics"]["certified"] is False
    assert "mean_loss_bound" not in document["metrics"]
    report = document["report"]
    assert "without a guarantee: 270 of the 300 samples" in report["guarantee"]
    assert "stored" not in report
    assert not any(row["guarantee"] or row["certified"] for row in report["alternatives"])
    assert config.output is not None
    assert not (config.output / "calibration.json").exists()
    with pytest.raises(RiskNotControlledError, match="without a guarantee"):
        run_calibration(CalibrateConfig(**options, strict=True))


def test_asked_for_but_not_there_changes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    new = [(f"quite new {n}", ("bad", "good")[n % 2]) for n in range(60)]
    other = _write(tmp_path / "new.csv", new, ("text", "label"))
    options = _options(config, tmp_path, data_file=other, delta=0.9, include_training_rows=True)
    document = run_calibration(CalibrateConfig(**options, store=False)).document
    assert document["metrics"]["certified"] is True
    assert document["config"]["training_rows"]["included"] == 0


def test_going_on_remembers_both(config: TrainConfig, tmp_path: Path) -> None:
    more = [(f"some more {GOOD[n % 4]} {n}", ("bad", "good")[n % 2]) for n in range(40)]
    data = _write(tmp_path / "more.csv", more, ("text", "label"))
    on = replace(
        config,
        backbone=str(config.output),
        data_file=data,
        text_column=None,
        label_column=None,
        output=tmp_path / "on",
    )
    run_training(on)
    assert on.output is not None
    columns = {"text_column": "review", "label_column": "mood"}
    for file, trained, named in ((config.data_file, 270, columns), (data, 36, {})):
        options = _options(on, tmp_path, data_file=file, **named)
        result = run_evaluation(EvaluateConfig(**options))
        assert result.document["config"]["training_rows"]["left_out"] == trained


def test_what_the_source_was_trained_on_does_not_validate(
    config: TrainConfig, tmp_path: Path
) -> None:
    listener = Listener()
    on = replace(config, backbone=str(config.output), seed=8, output=tmp_path / "on")
    result = run_training(on, progress=listener)
    first = load_examples(replace(config, split="validation"), default_split="validation")
    second = load_examples(replace(on, split="validation"), default_split="validation")
    stay = len(set(first.dataset["id"]) & set(second.dataset["id"]))
    assert 0 < stay < 30
    assert result.document["metrics"]["validation_samples"] == stay
    assert any(f"Left out {30 - stay} of 30 validation" in text for text in listener.messages)


def test_what_an_attacked_text_was_made_from_counts_too(
    config: TrainConfig, tmp_path: Path
) -> None:
    rows = [
        {
            "text": f"attacked {n}",
            "label": ("bad", "good")[n % 2],
            "kind": "adversarial",
            "recipe": "x",
            "original_text": f"was {n}",
        }
        for n in range(40)
    ]
    data = tmp_path / "adversarial.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(data))
    made = replace(
        config, data_file=data, text_column=None, label_column=None, output=tmp_path / "hard"
    )
    run_training(made)
    originals = [(str(row["original_text"]), str(row["label"])) for row in rows]
    file = _write(tmp_path / "originals.csv", originals, ("text", "label"))
    result = run_evaluation(EvaluateConfig(**_options(made, tmp_path, data_file=file)))
    assert result.document["config"]["training_rows"]["left_out"] == 36


def test_models_of_others_are_unknown_and_bundled_ones_apart(
    config: TrainConfig, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "others"
    assert config.output is not None
    shutil.copytree(config.output, copy)
    (copy / FILE).unlink()
    options = _options(config, tmp_path, model=str(copy), limit=5)
    assert run_evaluation(EvaluateConfig(**options)).document["config"]["training_rows"] == (
        "unknown"
    )
    bundled = EvaluateConfig(limit=3, latency_samples=0, results_dir=tmp_path / "r", device="cpu")
    for changes, said in (
        ({}, "apart by split"),
        ({"split": "train"}, "unknown"),
        ({"task": "tweets"}, "unknown"),
    ):
        document = run_evaluation(replace(bundled, **changes)).document
        assert document["config"]["training_rows"] == said


def _pairs(folder: Path) -> Path:
    chance = random.Random(1)
    words = {"".join(chance.choices(LETTERS, k=7)) for _ in range(400)}
    rows = [(word, " ".join(("K", "AE", "T")[: 1 + len(set(word)) % 3])) for word in sorted(words)]
    return _write(folder / "spell.csv", rows[:200], ("word", "spoken"))


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A decoder trained on own pairs, with a prefix and columns of their own."""
    folder = tmp_path_factory.mktemp("spell")
    made = TrainConfig(
        backbone=str(save_decoder(folder / "given", classifiers=(), max_target_length=6)),
        data_file=_pairs(folder),
        source_column="word",
        target_column="spoken",
        source_prefix="say ",
        epochs=0.2,
        max_target_length=6,
        output=folder / "spells",
        results_dir=folder / "results",
        device="cpu",
    )
    run_training(made)
    return made


def test_a_decoder_is_calibrated_on_its_own_data(speller: TrainConfig, tmp_path: Path) -> None:
    options = _options(speller, tmp_path, data_file=None, delta=0.5, test_limit=0)
    result = run_calibration(CalibrateConfig(**options, thresholds=(1.0, 0.5), store=False))
    examples = load_examples(
        replace(speller, split="validation"), default_split="validation", generates=True
    )
    assert set(next(iter(result.records()))["calibration"]) == set(examples.dataset["id"])
    noted = result.document["config"]
    assert (noted["source_prefix"], noted["metric"]) == ("say ", "rouge-l")
    assert noted["training_rows"]["chose_the_exit"] == 20


def test_another_prefix_makes_no_new_rows(speller: TrainConfig, tmp_path: Path) -> None:
    options = _options(speller, tmp_path, source_prefix="")
    result = run_evaluation(EvaluateConfig(**options))
    assert result.document["config"]["training_rows"]["left_out"] == 180
    assert result.document["config"]["source_column"] == "word"


def test_its_classifiers_learn_from_its_own_data_and_prefix(
    speller: TrainConfig, tmp_path: Path
) -> None:
    listener = Listener()
    asked = TrainConfig(
        model="calm",
        backbone=str(speller.output),
        confidence="linear",
        epochs=0.2,
        output=tmp_path / "sure",
        results_dir=tmp_path / "results",
        device="cpu",
    )
    result = run_training(asked, progress=listener)
    assert result.document["metrics"]["examples"] == 180
    noted = result.document["config"]
    assert noted["data_file"] == str(speller.data_file)
    assert (noted["source_prefix"], noted["source_column"]) == ("say ", "word")
    assert any("spell.csv" in text for text in listener.messages)
    rows = read_training_rows(tmp_path / "sure")
    assert rows is not None
    assert (len(rows.trained), len(rows.validated)) == (180, 20)
    with pytest.raises(UsageError, match="parted by seed 42"):
        run_training(replace(asked, seed=5, output=tmp_path / "other"))


def test_a_model_that_names_no_data_must_be_told(tmp_path: Path) -> None:
    given = save_decoder(tmp_path / "given", classifiers=(), task=None)
    with pytest.raises(UsageError, match="names no data of its own") as caught:
        run_training(
            TrainConfig(
                model="calm",
                backbone=str(given),
                confidence="mlp",
                output=tmp_path / "m",
                results_dir=tmp_path / "results",
            )
        )
    assert "--data-file FILE or --task NAME" in (caught.value.hint or "")
    assert not (tmp_path / "m.training").exists()


def test_a_classifier_goes_on_with_its_own_data(config: TrainConfig, tmp_path: Path) -> None:
    asked = TrainConfig(
        backbone=str(config.output),
        epochs=0.1,
        output=tmp_path / "on",
        results_dir=tmp_path / "results",
        device="cpu",
    )
    result = run_training(asked)
    assert result.document["config"]["data_file"] == str(config.data_file)
    assert result.document["metrics"]["examples"] == 270


def test_fingerprints_stay_small_and_survive(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(110_000)]
    rows = TrainingRows.of([digests_of(texts[:100_000])], [digests_of(texts[99_000:])])
    size = write_training_rows(tmp_path, rows)
    assert size < 1_000_000
    again = read_training_rows(tmp_path)
    assert again is not None
    assert (len(again.trained), len(again.validated)) == (100_000, 10_000)
    assert np.array_equal(again.trained, rows.trained)
    pair = digests_of(["a"], ["b"])
    assert not np.isin(pair, digests_of(["ab", "a", "b", "a b"])).any()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x93NUMPY", None])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        np.savez(tmp_path / FILE, trained=np.array([object()]), validated=np.array([1.0]))
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(EexitError, match="is damaged") as caught:
        read_training_rows(tmp_path)
    assert "delete it" in (caught.value.hint or "")
