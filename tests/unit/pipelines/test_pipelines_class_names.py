"""What a classifier's outputs are called: published orders, ``--label-names``, what is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoders import save_decoder
from transformers import BertTokenizerFast

from eexit_cli.config import (
    AttackConfig,
    CalibrateConfig,
    EvaluateConfig,
    PredictConfig,
    TrainConfig,
)
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import task_info
from eexit_cli.families.class_names import script_names, warn_below_chance
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.predict import run_prediction
from eexit_cli.pipelines.train import run_training

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "film", "fine"]
WORDS += [piece for sign in "abcdefghijklmnopqrstuvwxyz0123456789" for piece in (sign, f"##{sign}")]
CUES = ["one", "two", "three"]
MNLI = ("contradiction", "entailment", "neutral")
GLUE = ["cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli"]


class Recorder(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def about(self, words: str) -> list[str]:
        return [message for message in self.messages if words in message]


def oracle(classes: int = 3) -> MultiExitClassifier:
    """A model whose output i is sure of a text that begins with cue i, at every exit.

    Its attention adds the mean of all tokens to each, and its layers do nothing else.
    """
    backbone = {
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
        "type_vocab_size": 2,
    }
    torch.manual_seed(0)
    config = MultiExitConfig(backbone=backbone, family="pabee", pooling="mean", num_labels=classes)
    model = MultiExitClassifier(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(1.0 if "LayerNorm.weight" in name else 0.0)
            if name.endswith(("self.value.weight", "attention.output.dense.weight")):
                value.copy_(torch.eye(16))
        words = model.word_embeddings.weight
        for index, cue in enumerate(CUES[:classes]):
            words[WORDS.index(cue), index] = 10.0
        for index in range(len(WORDS)):
            words[index, 8 + index % 4] += 0.1
        for head in model.poolers:
            head.dense.weight.copy_(torch.eye(16))
        for head in model.classifiers:
            head.weight[:, :classes] = 20 * torch.eye(classes)
    return model.eval()


def saved(folder: Path, model: MultiExitClassifier) -> Path:
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def published(folder: Path, task: str | None, **more: Any) -> Path:
    """The oracle in PABEE's layout, as its scripts wrote it: no names, but the task's."""
    model = oracle()
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            tensors[f"bert.{rest}"] = value
        elif part == "poolers":
            tensors["bert.pooler." + rest.partition(".")[2]] = value
        else:
            tensors[name] = value
    torch.save(tensors, folder / "pytorch_model.bin")
    settings = {**model.config.backbone, "num_labels": 3, "finetuning_task": task, **more}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def table(path: Path, names: Sequence[Any], *, pairs: bool = True, size: int = 12) -> Path:
    """Texts whose cue i has the i-th of these labels."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "text_pair", "label"] if pairs else ["text", "label"])
        for index in range(size):
            cue = CUES[index % len(names)]
            text = f"{cue} {cue} film {index}"
            second = [f"{cue} fine"] if pairs else []
            writer.writerow([text, *second, names[index % len(names)]])
    return path


@pytest.fixture
def evaluate(tmp_path):
    def run(model: Path, data: Path | None, **options: Any) -> tuple[float, Recorder]:
        recorder = Recorder()
        settings = {
            "model": str(model),
            "data_file": data,
            "device": "cpu",
            "static_layer": 1,
            "latency_samples": 0,
            "results_dir": tmp_path / "results",
        }
        result = run_evaluation(EvaluateConfig(**settings | options), progress=recorder)
        return result.document["metrics"]["accuracy_full"], recorder

    return run


# The published order. Transformers' own processors are what the scripts read.


@pytest.mark.parametrize("model_type", ["bert", "albert", "distilbert", "roberta"])
@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("task", GLUE)
def test_the_order_is_that_of_the_scripts(task, family, model_type):
    processors = pytest.importorskip("transformers.data.processors.glue").glue_processors
    with pytest.warns(FutureWarning):
        processor = processors[{"sst2": "sst-2"}.get(task, task)]()
    listed = processor.get_labels()
    if task == "mnli" and model_type == "roberta":
        listed[1], listed[2] = listed[2], listed[1]  # transformers/data/datasets/glue.py
    settings = MultiExitConfig(
        backbone={"model_type": model_type},
        family=family,
        num_labels=len(listed),
        task=task,
        training={"converted_from": family},
    )
    found = script_names(settings, None)
    assert found is not None
    names, of = found
    assert of == task
    if "0" in listed:
        # Numbers in the data files: the task's own ids.
        assert listed == ["0", "1"]
        listed = list(task_info(task).label_names)
    assert list(names) == listed


