"""An attack's inputs elsewhere: replayed on other victims and exits, exported for training."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attacks_tiny import ENTROPY_EXIT, TEXTS, Listens, save_classifier

from eexit_cli.confidence.entropy import MEASURE as ENTROPY
from eexit_cli.config import AttackConfig
from eexit_cli.config.results import ExportConfig
from eexit_cli.core.answers import Exit
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.seed import stream
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Trace
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.families.encoder.model import EncoderModel
from eexit_cli.pipelines.attack.defences import Inputs, Replies, defences, eagerest, undefended
from eexit_cli.pipelines.attack.replay_source import recovered
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.attack.speed import attack_latency
from eexit_cli.pipelines.export import TABLE, run_export

WORDS = [word for text in TEXTS for word in text.split()]


def write_model(
    folder: Path,
    names: list[str],
    *,
    seed: int = 0,
    patience: int = 0,
    task: str | None = None,
) -> Path:
    own = {"criterion": "patience", "patience": patience} if patience else ENTROPY_EXIT
    return save_classifier(folder, own, names=names, task=task, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    write_model(root / "first", ["negative", "positive"])
    write_model(root / "second", ["negative", "positive"], seed=4, patience=2)
    # The same weights as the second, its classes named the other way round.
    write_model(root / "swapped", ["positive", "negative"], seed=4, patience=2)
    write_model(root / "nameless", ["LABEL_0", "LABEL_1"], seed=4, patience=2)
    write_model(root / "single", ["negative", "positive"], seed=4, patience=2, task="sst2")
    write_model(root / "of-pairs", ["LABEL_0", "LABEL_1"], seed=4, patience=2, task="mrpc")
    write_model(root / "topics", ["sport", "politics", "science"], seed=5)
    write_model(root / "places", ["east", "west"], seed=5)
    write_model(root / "three-nameless", ["LABEL_0", "LABEL_1", "LABEL_2"], seed=5)
    draw = stream(3, "reviews")
    rows = [
        {"text": " ".join(draw.choices(WORDS, k=draw.randint(3, 14))), "label": label}
        for label in ("negative", "positive") * 8
    ]
    (root / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def attacked(folder: Path) -> Any:
    return run_attack(
        AttackConfig(
            model=str(folder / "first"),
            data_file=folder / "reviews.jsonl",
            recipe="same-token,random",
            limit=0,
            top_n=8,
            beam_width=2,
            per_size=3,
            results_dir=folder / "results",
        )
    )


def replayed(folder: Path, run: str, *models: str, progress: Any = None, **options: Any) -> Any:
    return run_attack(
        AttackConfig(
            transfer=(run,),
            model=",".join(str(folder / model) for model in models),
            results_dir=folder / "results",
            **options,
        ),
        progress=progress,
    )


class Tells(SilentProgress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def test_the_attacked_model_itself_leaves_where_the_attack_says(
    folder: Path, attacked: Any
) -> None:
    result = replayed(folder, attacked.path.name, "first")
    for source, row in zip(attacked.document["rows"], result.document["rows"], strict=True):
        assert row["recipe"] == source["recipe"]
        assert row["mean_exit_layer_before"] == source["mean_exit_layer_before"]
        assert row["mean_exit_layer_after"] == source["mean_exit_layer_after"]
        assert row["gain_removed"] == source["gain_removed"]
        assert row["accuracy_after"] == source["accuracy_after"]
    originals = {(r["recipe"], r["id"]): r for r in attacked.records()}
    for record in result.records():
        original = originals[record["recipe"], record["id"]]
        for name in ("exit_layer_before", "exit_layer_after", "prediction_after", "label"):
            assert record[name] == original[name]


def test_a_matrix_has_a_row_per_source_recipe_victim_and_defence(
    folder: Path, attacked: Any
) -> None:
    result = replayed(folder, attacked.path.name, "first", "second", defences=True)
    rows = result.document["rows"]
    per_cell = ["none", "patience", "patience", "voting", "recalibrated"]
    assert [row["defence"] for row in rows[:5]] == per_cell
    second = [row for row in rows if row["victim"].endswith("second")]
    # It has patience 2 of at most 3: one more is all there is.
    assert [row["defence"] for row in second[:4]] == ["none", "patience", "voting", "recalibrated"]
    assert [row["patience"] for row in second[:2]] == [2, 3]
    assert {row["source"] for row in rows} == {str(folder / "first")}
    for row in rows:
        before, after = row["mean_exit_layer_before"], row["mean_exit_layer_after"]
        assert row["gain_removed"] == pytest.approx((after - before) / (5 - before))
        assert row["gain_removed_low"] <= row["gain_removed"] <= row["gain_removed_high"]
        assert row["latency_ms_after"] > 0
    records = list(result.records())
    assert len(records) == 2 * 2 * 16
    assert result.document["metrics"]["gain_removed"] == rows[0]["gain_removed"]


def test_classes_in_another_order_are_the_same_classes(folder: Path, attacked: Any) -> None:
    result = replayed(folder, attacked.path.name, "second", "swapped")
    half = len(result.document["rows"]) // 2
    plain, swapped = (
        [row for row in result.document["rows"] if row["victim"].endswith(name)]
        for name in ("second", "swapped")
    )
    assert len(plain) == len(swapped) == half
    for one, other in zip(plain, swapped, strict=True):
        assert one["mean_exit_layer_after"] == other["mean_exit_layer_after"]
        # The same answers now mean the opposite.
        assert one["accuracy_after"] == pytest.approx(1 - other["accuracy_after"])


@pytest.mark.parametrize(
    ("models", "options", "message", "hint"),
    [
        (["topics"], {}, "answers sport, politics, science", "same task"),
        (["first", "topics"], {}, "attacked '.*' .negative, positive.", "same task"),
        (["places"], {}, "answers east, west", "same task"),
        (["three-nameless"], {}, "answers LABEL_0, LABEL_1, LABEL_2", "same task"),
        (["first"], {"recipe": "random"}, "--recipe says nothing with --transfer", "--recipe"),
        (["first"], {"limit": 5}, "--limit says nothing with --transfer", "--limit"),
        (["first"], {"workers": 2}, "--workers says nothing with --transfer", "--workers"),
        (["first"], {"static_layer": 7}, "7", "layer"),
        (["first"], {"min_layer": 2}, "--min-layer is for encoder-decoders", "--min-layer"),
        (
            ["of-pairs"],
            {},
            "attacked single texts; '.*of-pairs' was trained on pairs of texts .'mrpc'.",
            "same task",
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


def test_classes_without_names_are_told_in_one_line(folder: Path, attacked: Any) -> None:
    progress = Tells()
    result = replayed(folder, attacked.path.name, "second", "nameless", progress=progress)
    (line,) = [line for line in progress.told if "no names to compare" in line]
    assert "'" + str(folder / "nameless") + "' (LABEL_0, LABEL_1)" in line
    assert "(negative, positive)" in line
    # Taken in their order: the same weights give the same figures.
    half = len(result.document["rows"]) // 2
    for recipe in ("same-token", "random"):
        named, nameless = (r for r in result.document["rows"] if r["recipe"] == recipe)
        assert named["accuracy_after"] == nameless["accuracy_after"]
    assert half == 2


def test_the_attacked_model_itself_needs_no_comparison(folder: Path) -> None:
    """It was attacked with the inputs that it is replayed on, whatever it was trained for."""
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_attack(
        AttackConfig(
            model=str(folder / "of-pairs"),
            data_file=folder / "own.jsonl",
            recipe="random",
            results_dir=folder / "results",
        )
    )
    progress = Tells()
    result = replayed(folder, run.path.name, "of-pairs", progress=progress)
    assert result.document["rows"][0]["gain_removed"] == run.document["rows"][0]["gain_removed"]
    assert not [line for line in progress.told if "no names" in line]


def export_of(result: Any, folder: Path, **options: Any) -> ExportConfig:
    """A run's inputs, to go to a folder."""
    return ExportConfig(
        run=result.path.name, results_dir=result.path.parent, output=folder, **options
    )


