"""A calibrated threshold on an attacker's texts, and a mixture of clean and adversarial ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from calibration_tiny import ids_and_texts, labels_of

from eexit_cli.attacks import ATTACKS
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.families.encoder.exits import criterion_from
from eexit_cli.families.encoder.loaded import LoadedModel
from eexit_cli.families.encoder.model import load_model
from eexit_cli.pipelines.attack import plan as attack_plan
from eexit_cli.store.results import ResultStore


class TestUnderAttack:
    @pytest.fixture
    def attacked(self, models, tmp_path):
        """An attack run whose "adversary" replaces each text by another of the data set."""

        def make(
            *,
            command: str = "attack",
            shift: int = 7,
            samples: int = 60,
            skipped: int = 0,
            exit: dict | None = None,
        ):
            ids, texts = ids_and_texts(models / "data.csv")
            labels = labels_of(models / "data.csv")
            store = ResultStore(tmp_path / "results")
            with store.create(command, {"model": str(models / "deebert"), "exit": exit}) as run:
                for row in range(samples):
                    run.append(
                        {
                            "id": ids[row],
                            "text": texts[row],
                            "label": labels[row],
                            "status": "skipped" if row < skipped else "attacked",
                            "perturbed_text": texts[
                                row if row < skipped else (row + shift) % len(texts)
                            ],
                        }
                    )
                run.finish(metrics={})
                return run

        return make

    def test_the_accepted_threshold_is_replayed_on_the_attackers_texts(
        self, calibrate, attacked, models
    ):
        run = attacked()
        result = calibrate(delta=0.3, verify_on=run.id)
        document = result.document
        metrics, report = document["metrics"], document["report"]["attack"]
        seen = set(next(result.records())["calibration"])
        kept = [record for record in run.records() if record["id"] not in seen]
        texts = {text for _, text in zip(*ids_and_texts(models / "data.csv"), strict=True)}
        assert len(texts) == 240, "texts repeat, so leaving out by text is not by id"
        assert metrics["attack_samples"] == len(kept)
        assert report["left_out"] == 60 - len(kept)
        loaded = load_model(CalibrateConfig(model=str(models / "deebert")))
        live = criterion_from(document["report"]["exit"], num_layers=4, num_classes=2)
        for when, key in (("before", "text"), ("after", "perturbed_text")):
            differ, layers = [], []
            for record in kept:
                batch = loaded.batcher()([record[key]])
                with torch.inference_mode():
                    early = loaded.model.infer(**batch, criterion=live)
                    full = loaded.model.infer(**batch, criterion=None)
                differ.append(int(early.predictions[0]) != int(full.predictions[0]))
                layers.append(int(early.exit_layers[0]))
            assert metrics[f"mean_loss_{when}"] == pytest.approx(np.mean(differ))
            assert metrics[f"mean_exit_layer_{when}"] == pytest.approx(np.mean(layers))
            low, high = metrics[f"mean_loss_low_{when}"], metrics[f"mean_loss_high_{when}"]
            assert low <= metrics[f"mean_loss_{when}"] <= high
        assert report["run"] == run.id
        assert metrics["within_delta_after"] == (metrics["mean_loss_after"] <= 0.3)

    def test_a_mixture_of_clean_samples_alone_is_the_clean_calibration(self, calibrate, attacked):
        run = attacked(shift=0)
        figures = [
            calibrate(delta=0.3, verify_on=run.id, clean_share=share).document["metrics"]
            for share in (0.0, 0.5, 1.0)
        ]
        names = [name for name in figures[0] if name.startswith("mixture_")]
        assert len(names) > 4
        for name in set(names) - {"mixture_clean_share"}:
            assert figures[0][name] == figures[1][name] == figures[2][name]
        assert figures[0]["mean_loss_before"] == figures[0]["mean_loss_after"]
        assert figures[0]["gain_removed"] in (0.0, None)

    def test_a_run_that_is_no_attack_run(self, calibrate, attacked):
        run = attacked(command="evaluate")
        with pytest.raises(UsageError, match="is a run of 'evaluate', not of 'attack'"):
            calibrate(verify_on=run.id)
        with pytest.raises(MissingArtifactError, match="No run 'nothing'"):
            calibrate(verify_on="nothing")
        empty = attacked(samples=0)
        with pytest.raises(UsageError, match="has no records"):
            calibrate(verify_on=empty.id)

    def test_calibration_samples_say_nothing(self, calibrate, attacked):
        run = attacked(samples=240)
        with pytest.raises(UsageError, match=r"Every sample .* is a calibration sample"):
            calibrate(verify_on=run.id, test_limit=0)

    def test_an_attacker_who_knows_the_threshold(self, calibrate, tmp_path):
        document = calibrate(
            delta=0.4, under_attack="same-token", attack_limit=12, limit=150
        ).document
        run = ResultStore(tmp_path / "results").open(document["report"]["attack"]["run"])
        assert run.command == "attack"
        assert run.config["threshold"] == document["report"]["exit"]["threshold"]
        assert run.config["confidence"] == "entropy"
        metrics = document["metrics"]
        assert 0 < metrics["attack_samples"] <= 12
        assert metrics["attack_samples"] + document["report"]["attack"]["left_out"] == 12
        # A slowdown attack on this threshold does not make samples leave earlier.
        assert metrics["mean_exit_layer_after"] >= metrics["mean_exit_layer_before"]
        with pytest.raises(UsageError, match="Unknown"):
            calibrate(under_attack="same-tokn")

    @pytest.mark.parametrize("name", ["naive", "conformal", "clt"])
    def test_no_promise_is_broken_where_none_was_made(self, calibrate, attacked, name):
        document = calibrate(delta=0.3, p_value=name, verify_on=attacked().id).document
        metrics, report = document["metrics"], document["report"]
        verdict = report["attack"]["verdict"]
        assert f"'{name}' gave no guarantee that an attack could break" in verdict
        assert "promise" not in verdict
        above = metrics["mean_loss_after"] > 0.3
        assert f"{'above' if above else 'within'} delta on these samples" in verdict
        # The mean itself is no bound.
        assert not any(key.startswith(("mean_loss_low", "mean_loss_high")) for key in metrics)
        assert metrics["certified"] is False
        assert report["bound"] is None
        assert "mean_loss_bound" not in metrics

    def test_skipped_inputs_are_counted_apart(self, calibrate, attacked, models):
        whole = calibrate(delta=0.3, verify_on=attacked().id).document
        assert whole["metrics"]["attack_skipped"] == 0
        run = attacked(skipped=20)
        result = calibrate(delta=0.3, verify_on=run.id)
        metrics, report = result.document["metrics"], result.document["report"]["attack"]
        seen = set(next(result.records())["calibration"])
        kept = [record for record in run.records() if record["id"] not in seen]
        skipped = sum(record["status"] == "skipped" for record in kept)
        assert 0 < skipped < len(kept) == metrics["attack_samples"]
        assert metrics["attack_skipped"] == skipped
        assert report["verdict"].startswith(
            f"On {len(kept)} inputs ({len(kept) - skipped} attacked, {skipped} skipped and "
            "unchanged) the mean loss is "
        )

    def test_the_mixture_says_what_the_attack_was_made_against(self, calibrate, attacked):
        exits = {
            "own": {"criterion": "threshold", "confidence": "entropy"},
            "other": {"criterion": "threshold", "confidence": "entropy", "threshold": 0.125},
            "kind": {"criterion": "patience", "patience": 2},
        }
        document = calibrate(delta=0.3, verify_on=attacked().id, clean_share=1.0).document
        exits["own"]["threshold"] = document["metrics"]["mixture_threshold"]
        said = {
            name: calibrate(
                delta=0.3, verify_on=attacked(exit=settings).id, clean_share=1.0
            ).document["report"]["attack"]["mixture"]
            for name, settings in exits.items()
        }
        assert "was made against" not in said["own"]
        assert "The attack was made against entropy threshold 0.125, not against" in said["other"]
        assert "The attack was made against another exit, not against" in said["kind"]

    def test_a_recipe_that_lacks_something_is_refused_before_the_calibration(
        self, calibrate, monkeypatch, tmp_path
    ):
        lacking = dataclasses.replace(ATTACKS.load("same-token"), missing=lambda: "a dictionary")

        class Catalog(dict):
            load = dict.__getitem__
            working = dict.items

        def traced(*args, **options):
            raise AssertionError("the model was run")

        monkeypatch.setattr(attack_plan, "catalog_of", lambda _: Catalog({"same-token": lacking}))
        monkeypatch.setattr(LoadedModel, "trace", traced)
        with pytest.raises(MissingArtifactError, match="cannot run here: it needs a dictionary"):
            calibrate(under_attack="same-token")
        assert not (tmp_path / "results").exists()

    def test_there_is_nothing_to_attack_at_the_full_model(self, calibrate):
        report = calibrate(delta=0.001, under_attack="same-token").document["report"]
        assert "Nothing to attack" in report["attack"]["verdict"]


class TestPairs:
    """The second text is the attacker's too."""

    @pytest.fixture
    def pairs(self, models, tmp_path):
        """The sentences of the data set, each with the next one as its second text."""
        _, texts = ids_and_texts(models / "data.csv")
        labels = labels_of(models / "data.csv")
        rows = zip(texts, [*texts[1:], texts[0]], labels, strict=True)
        # A name and a form that give samples the ids of the data set.
        path = tmp_path / "data.csv"
        lines = ["text,second,label", *(f"{a},{b},LABEL_{label}" for a, b, label in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"data_file": path, "text_pair_column": "second"}

    def agreed(self, document, kept, models):
        """What the model does with each record, run on it alone."""
        loaded = load_model(CalibrateConfig(model=str(models / "deebert")))
        live = criterion_from(document["report"]["exit"], num_layers=4, num_classes=2)
        for when, key in (("before", "text"), ("after", "perturbed_text")):
            pair_key = {"before": "text_pair", "after": "perturbed_text_pair"}[when]
            differ, layers = [], []
            for record in kept:
                batch = loaded.batcher()([record[key]], [record[pair_key]])
                with torch.inference_mode():
                    early = loaded.model.infer(**batch, criterion=live)
                    full = loaded.model.infer(**batch, criterion=None)
                differ.append(int(early.predictions[0]) != int(full.predictions[0]))
                layers.append(int(early.exit_layers[0]))
            metrics = document["metrics"]
            assert metrics[f"mean_loss_{when}"] == pytest.approx(np.mean(differ)), when
            assert metrics[f"mean_exit_layer_{when}"] == pytest.approx(np.mean(layers)), when

    def test_an_attack_on_the_second_text_alone(self, calibrate, models, pairs, tmp_path):
        ids, texts = ids_and_texts(models / "data.csv")
        with ResultStore(tmp_path / "results").create("attack", {"model": "deebert"}) as run:
            for row in range(60):
                run.append(
                    {
                        "id": ids[row],
                        "text": texts[row],
                        "text_pair": texts[row + 1],
                        "status": "attacked",
                        "perturbed_text": texts[row],
                        "perturbed_text_pair": texts[row + 8],
                    }
                )
            run.finish(metrics={})
        result = calibrate(delta=0.3, verify_on=run.id, limit=100, **pairs)
        seen = set(next(result.records())["calibration"])
        kept = [record for record in run.records() if record["id"] not in seen]
        assert 0 < len(kept) < 60
        assert result.document["metrics"]["attack_samples"] == len(kept)
        self.agreed(result.document, kept, models)
        metrics = result.document["metrics"]
        assert metrics["mean_exit_layer_before"] != metrics["mean_exit_layer_after"]

    def test_a_first_text_that_calibration_saw_with_another_second_one_is_new(
        self, calibrate, models, pairs, tmp_path
    ):
        _, texts = ids_and_texts(models / "data.csv")
        with ResultStore(tmp_path / "results").create("attack", {"model": "deebert"}) as run:
            for row in range(20):
                changed = {"perturbed_text": texts[row], "perturbed_text_pair": texts[row + 9]}
                run.append(
                    {"id": str(row), "text": texts[row], "text_pair": texts[row + 5], **changed}
                )
            run.finish(metrics={})
        document = calibrate(delta=0.3, verify_on=run.id, test_limit=0, **pairs).document
        assert document["report"]["attack"]["left_out"] == 0
        assert document["metrics"]["attack_samples"] == 20

    def test_an_attack_made_for_the_threshold(self, calibrate, models, pairs, tmp_path):
        document = calibrate(
            delta=0.25, under_attack="same-token", attack_limit=25, limit=150, **pairs
        ).document
        run = ResultStore(tmp_path / "results").open(document["report"]["attack"]["run"])
        records = run.records()
        assert any(r["perturbed_text_pair"] != r["text_pair"] for r in records)
        assert document["report"]["attack"]["left_out"] == 0
        self.agreed(document, records, models)
        # The attack saw the same exits when it judged its own texts.
        layers = [record["exit_layer_after"] for record in records]
        assert document["metrics"]["mean_exit_layer_after"] == pytest.approx(np.mean(layers))