def test_only_a_published_checkpoint_without_names_gets_the_scripts():
    base: dict[str, Any] = {"backbone": {"model_type": "bert"}, "num_labels": 3}
    made = {"training": {"converted_from": "pabee"}}
    mnli = task_info("mnli")
    assert script_names(MultiExitConfig(**base, **made), None) is None
    assert script_names(MultiExitConfig(**base, task="mnli"), None) is None
    named = {"id2label": {0: "a", 1: "b", 2: "c"}, "task": "mnli"}
    assert script_names(MultiExitConfig(backbone=base["backbone"], **made, **named), None) is None
    assert script_names(MultiExitConfig(**base | {"num_labels": 2}, **made), mnli) is None
    # The data's task where the checkpoint knows none; its own before the data's.
    assert script_names(MultiExitConfig(**base, **made), mnli) == (MNLI, "mnli")
    two: dict[str, Any] = {"backbone": {"model_type": "bert"}, "num_labels": 2, "task": "wnli"}
    assert script_names(MultiExitConfig(**two, **made), task_info("rte")) == (
        ("not_entailment", "entailment"),
        "wnli",
    )


@pytest.mark.parametrize("known", ["mnli", None])
@pytest.mark.parametrize("source", ["task", "folder", "model"])
def test_a_published_model_that_is_always_right_is_shown_to_be(tmp_path, evaluate, known, source):
    model = published(tmp_path / "model", known)
    options: dict[str, Any] = {"text_pair_column": "text_pair"}
    data: Path | None = table(tmp_path / "nli.csv", MNLI)
    if source == "task":
        options["task"] = "mnli"
    elif source == "folder":
        folder = tmp_path / "MNLI"
        folder.mkdir()
        rows = [f"{cue} film\t{cue}\t{name}" for cue, name in zip(CUES, MNLI, strict=True)]
        content = "\n".join(["sentence1\tsentence2\tgold_label", *rows]) + "\n"
        (folder / "dev_matched.tsv").write_text(content, encoding="utf-8")
        data, options = None, {"data_dir": folder}
    elif known is None:
        with pytest.raises(UsageError, match="outside the classes") as caught:
            evaluate(model, data, **options)
        assert "--label-names" in (caught.value.hint or "")
        options["label_names"] = MNLI
    accuracy, recorder = evaluate(model, data, **options)
    assert accuracy == 1
    assert not recorder.about("Below chance")
    if "label_names" not in options:
        (line,) = recorder.about("no names")
        assert "contradiction, entailment, neutral" in line
        assert "PABEE's scripts" in line
        assert "--label-names" in line


def test_a_prediction_names_the_scripts_classes(tmp_path):
    model = published(tmp_path / "model", "mnli")
    recorder = Recorder()
    config = PredictConfig(
        model=str(model), texts=("two film",), text_pair="two", static_layer=1, device="cpu"
    )
    answer = run_prediction(config, progress=recorder)
    assert answer["results"][0]["label_name"] == "entailment"
    assert recorder.about("no names")
    assert not recorder.about("pairs")
    named = run_prediction(replace(config, label_names=("x", "y", "z")))
    assert named["label_names"] == ["x", "y", "z"]
    assert named["results"][0]["label_name"] == "y"
    run_prediction(replace(config, text_pair=None), progress=recorder)
    assert recorder.about("trained on pairs of texts: --text-pair")


# --label-names.


def test_label_names_override_and_a_wrong_order_is_suspected(tmp_path, evaluate):
    model = saved(tmp_path / "model", oracle())
    data = table(tmp_path / "x.csv", ["good", "so so", "bad"], pairs=False)
    accuracy, recorder = evaluate(model, data, label_names=("good", "so so", "bad"))
    assert (accuracy, recorder.messages[:-1]) == (1, [])
    accuracy, recorder = evaluate(model, data, label_names=("so so", "bad", "good"))
    assert accuracy == 0
    (line,) = recorder.about("Below chance")
    assert "0.0% of 12 answers" in line
    assert "33.3%" in line
    assert "so so, bad, good" in line
    assert "--label-names" in line


def test_names_that_a_model_has_are_overridden_with_a_notice(tmp_path, evaluate):
    model = oracle()
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    folder = saved(tmp_path / "model", model)
    data = table(tmp_path / "x.csv", ["c", "a", "b"], pairs=False)
    assert evaluate(folder, data)[0] == 0
    accuracy, recorder = evaluate(folder, data, label_names=("c", "a", "b"))
    assert accuracy == 1
    (line,) = recorder.about("--label-names: ")
    assert "(a, b, c) are taken as c, a, b" in line


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "b"), "gives 2 names, model .* has 3 outputs"),
        (("a", "b", "A"), "names 'A' twice"),
        (("1", "2", "1.0"), "names '1.0' twice"),
        (("a",), "at least two"),
    ],
)
def test_label_names_that_do_not_fit(tmp_path, evaluate, names, words):
    model = saved(tmp_path / "model", oracle())
    data = table(tmp_path / "x.csv", ["a", "b", "c"], pairs=False)
    with pytest.raises(UsageError, match=words) as caught:
        evaluate(model, data, label_names=names)
    assert caught.value.hint
    assert not (tmp_path / "results").exists()


