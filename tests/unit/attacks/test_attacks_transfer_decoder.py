"""A decoder's attacked inputs on other decoders and exits, against decoding them here anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attacks_tiny import classifier, wordpiece
from tiny_decoders import WORDS, save_decoder, write_pairs

from eexit_cli.config import AttackConfig
from eexit_cli.core.edits import edit_distance
from eexit_cli.core.errors import UsageError
from eexit_cli.core.labels import maker_labels
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.seed import derive_seed, stream
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.replay_source import LEAST_LOSS
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.attack.speed import attack_latency

RECIPES = ("same-token", "random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    save_decoder(root / "spell", seed=2)
    save_decoder(root / "other", seed=5)
    save_decoder(root / "prefixed", seed=2, task=None, source_prefix="say: ")
    write_pairs(root / "pairs.csv")
    tokenizer = wordpiece()
    classifier(tokenizer).save_pretrained(root / "films")
    tokenizer.save_pretrained(root / "films")
    (root / "films.csv").write_text("text,label\ngreat film,LABEL_1\nboring plot,LABEL_0\n")
    return root


def attack(folder: Path, **options: Any) -> Any:
    return run_attack(
        AttackConfig(
            **{
                "model": str(folder / "spell"),
                "data_file": folder / "pairs.csv",
                "recipe": ",".join(RECIPES),
                "query_budget": 40,
                "top_n": 12,
                "results_dir": folder / "results",
                "device": "cpu",
                **options,
            }
        )
    )


@pytest.fixture(scope="module")
def attacked(folder: Path) -> Any:
    return attack(folder)


def replayed(folder: Path, run: str, *models: str, progress: Any = None, **options: Any) -> Any:
    return run_attack(
        AttackConfig(
            transfer=(run,),
            model=",".join(str(folder / model) for model in models),
            results_dir=folder / "results",
            device="cpu",
            **options,
        ),
        progress=progress,
    )


_TOLD_BY_A_REPLAY = (
    "exit_layer",
    "total_layers",
    "tokens",
    "token_layers",
    "output",
    "full_output",
    "output_similarity",
)


def test_the_attacked_decoder_itself_leaves_where_the_attack_says(
    folder: Path, attacked: Any
) -> None:
    result = replayed(folder, attacked.path.name, "spell")
    originals = {(r["recipe"], r["id"]): r for r in attacked.records()}
    records = list(result.records())
    assert len(records) == len(originals) == 2 * len(WORDS)
    for record in records:
        original = originals[record["recipe"], record["id"]]
        assert record["status"] == "replayed"
        assert record["source_run"] == attacked.path.name
        for name in ("text", "perturbed_text", "target", "changed_words", "unit", "num_words"):
            assert record[name] == original[name]
        for name in _TOLD_BY_A_REPLAY:
            for when in ("before", "after"):
                assert record[f"{name}_{when}"] == original[f"{name}_{when}"]
    told = ("gain_removed", "mean_exit_layer_before", "mean_exit_layer_after", "agreement_after")
    for row, source in zip(result.document["rows"], attacked.document["rows"], strict=True):
        assert row["recipe"] == source["recipe"]
        for name in (*told, "output_similarity_after", "rouge_l_before", "tokens_mean_after"):
            assert row[name] == source[name]
    assert result.document["config"]["family"] == "decoder"


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.2},
        {"threshold": 0.1, "min_layer": 2, "max_new_tokens": 5},
        {"confidence": "saturation", "threshold": 0.6},
        {"confidence": "linear", "threshold": 0.5},
        {"threshold": 0.6, "decay": "paper", "temperature": 2.0},
        {"threshold": 0.6, "shallow_layer": 1},
        {"static_layer": 2},
    ],
)
def test_each_exit_is_what_decoding_one_input_after_another_gives(
    folder: Path, attacked: Any, options: dict[str, Any]
) -> None:
    result = replayed(folder, attacked.path.name, "other", **options)
    config = AttackConfig(
        model=str(folder / "other"), device="cpu", max_new_tokens=options.get("max_new_tokens")
    )
    loaded = load_decoder(config)
    (described,) = result.document["config"]["exits"].values()
    assert (
        described.items()
        >= {name: value for name, value in options.items() if name in described}.items()
    )
    live = settings_from(described, loaded)
    full = DecodeSettings(max_new_tokens=loaded.max_new_tokens)
    batcher = loaded.batcher()

    def decoded(text: str, settings: DecodeSettings) -> tuple[str, list[int]]:
        batch = batcher([text])
        with torch.inference_mode():
            (sample,) = loaded.model.decode(
                batch["input_ids"], batch["attention_mask"], settings
            ).samples
        return loaded.tokenizer.decode(sample.tokens, skip_special_tokens=True), sample.exit_layers

    by_recipe: dict[str, list[Any]] = {name: [] for name in RECIPES}
    for record in result.records():
        for when, key in (("before", "text"), ("after", "perturbed_text")):
            output, layers = decoded(record[key], live)
            assert record[f"token_layers_{when}"] == layers
            assert record[f"exit_layer_{when}"] == pytest.approx(np.mean(layers))
            whole, _ = decoded(record[key], full)
            assert (record[f"output_{when}"], record[f"full_output_{when}"]) == (output, whole)
            longer = max(len(output.split()), len(whole.split()), 1)
            distance = edit_distance(output.split(), whole.split())
            assert record[f"output_similarity_{when}"] == pytest.approx(1 - distance / longer)
        by_recipe[record["recipe"]].append(record)
    assert [row["recipe"] for row in result.document["rows"]] == list(RECIPES)
    for row in result.document["rows"]:
        records = by_recipe[row["recipe"]]
        mean = {
            when: np.mean([layer for r in records for layer in r[f"token_layers_{when}"]])
            for when in ("before", "after")
        }
        assert row["mean_exit_layer_before"] == pytest.approx(mean["before"])
        removed = (mean["after"] - mean["before"]) / (3 - mean["before"])
        assert row["gain_removed"] == pytest.approx(removed)
        assert row["gain_removed_low"] <= row["gain_removed"] + 1e-12
        assert row["gain_removed_high"] >= row["gain_removed"] - 1e-12
        same = [r["output_after"] == r["full_output_after"] for r in records]
        assert row["agreement_after"] == pytest.approx(np.mean(same))
        assert row["speedup_seconds_after"] > 0
        assert row["defence"] == "none"


@pytest.mark.parametrize(
    "options", [{}, {"confidence": "linear", "threshold": 0.3}, {"threshold": 0.6, "decay": "code"}]
)
def test_recalibration_walks_from_the_cautious_end_on_the_other_half(
    folder: Path, attacked: Any, options: dict[str, Any]
) -> None:
    """Against replays of every threshold, whose records say how like each output is."""
    result = replayed(folder, attacked.path.name, "spell", defences=True, **options)
    rows = result.document["rows"]
    assert [row["defence"] for row in rows] == ["none", "recalibrated"] * len(RECIPES)
    assert len(list(result.records())) == len(RECIPES) * len(WORDS)
    grid = [1.0, *(round(0.95 - 0.05 * step, 2) for step in range(19))]

    def of_recipe(run: Any, recipe: str) -> list[Any]:
        return [record for record in run.records() if record["recipe"] == recipe]

    loaded = load_decoder(AttackConfig(model=str(folder / "spell"), device="cpu"))
    (described,) = result.document["config"]["exits"].values()
    seed = derive_seed(42, "defences", 42)
    for recipe, row, none in zip(RECIPES, rows[1::2], rows[::2], strict=True):
        own = of_recipe(result, recipe)
        texts = [record["perturbed_text"] for record in own]
        first = [stream(seed, "half", record["id"]).random() < 0.5 for record in own]
        decoded = {
            threshold: decode_examples(
                loaded, texts, settings_from({**described, "threshold": threshold}, loaded)
            )
            for threshold in grid
        }

        def loss(threshold: float, at: int, decoded: Any = decoded, own: Any = own) -> float:
            one, full = decoded[threshold].outputs[at].split(), own[at]["full_output_after"].split()
            return edit_distance(one, full) / max(len(one), len(full), 1)

        chosen = []
        layers: list[int] = []
        for half in (True, False):
            at = [place for place, of_first in enumerate(first) if of_first == half]
            allowed = sum(1 - own[place]["output_similarity_before"] for place in at) / len(at)
            taken = grid[0]
            for threshold in grid:
                if sum(loss(threshold, place) for place in at) / len(at) > allowed + 1e-9:
                    break
                taken = threshold
            chosen.append(taken)
            others = [place for place in range(len(own)) if place not in at]
            layers += [layer for place in others for layer in decoded[taken].exit_layers[place]]
        assert row["mean_exit_layer_after"] == pytest.approx(np.mean(layers))
        found = {row["threshold"]} if "threshold" in row else {row[f"threshold_{e}"] for e in ENDS}
        assert found == set(chosen)
        likeness = [none[f"output_similarity_{when}"] for when in ("before", "after")]
        if likeness[0] - likeness[1] <= LEAST_LOSS:
            assert row["output_similarity_recovered"] is None
        else:
            lost = likeness[1] - likeness[0]
            back = (likeness[1] - row["output_similarity_after"]) / lost
            assert row["output_similarity_recovered"] == pytest.approx(back)
        assert none["layers_recovered"] in (None, 0)


ENDS = ("low", "high")


def test_every_output_is_timed_under_its_own_rule(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_decoder(AttackConfig(model=str(folder / "spell"), device="cpu"))
    layers = [1 + row % 2 for row in range(4)]
    exits = [loaded.exit_from({"static_layer": layer}) for layer in layers]
    words = WORDS[:4]
    timed: set[tuple[str, int | None]] = set()

    def decode(**given: Any) -> None:
        text = loaded.tokenizer.decode(given["input_ids"][0], skip_special_tokens=True)
        timed.add((text, given["settings"].static_layer))

    monkeypatch.setattr(loaded.model, "decode", decode)
    records = [{"text": word, "perturbed_text": word} for word in words]
    config = AttackConfig(latency_samples=3)
    found = attack_latency({"row": (records, exits)}, loaded, config, SilentProgress())["row"]
    assert (found["latency_samples"], found["timing_repeats"]) == (3, 5)
    texts = [
        loaded.tokenizer.decode(loaded.tokenizer(word)["input_ids"], skip_special_tokens=True)
        for word in words[:3]
    ]
    own = set(zip(texts, layers, strict=False))
    assert timed == own | {(text, None) for text in texts}


def test_a_static_layer_has_no_threshold_to_recalibrate(folder: Path, attacked: Any) -> None:
    result = replayed(folder, attacked.path.name, "spell", defences=True, static_layer=2)
    assert [row["defence"] for row in result.document["rows"]] == ["none"] * len(RECIPES)


def test_runs_on_one_model_keep_what_tells_them_apart(folder: Path, attacked: Any) -> None:
    other = attack(folder, recipe="random", query_budget=20, max_new_tokens=6)
    result = run_attack(
        AttackConfig(
            transfer=(attacked.path.name, other.path.name),
            model=str(folder / "spell"),
            results_dir=folder / "results",
            device="cpu",
        )
    )
    labels = maker_labels([result.document])
    assert set(labels) == {
        *((attacked.path.name, recipe) for recipe in RECIPES),
        (other.path.name, "random"),
    }
    assert labels[attacked.path.name, "same-token"] == "spell"
    assert labels[attacked.path.name, "random"] == "spell query budget 40"
    assert labels[other.path.name, "random"] == "spell query budget 20 max new tokens 6"


class Tells(SilentProgress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def test_a_model_reads_its_own_prefix(folder: Path, attacked: Any) -> None:
    result = replayed(folder, attacked.path.name, "prefixed")
    originals = {(r["recipe"], r["id"]): r for r in attacked.records()}
    for record in result.records():
        original = originals[record["recipe"], record["id"]]
        assert record["text"] == f"say: {original['text']}"
        assert record["perturbed_text"] == f"say: {original['perturbed_text']}"
        assert "changed_words" not in record
    # The same weights on the same text are the same model.
    asked = replayed(folder, attacked.path.name, "prefixed", source_prefix="")
    plain = replayed(folder, attacked.path.name, "spell")
    for one, other in zip(asked.document["rows"], plain.document["rows"], strict=True):
        assert one["gain_removed"] == other["gain_removed"]
    # And a run whose inputs had a prefix hands on the text behind it.
    run = attack(folder, model=str(folder / "prefixed"), recipe="random", limit=3)
    back = replayed(folder, run.path.name, "spell")
    for record, original in zip(back.records(), run.records(), strict=True):
        assert f"say: {record['text']}" == original["text"]


def test_another_task_is_told(folder: Path, attacked: Any) -> None:
    save_decoder(folder / "summaries", seed=2, task="xsum", source_prefix="")
    progress = Tells()
    run = attack(folder, recipe="random", limit=2, task="pronunciation").path.name
    replayed(folder, run, "summaries", progress=progress)
    assert [line for line in progress.told if "'pronunciation'" in line and "'xsum'" in line]


@pytest.mark.parametrize(
    ("models", "options", "message", "hint"),
    [
        (["films"], {}, "attacked the decoder '.*spell'; '.*films' is a classifier", "a decoder"),
        (["spell", "films"], {}, "'.*films' is a classifier", "a decoder"),
        (["spell"], {"patience": 2}, "--patience is for classifiers", "--confidence"),
        (["spell"], {"static_layer": 7}, "Static layer 7 is outside 1..3", "--static-layer"),
        (["spell"], {"confidence": "mlp"}, "stores no threshold for 'mlp'", "--threshold"),
        (["spell"], {"letter_rate": 0.5}, "--letter-rate says nothing with --transfer", "Leave"),
        (["spell"], {"recipe": "random"}, "--recipe says nothing with --transfer", "--recipe"),
        (
            ["spell"],
            {"threshold": 0.5, "shallow_layer": 1, "adaptive_threshold": True},
            "An adaptive threshold depends on the inputs before",
            "--no-adaptive-threshold",
        ),
    ],
)
def test_what_cannot_be_replayed_is_one_clear_line(
    folder: Path, attacked: Any, models: list[str], options: dict[str, Any], message: str, hint: str
) -> None:
    runs = len(list((folder / "results").iterdir()))
    with pytest.raises(UsageError, match=message) as raised:
        replayed(folder, attacked.path.name, *models, **options)
    assert hint in str(raised.value.hint)
    assert len(list((folder / "results").iterdir())) == runs


def test_a_classifiers_inputs_are_not_for_decoders(folder: Path) -> None:
    run = attack(
        folder,
        model=str(folder / "films"),
        data_file=folder / "films.csv",
        recipe="random",
        threshold=0.6,
    )
    message = "attacked the classifier '.*films'; '.*spell' is a decoder"
    with pytest.raises(UsageError, match=message) as raised:
        replayed(folder, run.path.name, "spell")
    assert "a classifier" in str(raised.value.hint)
    with pytest.raises(UsageError, match="--min-layer is for encoder-decoders"):
        replayed(folder, run.path.name, "films", threshold=0.6, min_layer=2)