def test_a_replay_is_neither_replayed_nor_resumed(folder: Path, attacked: Any) -> None:
    result = replayed(folder, attacked.path.name, "first")
    with pytest.raises(UsageError, match="replays another run's inputs itself"):
        replayed(folder, result.path.name, "first")
    with pytest.raises(UsageError, match="replays another run's inputs") as raised:
        run_export(export_of(result, folder / "none"))
    assert attacked.path.name in str(raised.value.hint)
    os.remove(result.path / "all_results.json")
    with pytest.raises(UsageError, match="nothing to go on with"):
        run_attack(AttackConfig(resume=result.path.name, results_dir=folder / "results"))


class Traced(EncoderModel):
    """Answers from logits that are given: of each text before the attack, then after it."""

    num_layers, num_classes, label_names = 6, 2, ("negative", "positive")

    def __init__(self, before: torch.Tensor, after: torch.Tensor) -> None:
        object.__setattr__(self, "logits", {"before": before, "after": after})

    def inputs(self, samples: Any, **_: Any) -> Trace:
        words = [text.split() for text in samples.dataset["text"]]
        logits = torch.stack([self.logits[when][int(row)] for when, row in words])  # type: ignore[attr-defined]
        return Trace(logits, None, torch.ones(len(words)), tuple(samples.dataset["id"]))