def test_label_names_of_a_regression_or_a_decoder_are_refused(tmp_path, evaluate):
    model = saved(tmp_path / "model", oracle(1))
    data = table(tmp_path / "x.csv", [0.5, 1.5], pairs=False)
    with pytest.raises(UsageError, match="gives one number"):
        evaluate(model, data, label_names=("a", "b"))
    decoder = str(save_decoder(tmp_path / "decoder", classifiers=()))
    names: dict[str, Any] = {"model": decoder, "label_names": ("a", "b"), "device": "cpu"}
    for attempt in (
        lambda: run_evaluation(EvaluateConfig(**names)),
        lambda: run_prediction(PredictConfig(**names, texts=("a",))),
        lambda: run_attack(AttackConfig(**names, recipe="random")),
        lambda: run_calibration(CalibrateConfig(**names)),
        lambda: run_training(TrainConfig(backbone=decoder, label_names=("a", "b"))),
    ):
        with pytest.raises(UsageError, match="--label-names"):
            attempt()
    losses = CalibrateConfig(losses=Path("x.csv"), label_names=("a", "b"))
    with pytest.raises(UsageError, match="--label-names needs a model"):
        run_calibration(losses)


def test_attack_and_calibration_read_them_too(tmp_path):
    model = saved(tmp_path / "model", oracle())
    data = table(tmp_path / "x.csv", ["good", "so so", "bad"], pairs=False)
    common: dict[str, Any] = {
        "model": str(model),
        "data_file": data,
        "device": "cpu",
        "results_dir": tmp_path / "results",
    }
    for names, right in ((("good", "so so", "bad"), 1), (("bad", "good", "so so"), 0)):
        recorder = Recorder()
        attacked = run_attack(
            AttackConfig(**common, label_names=names, recipe="random", patience=1, limit=4),
            progress=recorder,
        )
        assert attacked.document["metrics"]["accuracy_before"] == right
        assert attacked.document["config"]["label_names"] == list(names)
        assert attacked.document["config"]["classes"] == list(names)
        assert len(recorder.about("Below chance")) == 1 - right
        recorder = Recorder()
        run_calibration(
            CalibrateConfig(
                **common, label_names=names, delta=0.9, limit=9, test_limit=0, latency_samples=0
            ),
            progress=recorder,
        )
        assert len(recorder.about("Below chance")) == 1 - right


@pytest.mark.parametrize("consistency", ["risk", "textual"])
def test_a_promise_about_labels_holds_for_the_names_it_was_made_with(
    tmp_path, evaluate, consistency
):
    """How often early and full answers differ is the same under any names; errors are not."""
    model = saved(tmp_path / "model", oracle())
    names = ("good", "so so", "bad")
    data = table(tmp_path / "x.csv", names, pairs=False)
    run_calibration(
        CalibrateConfig(
            model=str(model),
            data_file=data,
            label_names=names,
            consistency=consistency,
            delta=0.9,
            limit=9,
            test_limit=0,
            latency_samples=0,
            device="cpu",
            results_dir=tmp_path / "results",
        )
    )
    options: dict[str, Any] = {"threshold": "calibrated", "static_layer": None}
    accuracy, _ = evaluate(model, data, label_names=names, **options)
    assert accuracy == 1
    if consistency == "textual":
        assert evaluate(model, data, label_names=names[::-1], **options)[0] < 1
        return
    with pytest.raises(MissingArtifactError, match="--label-names 'good,so so,bad', not") as caught:
        evaluate(model, data, label_names=names[::-1], **options)
    assert "--label-names 'bad,so so,good'" in (caught.value.hint or "")


@pytest.mark.parametrize(("right", "told"), [(0, 1), (3, 1), (4, 0), (12, 0)])
def test_chance_is_one_of_k(right, told):
    recorder = Recorder()
    labels = [0] * right + [1] * (12 - right)
    warn_below_chance(("a", "b", "c"), [0] * 12, labels, recorder)
    assert len(recorder.messages) == told


# Pairs.


@pytest.mark.parametrize(("trained", "read"), [(True, False), (False, True), (True, True)])
def test_a_model_of_pairs_says_that_it_gets_single_texts(tmp_path, evaluate, trained, read):
    model = oracle()
    model.config.training = {
        "data_file": "x.csv",
        "text_pair_column": "text_pair" if trained else None,
    }
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    folder = saved(tmp_path / "model", model)
    options = {"text_pair_column": "text_pair"} if read else {}
    _, recorder = evaluate(folder, table(tmp_path / "d.csv", ["a", "b", "c"]), **options)
    lines = recorder.about("was trained on")
    assert len(lines) == (trained != read)
    if trained and not read:
        assert "trained on pairs of texts; 'd' is read as single texts" in lines[0]
        assert "--text-pair-column names the second" in lines[0]
    elif read and not trained:
        assert "trained on single texts; 'd' is read as pairs of texts" in lines[0]


