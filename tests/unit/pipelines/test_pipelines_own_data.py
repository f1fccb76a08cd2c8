"""What a model is evaluated on that was trained from a file, when nobody names data."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tiny_decoders import save_decoder, write_pairs

from eexit_cli.config import AttackConfig, CalibrateConfig, EvaluateConfig, TrainConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import load_examples
from eexit_cli.data.bundled import MOVIE_REVIEWS
from eexit_cli.data.origin import Origin, origin_of
from eexit_cli.families.data import KEY, own_samples
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig
from eexit_cli.pipelines.attack.subject import open_subject
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.train import run_training

CHARACTERS = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the"),
    *(piece for character in CHARACTERS for piece in (character, f"##{character}")),
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with exits and a tokenizer."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("given")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    backbone = {
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
    }
    MultiExitClassifier(MultiExitConfig(backbone=backbone)).save_pretrained(folder)
    return folder


@pytest.fixture
def config(given: Path, tmp_path: Path) -> TrainConfig:
    data = tmp_path / "mine.csv"
    with data.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "mood"])
        for i in range(100):
            text = f"the film {' '.join(sorted(set(f'{i:03d}'), key=str))} {i} {'abcdefg'[i % 7]}"
            writer.writerow([text, ("bad", "good")[i % 2]])
    return TrainConfig(
        backbone=str(given),
        data_file=data,
        text_column="review",
        label_column="mood",
        epochs=0.2,
        output=tmp_path / "m1",
        results_dir=tmp_path / "results",
        device="cpu",
    )


def _options(config: TrainConfig, **more: Any) -> dict[str, Any]:
    return {
        "model": str(config.output),
        "results_dir": config.results_dir,
        "device": "cpu",
        **more,
    }


def _held_out(config: TrainConfig) -> set[str]:
    examples = load_examples(replace(config, split="validation"), default_split="validation")
    return set(examples.dataset["id"])


def test_the_held_out_part_and_no_other_sample(config: TrainConfig) -> None:
    run_training(config)
    wanted = _held_out(config)
    assert len(wanted) == 10
    options = _options(config)
    result = run_evaluation(EvaluateConfig(**options, latency_samples=0))
    lines = (result.path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} == wanted
    # A run can be repeated from its own record.
    noted = result.document["config"]
    assert noted["data_file"] == str(config.data_file)
    assert (noted["split"], noted["text_column"], noted["label_column"]) == (
        "validation",
        "review",
        "mood",
    )
    subject = open_subject(AttackConfig(**options, limit=0), SilentProgress())
    assert {str(sample["id"]) for sample in subject.samples} == wanted
    # The training's own samples, to be trained on again, must be asked for.
    own = AttackConfig(**options, limit=0, split="train")
    with pytest.raises(UsageError, match=r"Every sample .* trained"):
        open_subject(own, SilentProgress())
    trained = open_subject(replace(own, include_training_rows=True), SilentProgress())
    assert len(trained.samples) == 90
    calibrated = run_calibration(
        CalibrateConfig(**options, delta=0.9, limit=8, test_limit=0, latency_samples=0)
    )
    assert calibrated.document["metrics"]["samples"] == 8
    assert calibrated.document["config"]["calibration_split"] == "validation"


def test_what_would_let_training_samples_in_is_refused(config: TrainConfig) -> None:
    run_training(config)
    assert config.data_file is not None
    base = EvaluateConfig(**_options(config), latency_samples=0)
    content = config.data_file.read_text(encoding="utf-8")
    for changes, words in (
        ({"seed": 7}, "parted by seed 42"),
        ({"split": "test"}, "has no split 'test'"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            run_evaluation(replace(base, **changes))
        assert "--data-file FILE or --task NAME" in (caught.value.hint or "")
    config.data_file.write_text(content + "the film zz,good\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has changed since"):
        run_evaluation(base)
    config.data_file.unlink()
    with pytest.raises(MissingArtifactError, match="not there any more") as gone:
        run_evaluation(base)
    assert "--data-file FILE or --task NAME" in (gone.value.hint or "")
    # Data that are named count, whatever became of the file.
    result = run_evaluation(replace(base, task="movie-reviews", limit=4, seed=7))
    assert result.document["metrics"]["samples"] == 4


def test_a_model_of_an_unknown_task_without_a_record(config: TrainConfig) -> None:
    """As models that were trained before there were records, or by others."""
    run_training(config)
    assert config.output is not None
    path = config.output / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["training"][KEY]
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UsageError, match="'mine', which is no task here") as caught:
        run_evaluation(EvaluateConfig(**_options(config)))
    assert caught.value.hint == "Name the data: --data-file FILE or --task NAME"


def test_a_decoder_too(tmp_path: Path) -> None:
    config = TrainConfig(
        backbone=str(save_decoder(tmp_path / "given", classifiers=())),
        data_file=write_pairs(tmp_path / "pairs.csv"),
        epochs=0.5,
        output=tmp_path / "m1",
        results_dir=tmp_path / "results",
        device="cpu",
    )
    run_training(config)
    found = load_examples(
        replace(config, split="validation"), default_split="validation", generates=True
    )
    result = run_evaluation(EvaluateConfig(**_options(config), latency_samples=0))
    assert result.document["metrics"]["samples"] == len(found)
    with pytest.raises(UsageError, match="parted by seed 42"):
        run_evaluation(EvaluateConfig(**_options(config), seed=1))


def test_the_users_own_columns_win(tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("x", encoding="utf-8")
    from eexit_cli.families.data import held_out

    record = held_out(TrainConfig(data_file=data, text_column="a"), SilentProgress())
    config = EvaluateConfig(text_column="b")
    found = own_samples(config, {KEY: record}, "d", "m", SilentProgress())
    assert (found.text_column, found.column("label_column")) == ("b", "label")
    named = EvaluateConfig(task="sst2")
    assert own_samples(named, {KEY: record}, "d", "m", SilentProgress()) is named


def _export(path: Path, *splits: str, extra: tuple[str, ...] = ()) -> Path:
    """A file as ``eexit results export`` writes it."""
    rows = []
    for split in splits:
        samples = MOVIE_REVIEWS.read(split, data_dir=None, progress=SilentProgress())
        assert samples.labels is not None
        for text, label in list(zip(samples.texts, samples.labels, strict=True))[:30]:
            rows.append((text, ("negative", "positive")[int(label)]))
    rows += [(text, "negative") for text in extra]
    table = [
        {
            "text": f"{kind} {text}",
            "label": label,
            "kind": kind,
            "recipe": "x",
            "original_text": text,
        }
        for text, label in rows
        for kind in ("original", "adversarial")
    ]
    datasets.Dataset.from_list(table).to_parquet(str(path))
    return path


def test_the_origin_of_an_export_is_told_by_its_texts(tmp_path: Path) -> None:
    assert origin_of(_export(tmp_path / "a.parquet", "train")) == Origin(
        "movie-reviews", ("train",)
    )
    mixed = origin_of(_export(tmp_path / "b.parquet", "train", "test"))
    assert mixed is not None
    assert (mixed.splits, mixed.spares_test) == (("train", "test"), False)
    assert origin_of(_export(tmp_path / "c.parquet", "train", extra=("of mine",))) is None
    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).to_parquet(
        str(tmp_path / "d.parquet")
    )
    assert origin_of(tmp_path / "d.parquet") is None
    assert origin_of(tmp_path / "reviews.csv") is None


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_an_export_of_training_data_stands_for_its_task(
    config: TrainConfig, tmp_path: Path, splits: tuple[str, ...]
) -> None:
    """Unless test samples are in it, which then say nothing about the model."""
    data = _export(tmp_path / "adversarial.parquet", *splits)
    run_training(replace(config, data_file=data, text_column="text", label_column="label"))
    assert config.output is not None
    settings = load_classifier(config.output).config
    assert Path(settings.training["data_file"]).is_absolute()
    assert (KEY in settings.training) is ("test" in splits)
    assert settings.task == ("adversarial" if "test" in splits else "movie-reviews")
    assert settings.training["data_file"] == str(data)
    result = run_evaluation(EvaluateConfig(**_options(config), limit=5, latency_samples=0))
    noted = result.document["config"]
    read = (noted["data_file"], noted["split"])
    assert read == ((str(data), "validation") if "test" in splits else (None, "test"))


def test_a_file_that_cannot_be_read_is_an_error(config: TrainConfig, tmp_path: Path) -> None:
    broken = tmp_path / "x.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(EexitError):
        run_training(replace(config, data_file=broken))
    assert config.output is not None
    assert not config.output.exists()


def test_a_file_is_read_again_as_in_training(config: TrainConfig) -> None:
    """Its delimiter, its encoding and the rows that were skipped are the model's to know."""
    assert config.data_file is not None
    text = config.data_file.read_text(encoding="utf-8").replace(",", "^").replace("film", "fílm")
    config.data_file.write_text(text + "at fault\n", encoding="cp1252")
    reading = {"delimiter": "^", "encoding": "cp1252", "skip_faulty_rows": True}
    config = replace(config, **reading)
    run_training(config)
    assert config.output is not None
    record = MultiExitConfig.from_pretrained(config.output).training[KEY]
    assert {name: record[name] for name in reading} == reading
    result = run_evaluation(EvaluateConfig(**_options(config), latency_samples=0))
    assert result.document["metrics"]["samples"] == 10


def test_a_calibration_names_the_file_that_no_option_named(config: TrainConfig) -> None:
    run_training(config)
    options = {"delta": 0.9, "latency_samples": 0, "store": False}
    document = run_calibration(CalibrateConfig(**_options(config), **options)).document
    assert (document["config"]["data_file"], document["config"]["data"]) == (None, "mine.csv")