class Given(Inputs):
    """The logits of samples, and of a row the layer where it leaves."""

    def __init__(self, before: torch.Tensor, after: torch.Tensor, ids: tuple[str, ...]) -> None:
        texts = [[f"{when} {row}" for row in range(len(ids))] for when in ("before", "after")]
        replies = Replies(
            Traced(before, after),
            [*texts[0], *texts[1]],
            batch_size=None,
            progress=SilentProgress(),
            title="",
        )
        super().__init__(replies, ids, *texts)
        object.__setattr__(self, "logits", (before, after))


def as_exit(criterion: Any) -> Exit:
    return Exit.of(criterion.describe(), criterion)


def layers_of(replies: list[Any]) -> list[int]:
    return [layer for reply in replies for layer in reply.layers]


def traces(seed: int = 0, samples: int = 60) -> Given:
    """Exits that agree more with depth on clean inputs, less on attacked ones."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 2, (samples,), generator=draw)
    sure = torch.linspace(0.6, 3.0, 6)[None, :, None]
    sign = torch.nn.functional.one_hot(truth, 2)[:, None, :] * 2.0 - 1
    noise = torch.randn((2, samples, 6, 2), generator=draw)
    ids = tuple(map(str, range(samples)))
    return Given(sure * sign + noise[0], 0.35 * sure * sign + noise[1], ids)


def test_defences_are_what_replaying_them_gives() -> None:
    given, criterion = traces(), PatienceExit(1)
    found = {
        outcome.defence + str(outcome.settings[0].get("patience", "")): outcome
        for outcome in defences(given, as_exit(criterion), seed=1)
    }
    assert list(found)[:3] == ["patience2", "patience3", "voting"]
    assert [name.startswith("recalibrated") for name in found] == [False, False, False, True]
    for name, patience in (("patience2", 2), ("patience3", 3)):
        expected = replay(given.logits[1], PatienceExit(patience))
        assert layers_of(found[name].after) == expected.exit_layers.tolist()
    depths = [
        float(replay(given.logits[0], found["voting"].exits[0].rule).exit_layers.double().mean()),
        float(np.mean(layers_of(undefended(given, as_exit(criterion)).before))),
    ]
    assert abs(depths[0] - depths[1]) < 0.8


@pytest.mark.parametrize("seed", range(5))
def test_recalibration_contradicts_the_full_model_no_more_than_before(seed: int) -> None:
    """On attacked inputs it was not chosen on, up to the noise of halves of 200."""
    given, criterion = traces(seed, samples=400), PatienceExit(1)
    own = undefended(given, as_exit(criterion))
    (recalibrated,) = [
        outcome
        for outcome in defences(given, as_exit(criterion), seed=seed)
        if outcome.defence == "recalibrated"
    ]

    def contradictions(logits: torch.Tensor, replies: list[Any]) -> float:
        answers = torch.tensor([reply.output for reply in replies])
        return float((logits[:, -1].argmax(-1) != answers).double().mean())

    before, after = given.logits
    tolerated = contradictions(before, own.before)
    assert contradictions(after, own.after) > tolerated + 0.05
    assert contradictions(after, recalibrated.after) <= tolerated + 0.05
    assert len(recalibrated.settings) == 2


ENTROPIES = ThresholdExit(ENTROPY, 0.4, num_classes=2)


@pytest.mark.parametrize("samples", [1, 2, 37])
@pytest.mark.parametrize("criterion", [PatienceExit(1), ENTROPIES], ids=["patience", "entropy"])
def test_each_sample_leaves_by_the_rule_of_its_own_half(samples: int, criterion: Any) -> None:
    given = traces(7, samples=samples)
    for outcome in defences(given, as_exit(criterion), seed=2):
        assert len(outcome.exits) == samples
        for logits, replies in zip(given.logits, (outcome.before, outcome.after), strict=True):
            alone = [
                int(replay(logits[row : row + 1], exit.rule).exit_layers)
                for row, exit in enumerate(outcome.exits)
            ]
            assert layers_of(replies) == alone
        used = [exit.described for exit in outcome.exits]
        assert all(settings in outcome.settings for settings in used)


def test_a_half_is_judged_by_the_last_rule_before_the_first_failure_on_the_other() -> None:
    """Against a walk over the grid here; an eager setting that fits by luck is not taken."""
    lucky = 0
    for seed in range(12):
        given = traces(seed, samples=24)
        before, after = given.logits
        exit = as_exit(ENTROPIES)
        (outcome,) = [o for o in defences(given, exit, seed=seed) if len(o.settings) == 2]
        # Four decimals to the cautious side, which is down; the end is ln 2 itself.
        grid = [math.floor(1e4 * math.log(2) * step / 40) / 1e4 for step in range(40)]
        grid.append(math.log(2))
        rules = [ThresholdExit(ENTROPY, x, num_classes=2) for x in grid]
        first = [stream(seed, "half", name).random() < 0.5 for name in given.ids]
        for half, judged in ((True, False), (False, True)):
            rows = [row for row, of_first in enumerate(first) if of_first == half]

            def wrong(logits: Any, decision: Any, rows: list[int] = rows) -> float:
                full = logits[:, -1].argmax(-1)
                return sum(int(full[r] != decision.predictions[r]) for r in rows) / len(rows)

            allowed = wrong(before, replay(before, ENTROPIES))
            fits = [wrong(after, replay(after, r)) <= allowed + 1e-12 for r in rules]
            walked = 0
            while walked + 1 < len(fits) and fits[walked + 1]:
                walked += 1
            lucky += any(fits[walked + 1 :])
            chosen = {
                exit.described["threshold"]
                for exit, of_first in zip(outcome.exits, first, strict=True)
                if of_first == judged
            }
            assert list(chosen) == pytest.approx([grid[walked]])
    assert lucky  # the two ways of choosing do differ on such samples


def test_the_walk_stops_at_the_first_failure() -> None:
    looked: list[bool] = []

    def fits() -> Iterator[bool]:
        for fit in (True, True, False, True):
            looked.append(fit)
            yield fit

    assert eagerest(fits()) == 1
    assert looked == [True, True, False]
    assert [eagerest(each) for each in ([], [False, True], [True], [True, True])] == [0, 0, 0, 1]


def test_every_sample_is_timed_under_its_own_rule() -> None:
    timed: list[tuple[str, Any]] = []

    model: Any = SimpleNamespace(
        device=torch.device("cpu"),
        full=lambda: None,
        tokenised=lambda text, pair: text,
        live=lambda text, exit: timed.append((text, exit)),
    )
    records = [{"text": f"{row}", "perturbed_text": f"{row}'"} for row in range(6)]
    rules: list[Any] = [as_exit(PatienceExit(1 + row % 2)) for row in range(6)]
    rows = {"row": (records, rules)}
    config = AttackConfig(latency_samples=5)
    found = attack_latency(rows, model, config, SilentProgress())["row"]
    assert (found["latency_samples"], found["timing_repeats"]) == (5, 5)
    own = {text: rules[int(text[0])] for text, _ in timed}
    assert {text for text, _ in timed} == {f"{row}{mark}" for row in range(5) for mark in ("", "'")}
    assert all(criterion in (None, own[text]) for text, criterion in timed)
    for text, rule in own.items():
        assert (text, rule) in timed
        assert (text, None) in timed


def test_recovered_is_a_share_of_what_was_taken() -> None:
    none = {"mean_exit_layer_before": 3.0, "mean_exit_layer_after": 5.0}
    none |= {"accuracy_before": 0.9, "accuracy_after": 0.5}
    defended = {"mean_exit_layer_after": 4.5, "accuracy_after": 0.8}
    found = recovered(none, defended, "accuracy")
    assert found == pytest.approx({"layers_recovered": 0.25, "accuracy_recovered": 0.75})
    worse = recovered(none, {"mean_exit_layer_after": 6.0, "accuracy_after": 0.4}, "accuracy")
    assert worse == pytest.approx({"layers_recovered": -0.5, "accuracy_recovered": -0.25})
    nothing = {**none, "mean_exit_layer_after": 2.5, "accuracy_after": 0.9}
    by_chance = {**none, "gain_removed_low": 0.0, "accuracy_after": none["accuracy_before"] - 0.005}
    assert set(recovered(by_chance, defended, "accuracy").values()) == {None}
    assert recovered(nothing, defended, "accuracy") == {
        "layers_recovered": None,
        "accuracy_recovered": None,
    }


def test_an_export_loads_with_datasets_and_trains(folder: Path, attacked: Any) -> None:
    import datasets

    target = folder / "adversarial"
    hears = Listens()
    written = run_export(export_of(attacked, target, with_originals=True), progress=hears)
    assert hears.heard[-1] == (
        "These come from the whole of reviews.jsonl; a model trained on them must not be reported "
        "on it: attack --split train"
    )
    rows = datasets.load_from_disk(str(target)).to_list()
    assert datasets.Dataset.from_parquet(str(target / TABLE)).to_list() == rows
    assert len(rows) == written["rows"] == written["adversarial"] + written["originals"]
    records = list(attacked.records())
    changed = [record for record in records if record["perturbed_text"] != record["text"]]
    adversarial = [row for row in rows if row["kind"] == "adversarial"]
    assert [row["text"] for row in adversarial] == [r["perturbed_text"] for r in changed]
    assert [row["label"] for row in adversarial] == [
        ("negative", "positive")[record["label"]] for record in changed
    ]
    originals = [row for row in rows if row["kind"] == "original"]
    assert len(originals) == 16
    assert all(row["text"] == row["original_text"] for row in originals)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["split"] for row in rows} == {written["split"]} == {"test"}

    from eexit_cli.data import load_examples

    read = load_examples(
        AttackConfig(data_file=target / TABLE, limit=None),
        default_split="test",
        label_names=("negative", "positive"),
    )
    assert list(read.dataset["text"]) == [row["text"] for row in rows]
    assert read.info.label_names == ("negative", "positive")
    parts = []
    for split in ("train", "validation"):
        part = load_examples(
            AttackConfig(data_file=target, limit=None, split=split),
            default_split="train",
            label_names=("negative", "positive"),
        )
        texts = {row["text"]: row["original_text"] for row in rows}
        parts.append({texts[text] for text in part.dataset["text"]})
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {row["original_text"] for row in originals}
    with pytest.raises(UsageError, match="is not empty"):
        run_export(export_of(attacked, target))


def test_an_export_of_training_samples_needs_no_warning(folder: Path, attacked: Any) -> None:
    result = run_attack(
        AttackConfig(
            model=str(folder / "first"),
            data_file=folder / "reviews.jsonl",
            split="train",
            recipe="random",
            query_budget=20,
            limit=0,
            results_dir=folder / "results",
        )
    )
    hears = Listens()
    written = run_export(export_of(result, folder / "of-train"), progress=hears)
    assert written["split"] == "train"
    assert [line.split(" of run")[0] for line in hears.heard] == [
        f"{written['adversarial']} attacked inputs"
    ]


def test_an_export_may_leave_failed_attacks_out(folder: Path, attacked: Any) -> None:
    import datasets

    written = run_export(export_of(attacked, folder / "slower", only_slower=True))
    records = [json.loads(line) for line in (attacked.path / "records.jsonl").open()]
    slower = [r for r in records if r["exit_layer_after"] > r["exit_layer_before"]]
    assert 0 < len(slower) == written["slower"] == written["adversarial"]
    rows = datasets.load_from_disk(str(folder / "slower"))
    assert {row["text"] for row in rows} == {r["perturbed_text"] for r in slower}


def test_pairs_keep_their_second_text(folder: Path) -> None:
    path = folder / "pairs.jsonl"
    rows = [
        {"text": one, "second": two, "label": "positive"}
        for one, two in zip(TEXTS, reversed(TEXTS), strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AttackConfig(
        model=str(folder / "first"),
        data_file=path,
        text_pair_column="second",
        limit=0,
        top_n=8,
        beam_width=2,
        per_size=3,
        results_dir=folder / "results",
    )
    result = run_attack(config)
    again = replayed(folder, result.path.name, "first")
    assert again.document["rows"][0]["gain_removed"] == result.document["rows"][0]["gain_removed"]
    message = "attacked pairs of texts; '.*single' was trained on single texts .'sst2'."
    with pytest.raises(UsageError, match=message) as raised:
        replayed(folder, result.path.name, "single")
    assert "same task" in str(raised.value.hint)
    written = run_export(export_of(result, folder / "pairs"))
    assert written["adversarial"] > 0
    import datasets

    seconds = {row["text"]: row["second"] for row in rows}
    for row in datasets.load_from_disk(str(folder / "pairs")):
        assert row["original_text_pair"] == seconds[row["original_text"]]