# Training.


@pytest.fixture
def train(tmp_path):
    """Goes on from the oracle with a learning rate that leaves it as it is."""

    def run(names: list[str], labels: Sequence[Any], **options: Any) -> tuple[Any, Recorder]:
        model = oracle(len(names))
        model.config.id2label = dict(enumerate(names))
        recorder = Recorder()
        config = TrainConfig(
            backbone=str(saved(tmp_path / "given", model)),
            data_file=table(tmp_path / "more.csv", labels, pairs=False, size=40),
            output=tmp_path / "out",
            results_dir=tmp_path / "results",
            epochs=0.1,
            learning_rate=1e-12,
            weight_decay=0.0,
            device="cpu",
        )
        result = run_training(replace(config, **options), progress=recorder)
        stored = load_classifier(tmp_path / "out").config.id2label
        accuracy = result.document["metrics"]["accuracy_full"]
        return (accuracy, [stored[index] for index in range(len(names))]), recorder

    return run


def test_numbers_are_no_classes_of_a_model_that_has_others(train, tmp_path):
    with pytest.raises(UsageError, match="which is which is not known") as caught:
        train(["negative", "positive"], [2, 1])
    assert "--label-names 1,2" in (caught.value.hint or "")
    assert "1 is negative and 2 is positive" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.training"))


@pytest.mark.parametrize("written", [["1", "2"], ["1.0", "2.0"], ["01", "+2"]])
def test_label_names_say_which_is_which(train, tmp_path, evaluate, written):
    (accuracy, names), recorder = train(
        ["negative", "positive"], written[::-1], label_names=("2", "1")
    )
    assert accuracy == 1
    assert names == ["2", "1"]
    (line,) = recorder.about("are taken, in this order")
    assert "(negative, positive)" in line
    assert "(2, 1)" in line
    assert recorder.about("its weights and its 2 exits")
    # What training stored is what evaluation reads.
    for spelling in (["2", "1"], [2.0, 1.0], ["02", " 1 "]):
        data = table(tmp_path / "again.csv", spelling, pairs=False)
        assert evaluate(tmp_path / "out", data)[0] == 1


def test_ids_are_the_given_models_and_that_is_said(train):
    (accuracy, names), recorder = train(["negative", "positive"], ["0.0", "1"])
    assert accuracy == 1
    assert names == ["negative", "positive"]
    assert recorder.about("(negative, positive) are taken, in this order, as the data's (0, 1)")


def test_a_training_from_scratch_takes_the_order_that_it_is_told(train, tmp_path, evaluate):
    (_, names), recorder = train(["x", "y"], [1, 0], label_names=("good", "bad"), pooling="first")
    assert names == ["good", "bad"]
    assert len(recorder.about("taken as ids: 0 good, 1 bad")) == 1
    with pytest.raises(UsageError, match="outside the classes"):
        evaluate(tmp_path / "out", table(tmp_path / "x.csv", ["good", "fair"], pairs=False))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "stsb", "label_names": ("a", "b")}, "task 'stsb' has none"),
        ({"task": "mnli", "label_names": ("a", "b")}, "gives 2 names, task 'mnli' has 3"),
        ({"label_names": ("a", "a")}, "twice"),
    ],
)
def test_names_that_a_training_cannot_have(train, options, words):
    with pytest.raises(UsageError, match=words):
        train(["a", "b"], ["a", "b"], **options)


def test_a_resumed_training_keeps_its_names(train, tmp_path):
    class Killed(Recorder):
        def message(self, text: str) -> None:
            if text.startswith("Stage") or "Epoch" in text:
                raise KeyboardInterrupt
            super().message(text)

    with pytest.raises(UsageError):
        train(["negative", "positive"], [2, 1])
    config = TrainConfig(
        backbone=str(tmp_path / "given"),
        data_file=tmp_path / "more.csv",
        label_names=("2", "1"),
        output=tmp_path / "out",
        results_dir=tmp_path / "results",
        epochs=1,
        device="cpu",
    )
    with pytest.raises(KeyboardInterrupt):
        run_training(config, progress=Killed())
    again = TrainConfig(output=tmp_path / "out", results_dir=tmp_path / "results", resume=True)
    with pytest.raises(UsageError, match=r"--label-names 1,2 differs from .* 2,1"):
        run_training(replace(again, label_names=("1", "2")))
    run_training(again)
    stored = load_classifier(tmp_path / "out").config
    assert stored.id2label == {0: "2", 1: "1"}
    assert "--label-names 2,1" in stored.training["command"]
