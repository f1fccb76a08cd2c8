"""``run_calibration`` on tiny random decoders."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_decoders import DEFAULTS, save_decoder

from eexit_cli.calibration.thresholds import confidence_scale
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data import load_examples
from eexit_cli.families.decoders import model as decoders
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.pipelines.calibrate import model as calibrate_model
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.store.results import ResultStore

FEW = (1.0, 0.8, 0.6, 0.4, 0.2)
GRID = confidence_scale("softmax").values


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder") / "calm")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """A file of 90 words with their phonemes."""
    task = load_examples(
        CalibrateConfig(task="pronunciation", limit=90), default_split="train", generates=True
    )
    rows = [f"{row['source']},{row['target']}" for row in task.dataset]
    path = tmp_path_factory.mktemp("pairs") / "words.csv"
    path.write_text("\n".join(["source,target", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def calibrate(tmp_path, decoder):
    def run(**options):
        # The model that all tests share must not gather calibrations.
        options.setdefault("store", "model" in options)
        options.setdefault("model", str(decoder))
        if "data_file" not in options:
            options.setdefault("limit", 40)
            options.setdefault("test_limit", 30)
        # Enough to see what happens; an empty one is the default grid.
        options.setdefault("thresholds", FEW)
        options.setdefault("delta", 0.4)
        options.setdefault("latency_samples", 0)
        options.setdefault("results_dir", tmp_path / "results")
        return run_calibration(CalibrateConfig(**options))

    return run


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """What was decoded, pass by pass."""
    titles: list[str] = []
    decode = decoders.decode_examples

    def counted(*args, title, **options):
        titles.append(title)
        return decode(*args, title=title, **options)

    monkeypatch.setattr(decoders, "decode_examples", counted)
    return titles


def rouge_l(one: str, other: str) -> float:
    """F1 of the longest common subsequence of symbols, by its definition."""
    a, b = one.split(), other.split()
    if a == b:
        return 1.0
    if not a or not b:
        return 0.0
    longest = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, left in enumerate(a, start=1):
        for j, right in enumerate(b, start=1):
            longest[i, j] = (
                longest[i - 1, j - 1] + 1
                if left == right
                else max(longest[i - 1, j], longest[i, j - 1])
            )
    common = longest[-1, -1]
    if common == 0:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return float(2 * precision * recall / (precision + recall))


def columns(result, part: str = "calibration", measure: str | None = None) -> list[dict]:
    return [
        record
        for record in result.records()
        if record["kind"] == "threshold"
        and record["part"] == part
        and record.get("confidence") == measure
    ]


class TestLosses:
    @pytest.mark.parametrize("consistency", ["textual", "risk"])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"confidence": "saturation", "min_layer": 2},
            {"confidence": "mlp"},
            {"top_k_propagation": 8},
            {"decay": "paper", "temperature": 2.0},
            {"shallow_layer": 1},
        ],
        ids=["softmax", "saturation", "mlp", "top-k", "decay", "free"],
    )
    def test_they_are_those_of_decoding_each_word_alone(
        self, calibrate, decoder, consistency, options
    ):
        options = {"consistency": consistency, "dtype": "float64", "limit": 12, **options}
        options["metric"] = "rouge-l-tokens"
        result = calibrate(delta=0.9, test_limit=2, **options)
        loaded = load_decoder(CalibrateConfig(model=str(decoder), dtype="float64"))
        words = load_examples(
            CalibrateConfig(task="pronunciation"), default_split="calibration", generates=True
        ).dataset
        truth = dict(zip(words["id"], words["target"], strict=True))
        names = next(result.records())["calibration"]

        def decode(word: str, settings: dict) -> tuple[str, list[int]]:
            batch = loaded.batcher()([word])
            with torch.inference_mode():
                (sample,) = loaded.model.decode(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    settings=settings_from(settings, loaded),
                ).samples
            text = loaded.tokenizer.decode(sample.tokens, skip_special_tokens=True)
            return text, sample.exit_layers

        beside = {
            name: options[name]
            for name in ("min_layer", "top_k_propagation", "decay", "temperature", "shallow_layer")
            if name in options
        }
        for record in columns(result)[::2]:
            settings = {
                "confidence": options.get("confidence", "softmax"),
                "threshold": record["threshold"],
                **beside,
            }
            if record["index"] == 0:
                settings = {"criterion": "full"}
            losses, layers, tokens = [], [], []
            for word in names:
                full, _ = decode(word, {"criterion": "full"})
                early, left = decode(word, settings)
                textual = 1 - rouge_l(early, full)
                risk = max(0.0, rouge_l(full, truth[word]) - rouge_l(early, truth[word]))
                losses.append(textual if consistency == "textual" else risk)
                layers.append(np.mean(left))
                tokens.append(len(left))
            assert record["losses"] == pytest.approx(losses)
            assert record["exit_layers"] == pytest.approx(layers)
            assert record["tokens"] == tokens
            row = result.document["rows"][record["index"]]
            # Over all tokens, not over the means of words.
            assert row["mean_exit_layer"] == pytest.approx(np.average(layers, weights=tokens))

    def test_phonemes_are_right_or_not_by_default_and_judged_otherwise_if_asked(self, calibrate):
        by_default = calibrate(test_limit=2)
        assert by_default.document["config"]["metric"] == "exact-match"
        for record in columns(by_default):
            assert set(record["losses"]) <= {0.0, 1.0}
        tests = {row["p_value"] for row in by_default.document["report"]["alternatives"]}
        assert "binomial" in tests
        other = calibrate(test_limit=2, metric="rouge-l-tokens")
        assert "over symbols" in other.document["report"]["guarantee"]

    def test_a_model_of_no_known_task_is_judged_by_words(self, calibrate, pairs, tmp_path):
        folder = save_decoder(tmp_path / "own", task=None)
        document = calibrate(model=str(folder), data_file=pairs).document
        assert document["config"]["metric"] == "rouge-l"

    def test_whichever_accepted_answer_suits_best_counts(self, decoder, monkeypatch, calibrate):
        """As in SQuAD, whose questions have several."""
        plain = calibrate(consistency="risk", test_limit=2)
        full = columns(plain)[0]["outputs"]
        monkeypatch.setattr(
            calibrate_model,
            "targets_of",
            lambda examples: [["nothing", output] for output in full[: len(examples)]],
        )
        risk = calibrate(consistency="risk", test_limit=2)
        textual = calibrate(consistency="textual", test_limit=2)
        # With the full output among the answers, risk is the dissimilarity from it.
        for one, other in zip(columns(risk), columns(textual), strict=True):
            assert one["losses"] == pytest.approx(other["losses"])


class TestPasses:
    def test_one_per_threshold_up_to_the_first_failure_and_two_on_the_test(self, calibrate, passes):
        document = calibrate(thresholds=()).document
        chosen = document["metrics"]["threshold_index"]
        assert 0 < chosen < 18
        thresholds = [f"softmax {value:g}, calibration" for value in GRID[1 : chosen + 2]]
        assert passes[: chosen + 2] == ["full model, calibration", *thresholds]
        assert sorted(passes[chosen + 2 :]) == [
            "full model, test",
            f"softmax {GRID[chosen]:g}, test",
        ]

    def test_curves_run_every_threshold_once_on_both_parts(self, calibrate, passes):
        result = calibrate(curves=True, repeats=3)
        assert len(passes) == len(set(passes)) == 2 * len(FEW)
        sweeps = [record for record in result.records() if record["kind"] == "sweep"]
        assert {record["delta"] for record in sweeps} == set(CalibrateConfig().deltas)
        assert all("test_mean_loss" in record for record in sweeps)

    def test_measures_share_the_full_models_pass(self, calibrate, passes):
        names = ("softmax", "saturation", "linear")
        result = calibrate(confidence=names)
        assert passes.count("full model, calibration") == 1
        assert passes.count("full model, test") == 1
        assert len(passes) == len(set(passes))
        document = result.document
        report = document["report"]
        assert [part["confidence"] for part in report["measures"]] == list(names)
        assert document["metrics"] == report["measures"][0]["metrics"]
        assert {row["confidence"] for row in document["rows"]} == set(names)
        assert any("does not cover choosing the best" in note for note in report["notes"])
        for name, part in zip(names, report["measures"], strict=True):
            alone = calibrate(confidence=name).document
            assert part["metrics"] == alone["metrics"]
            assert part["guarantee"] == alone["report"]["guarantee"]
            assert [
                {key: value for key, value in row.items() if key != "confidence"}
                for row in document["rows"]
                if row["confidence"] == name
            ] == alone["rows"]

    @pytest.mark.parametrize("options", [{}, {"confidence": ("softmax", "saturation")}])
    def test_an_interrupted_run_decodes_nothing_twice(
        self, calibrate, tmp_path, monkeypatch, passes, options
    ):
        unbroken = calibrate(**options)
        everything = list(passes)
        passes.clear()
        decode = decoders.decode_examples
        breaks_at = everything[-4]

        def breaking(*args, title, **named):
            if title == breaks_at:
                raise KeyboardInterrupt
            return decode(*args, title=title, **named)

        with monkeypatch.context() as patched:
            patched.setattr(decoders, "decode_examples", breaking)
            with pytest.raises(KeyboardInterrupt):
                calibrate(**options)
        (left,) = [
            item for item in ResultStore(tmp_path / "results").list() if item.status == "unfinished"
        ]
        before = list(passes)
        passes.clear()
        resumed = run_calibration(CalibrateConfig(resume=left.id, results_dir=tmp_path / "results"))
        assert set(before).isdisjoint(passes)
        assert sorted([*before, *passes]) == sorted(everything)
        assert resumed.document["metrics"] == unbroken.document["metrics"]
        assert resumed.document["rows"] == unbroken.document["rows"]
        assert list(resumed.records()) == list(unbroken.records())


class TestSamples:
    def test_two_splits_seeded(self, calibrate):
        first, again, other = (
            next(calibrate(seed=seed, thresholds=(1.0, 0.9)).records()) for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other
        splits = {
            split: set(
                load_examples(
                    CalibrateConfig(task="pronunciation"), default_split=split, generates=True
                ).dataset["id"]
            )
            for split in ("calibration", "test")
        }
        assert set(first["calibration"]) <= splits["calibration"]
        assert set(first["test"]) <= splits["test"]
        assert splits["calibration"].isdisjoint(splits["test"])

    def test_a_file_is_divided(self, calibrate, pairs):
        result = calibrate(data_file=pairs)
        samples = next(result.records())
        assert len(samples["calibration"]) == len(samples["test"]) == 45
        assert set(samples["calibration"]).isdisjoint(samples["test"])

    def test_fewer_than_asked(self, calibrate, pairs):
        with pytest.raises(UsageError, match="has 3000 samples, fewer than asked: --limit 3001"):
            calibrate(limit=3001)
        with pytest.raises(UsageError, match="has 90 samples, fewer than asked"):
            calibrate(data_file=pairs, limit=91)


class TestStored:
    @pytest.fixture
    def own(self, decoder, tmp_path) -> Path:
        return Path(shutil.copytree(decoder, tmp_path / "own"))

    def evaluate(self, own, pairs, tmp_path, **options):
        return run_evaluation(
            EvaluateConfig(
                model=str(own),
                data_file=pairs,
                threshold="calibrated",
                latency_samples=0,
                results_dir=tmp_path / "results",
                **options,
            )
        )

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"top_k_propagation": 8, "min_layer": 2},
            {"decay": "code", "temperature": 3.0, "confidence": "linear"},
            {"shallow_layer": 2},
            {"delta": 0.001},
        ],
        ids=["softmax", "top-k", "decay", "free", "full model"],
    )
    def test_an_evaluation_uses_it_as_it_was_calibrated(
        self, calibrate, own, pairs, tmp_path, options
    ):
        result = calibrate(model=str(own), data_file=pairs, **options)
        promised = result.document["metrics"]
        samples = next(result.records())
        evaluated = self.evaluate(own, pairs, tmp_path)
        assert {record["id"] for record in evaluated.records()} == set(samples["test"])
        metrics = evaluated.document["metrics"]
        assert metrics["mean_exit_layer"] == pytest.approx(promised["test_mean_exit_layer"])
        (column,) = [
            record
            for record in columns(result, "test")
            if record["index"] == promised["threshold_index"]
        ]
        outputs = dict(zip(samples["test"], column["outputs"], strict=True))
        assert {record["id"]: record["output"] for record in evaluated.records()} == outputs
        if not promised["certified"]:
            assert promised["threshold"] == 1.0
            assert evaluated.document["config"]["exit"] == {
                "criterion": "static", "static_layer": 3,
            }  # fmt: skip

    def test_it_is_found_by_its_settings(self, calibrate, own, pairs, tmp_path):
        plain = calibrate(model=str(own), data_file=pairs)
        cut = calibrate(model=str(own), data_file=pairs, top_k_propagation=8)
        again = calibrate(model=str(own), data_file=pairs, top_k_propagation=8)
        stored = json.loads((own / "calibration.json").read_text())["calibrations"]
        assert [entry["run_id"] for entry in stored] == [
            result.document["run_id"] for result in (plain, again)
        ]
        assert cut.document["report"]["stored"] == str(own / "calibration.json")
        for top_k, expected in ((None, again), (8, again), (0, plain)):
            used = self.evaluate(own, pairs, tmp_path, top_k_propagation=top_k)
            exit_ = used.document["config"]["exit"]
            assert exit_["threshold"] == expected.document["metrics"]["threshold"]
            assert exit_.get("top_k_propagation", 0) == (8 if expected is again else 0)
        with pytest.raises(MissingArtifactError, match="not made with --top-k-propagation 4") as no:
            self.evaluate(own, pairs, tmp_path, top_k_propagation=4)
        assert no.value.hint == f"Run: eexit calibrate --model {own} --top-k-propagation 4"

    def test_the_first_of_several_measures_is_the_one_used(self, calibrate, own, pairs, tmp_path):
        names = ("saturation", "softmax")
        calibrate(model=str(own), data_file=pairs, confidence=names)
        used = self.evaluate(own, pairs, tmp_path).document["config"]["exit"]
        assert used["confidence"] == "saturation"
        asked = self.evaluate(own, pairs, tmp_path, confidence="softmax").document["config"]["exit"]
        assert asked["confidence"] == "softmax"

    def test_it_goes_stale(self, calibrate, own, pairs, tmp_path):
        with pytest.raises(MissingArtifactError, match="No calibration for") as none:
            self.evaluate(own, pairs, tmp_path)
        assert none.value.hint == f"Run: eexit calibrate --model {own}"
        calibrate(model=str(own), data_file=pairs)
        with pytest.raises(MissingArtifactError, match="No calibration on 'mlp'"):
            self.evaluate(own, pairs, tmp_path, confidence="mlp")
        with pytest.raises(MissingArtifactError, match="with --max-new-tokens 12, not 5") as cut:
            self.evaluate(own, pairs, tmp_path, max_new_tokens=5)
        assert cut.value.hint == f"Run: eexit calibrate --model {own} --max-new-tokens 5"
        with pytest.raises(UsageError, match="--adaptive-threshold and --threshold calibrated"):
            self.evaluate(own, pairs, tmp_path, shallow_layer=1, adaptive_threshold=True)
        with pytest.raises(MissingArtifactError, match="is for task 'words', not for"):
            run_evaluation(
                EvaluateConfig(
                    model=str(own), threshold="calibrated", limit=20, latency_samples=0,
                    results_dir=tmp_path / "results",
                )
            )  # fmt: skip
        settings = json.loads((own / "config.json").read_text())
        settings["exit_defaults"]["threshold"] = 0.25
        (own / "config.json").write_text(json.dumps(settings))
        with pytest.raises(MissingArtifactError, match="is stale"):
            self.evaluate(own, pairs, tmp_path)


class TestBesideIt:
    def test_the_naive_search_looks_at_every_threshold(self, calibrate, passes):
        document = calibrate(consistency="risk", delta=0.2, compare_naive=True).document
        assert len([title for title in passes if title.endswith("calibration")]) == 5
        rows = {row["choice"]: row for row in document["report"]["comparison"]}
        assert rows["calibrated"]["threshold"] == document["metrics"]["threshold"]
        full = rows["full model"]["quality"]
        for share in (0.9, 0.95):
            row = rows[f"keeps {100 * share:g} % of the quality"]
            assert row["guarantee"] is False
            assert row["quality"] >= share * full
            assert row["test_within_delta"] == (row["test_mean_loss"] <= 0.2)

    def test_speed_is_measured(self, calibrate):
        metrics = calibrate(latency_samples=3).document["metrics"]
        ends = metrics["speedup_seconds_low"], metrics["speedup_seconds_high"]
        assert ends[0] <= metrics["speedup_seconds"] <= ends[1]
        assert (metrics["latency_samples"], metrics["timing_repeats"]) == (3, 5)
        full = calibrate(latency_samples=3, delta=0.001).document["metrics"]
        assert full["speedup_seconds"] == 1.0

    def test_a_model_whose_own_threshold_adapts(self, calibrate, tmp_path, pairs):
        folder = save_decoder(
            tmp_path / "free",
            exit_defaults={**DEFAULTS, "shallow_layer": 1, "adaptive_threshold": True},
        )
        data = {"model": str(folder), "data_file": pairs}
        document = calibrate(**data).document
        assert document["report"]["exit"]["shallow_layer"] == 1
        assert "adaptive_threshold" not in document["report"]["exit"]
        assert "The model's own threshold adapts" in document["report"]["notes"][-1]
        evaluated = run_evaluation(
            EvaluateConfig(
                **data, threshold="calibrated", latency_samples=0, results_dir=tmp_path / "results"
            )
        ).document
        assert evaluated["config"]["exit"]["threshold"] == document["metrics"]["threshold"]
        assert "adaptive" not in evaluated["config"]["exit"]

    def test_a_configuration_can_be_repeated_from_its_own_run(self, calibrate):
        document = calibrate(confidence=("softmax", "mlp"), top_k_propagation=None).document
        names = {field.name for field in dataclasses.fields(CalibrateConfig)}
        asked = {k: v for k, v in document["config"].items() if k in names and v is not None}
        asked = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()}
        asked["results_dir"] = Path(asked["results_dir"])
        again = run_calibration(CalibrateConfig(**asked)).document
        assert again["metrics"] == document["metrics"]
        assert again["rows"] == document["rows"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"adaptive_threshold": True}, "no value of it can be calibrated"),
            ({"criterion": "patience"}, "--criterion patience is for classifiers"),
            ({"confidence": "entropy"}, "Confidence 'entropy' is for classifiers"),
            ({"confidence": ("margin", "softmax")}, "names 'softmax' twice"),
            ({"confidence": "saturation", "top_k_propagation": 8}, "is for softmax response"),
            ({"min_layer": 9}, "outside 1..3"),
            ({"shallow_layer": 3}, "outside 1..2"),
            ({"temperature": 3.0}, "--temperature says nothing"),
            ({"thresholds": (0.9, 0.5)}, "lack the full model"),
            ({"thresholds": (1.0, 0.5, 0.7)}, "not in order"),
            ({"data_dir": Path("x")}, "--data-dir is for classifiers"),
            ({"task": "movie-reviews"}, "the model writes text"),
            ({"metric": "blue"}, "Unknown text metric 'blue'"),
            ({"max_new_tokens": 0}, "too few"),
        ],
    )
    def test_refusals(self, calibrate, options, message):
        with pytest.raises(UsageError, match=message) as caught:
            calibrate(**options)
        assert caught.value.hint

    def test_a_classifier_that_the_model_lacks(self, calibrate, tmp_path):
        folder = save_decoder(tmp_path / "own", classifiers=("linear",))
        with pytest.raises(UsageError, match="mlp"):
            calibrate(model=str(folder), confidence="mlp")


class TestUnderAttack:
    @pytest.fixture
    def attacked(self, tmp_path):
        """A run whose "adversary" doubles the last letters of each word."""

        def make(*, samples: int = 40, split: str = "test", targets: bool = True):
            words = load_examples(
                CalibrateConfig(task="pronunciation", limit=samples),
                default_split=split,
                generates=True,
            ).dataset
            with ResultStore(tmp_path / "results").create("attack", {"model": "calm"}) as run:
                for row in words:
                    record = {
                        "id": row["id"],
                        "text": row["source"],
                        "perturbed_text": row["source"] + row["source"][-2:],
                    }
                    run.append({**record, **({"target": row["target"]} if targets else {})})
                run.finish(metrics={})
                return run

        return make

    @pytest.mark.parametrize("consistency", ["textual", "risk"])
    def test_the_accepted_threshold_is_run_on_the_attackers_texts(
        self, calibrate, attacked, decoder, consistency
    ):
        run = attacked()
        asked = {"metric": "rouge-l-tokens", "dtype": "float64"}
        document = calibrate(verify_on=run.id, consistency=consistency, **asked).document
        metrics = document["metrics"]
        assert metrics["attack_samples"] == 40
        loaded = load_decoder(CalibrateConfig(model=str(decoder), dtype="float64"))
        early = settings_from(document["report"]["exit"], loaded)
        full = settings_from({"criterion": "full"}, loaded)
        for when, key in (("before", "text"), ("after", "perturbed_text")):
            losses, layers = [], []
            for record in run.records():
                batch = loaded.batcher()([record[key]])
                kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
                outputs = []
                for settings in (early, full):
                    (sample,) = loaded.model.decode(**kept, settings=settings).samples
                    outputs.append(loaded.tokenizer.decode(sample.tokens, skip_special_tokens=True))
                    if settings is early:
                        layers += sample.exit_layers
                if consistency == "textual":
                    losses.append(1 - rouge_l(*outputs))
                else:
                    good = [rouge_l(output, record["target"]) for output in outputs]
                    losses.append(max(0.0, good[1] - good[0]))
            assert metrics[f"mean_loss_{when}"] == pytest.approx(np.mean(losses))
            assert metrics[f"mean_exit_layer_{when}"] == pytest.approx(np.mean(layers))
        assert metrics["mixture_samples"] == 40
        assert document["report"]["attack"]["verdict"].startswith("On 40 adversarial inputs")

    def test_calibration_samples_are_left_out(self, calibrate, attacked):
        # The first 50 of the order that --limit 40 takes its samples from.
        run = attacked(split="calibration", samples=50)
        document = calibrate(verify_on=run.id, limit=40).document
        assert document["report"]["attack"]["left_out"] == 40
        assert document["metrics"]["attack_samples"] == 10

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"under_attack": "waffle"}, "Recipe 'waffle' attacks classifiers"),
            ({"under_attack": "same-token", "min_layer": 3}, "no token leaves before layer 3"),
        ],
    )
    def test_what_cannot_be_attacked_is_refused_before_the_calibration(
        self, calibrate, passes, tmp_path, options, message
    ):
        with pytest.raises(UsageError, match=message):
            calibrate(**options)
        assert passes == []
        assert not (tmp_path / "results").exists()

    def test_records_that_cannot_be_used(self, calibrate, attacked, tmp_path):
        with pytest.raises(UsageError, match="labels or references, and the attack's records"):
            calibrate(verify_on=attacked(targets=False).id, consistency="risk")
        with ResultStore(tmp_path / "results").create("attack", {"model": "calm"}) as run:
            run.append({"id": "1"})
            run.finish(metrics={})
        with pytest.raises(UsageError, match="records without texts"):
            calibrate(verify_on=run.id)
