"""What a calibration stores, which of several is taken, and what its promise is bound to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_decoders import save_decoder

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.evaluate import EvaluateConfig, PredictConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, RiskNotControlledError
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.calibrate import session as calibrate_session
from eexit_cli.pipelines.calibrate import under_attack as calibrate_attack
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.predict import run_prediction
from eexit_cli.store.results import Run


@pytest.fixture
def own(models, tmp_path, monkeypatch, told):
    """A model of one's own: ``own.calibrate`` and ``own.evaluate`` it, ``own.kept`` what it has."""
    folder = Path(shutil.copytree(models / "deebert", tmp_path / "own"))
    monkeypatch.chdir(tmp_path)

    class Own:
        path = folder

        def __init__(self):
            self.data = {"model": "own", "data_file": models / "data.csv"}

        def calibrate(self, **options):
            options = {"delta": 0.3, "limit": 120, "latency_samples": 0, **options}
            return run_calibration(CalibrateConfig(**self.data, **options)).document

        def evaluate(self, threshold="calibrated", **options):
            options = {"latency_samples": 0, **options}
            config = EvaluateConfig(**self.data, threshold=threshold, **options)
            return run_evaluation(config, progress=told).document["config"]["exit"]

        @property
        def kept(self):
            content = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
            return [entry["run_id"] for entry in content["calibrations"]]

    return Own()


class TestStored:
    def test_a_strict_run_that_fails_stores_nothing(self, own):
        good = own.calibrate()
        before = (own.path / "calibration.json").read_bytes()
        with pytest.raises(RiskNotControlledError):
            own.calibrate(delta=0.001, strict=True)
        assert (own.path / "calibration.json").read_bytes() == before
        assert own.evaluate() == good["report"]["exit"]

    def test_a_run_that_certifies_nothing_does_not_replace_one_that_did(self, own, told):
        good = own.calibrate()
        failed = own.calibrate(delta=0.001)
        assert failed["metrics"]["certified"] is False
        assert own.kept == [good["run_id"], failed["run_id"]]
        assert own.evaluate() == good["report"]["exit"]
        assert told.lines[-2].startswith(f"Calibrated in run {good['run_id']}. With probability")
        # The full model: no entropy is below 0.
        assert own.evaluate(f"calibrated:{failed['run_id']}")["threshold"] == 0.0

    def test_the_last_certified_one_is_taken_and_others_by_name(self, own, told):
        runs = [own.calibrate(delta=delta) for delta in (0.2, 0.4)]
        exits = [run["report"]["exit"] for run in runs]
        assert exits[0] != exits[1]
        assert own.kept == [run["run_id"] for run in runs]
        assert own.evaluate() == exits[-1]
        for run, expected in zip(runs, exits, strict=True):
            assert own.evaluate(f"calibrated:{run['run_id']}") == expected
            assert any(run["run_id"] in line and run["report"]["guarantee"] in line
                       for line in told.lines)  # fmt: skip
        with pytest.raises(MissingArtifactError, match="keeps no calibration of run 'other'"):
            own.evaluate("calibrated:other")

    def test_one_failed_measure_of_a_strict_run_is_a_failed_run(self, own):
        names = ("entropy", "margin")
        # With these thresholds entropy has one to certify, the margin none.
        with pytest.raises(EexitError):
            own.calibrate(confidence=names, delta=0.001, strict=True)
        assert not (own.path / "calibration.json").exists()

    @pytest.mark.parametrize("at", ["finish", "figures", "attack"])
    def test_nothing_is_stored_by_a_run_that_breaks(self, own, monkeypatch, at):
        def stop(*args, **options):
            raise KeyboardInterrupt

        good = own.calibrate()
        before = (own.path / "calibration.json").read_bytes()
        owner, name = {
            "finish": (Run, "finish"),
            "figures": (calibrate_session.Session, "record_curves"),
            "attack": (calibrate_attack, "attack_calibrated"),
        }[at]
        monkeypatch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            own.calibrate(delta=0.4, under_attack="same-token" if at == "attack" else None)
        monkeypatch.undo()
        monkeypatch.chdir(own.path.parent)
        assert (own.path / "calibration.json").read_bytes() == before
        assert own.evaluate() == good["report"]["exit"]

    def test_a_damaged_file_is_an_error_before_the_work(self, own):
        (own.path / "calibration.json").write_text("{", encoding="utf-8")
        with pytest.raises(EexitError, match="is damaged"):
            own.calibrate()
        assert not Path("results").exists()
        own.calibrate(store=False)


class TestBound:
    @pytest.mark.parametrize(
        ("made", "now", "said", "repair"),
        [
            ({}, {"dtype": "float64"}, "--dtype float32, not float64", " --dtype float64"),
            ({"max_length": 9}, {}, "--max-length 9, not 40", " --max-length 40"),
            (
                {},
                {"lower_case": False},
                "--lower-case, not --no-lower-case",
                " --no-lower-case",
            ),
        ],
    )
    def test_options_of_a_classifier(self, own, made, now, said, repair):
        document = own.calibrate(**made)
        message = f"is stale: run {document['run_id']} was made with {said}$"
        with pytest.raises(MissingArtifactError, match=message) as stale:
            own.evaluate(**now)
        assert stale.value.hint == f"Run: eexit calibrate --model own{repair}"
        with pytest.raises(MissingArtifactError, match=message):
            run_prediction(
                PredictConfig(model="own", texts=("a film",), threshold="calibrated", **now)
            )
        with pytest.raises(MissingArtifactError, match=message):
            run_attack(AttackConfig(**own.data, threshold="calibrated", limit=2, **now))
        assert own.evaluate(**made) == document["report"]["exit"]
        # The command that the hint names makes one that is taken.
        again = own.calibrate(**{**now, **({"max_length": 40} if made else {})})
        assert own.evaluate(**now) == again["report"]["exit"]

    def test_what_says_the_same_as_the_default_is_the_same(self, own):
        document = own.calibrate()
        used = own.evaluate(lower_case=True, max_length=40, dtype="float32")
        assert used == document["report"]["exit"]

    def test_the_tokenizer(self, own):
        own.calibrate()
        path = own.path / "tokenizer.json"
        text = path.read_text(encoding="utf-8")
        assert '"lowercase": true' in text
        path.write_text(text.replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
        with pytest.raises(MissingArtifactError) as stale:
            own.evaluate()
        assert stale.value.message.endswith(" was made with another tokenizer")
        assert stale.value.hint == "Run: eexit calibrate --model own"

    def test_an_older_calibration_says_what_it_did_not_note(self, own, told):
        document = own.calibrate()
        path = own.path / "calibration.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        for entry in content["calibrations"]:
            del entry["conditions"], entry["metric"]
            entry["limits"] = {"max_length": 40}
        path.write_text(json.dumps({**content, "schema_version": 1}), encoding="utf-8")
        assert own.evaluate(dtype="float64") == document["report"]["exit"]
        (line,) = [line for line in told.lines if line.startswith("Calibrated in run")]
        assert "did not note its --dtype, --lower-case, tokenizer: whether" in line
        with pytest.raises(MissingArtifactError, match="--max-length 40, not 9"):
            own.evaluate(max_length=9)


class TestDecoders:
    @pytest.fixture
    def spell(self, tmp_path, monkeypatch, told):
        """As ``own``, a decoder."""
        folder = save_decoder(tmp_path / "spell")
        monkeypatch.chdir(tmp_path)
        words = ["queue", "knight", "ox", "fine", "film", "spell", "sound", "letter"]
        rows = [f"{word}{'s' * n},F AY N" for word in words for n in range(6)]
        data = tmp_path / "words.csv"
        data.write_text("\n".join(["source,target", *rows]) + "\n", encoding="utf-8")

        class Spell:
            path = folder
            data_file = data

            def calibrate(self, **options):
                few = {"delta": 0.5, "thresholds": (1.0, 0.6, 0.2), "latency_samples": 0}
                few["metric"] = "rouge-l-tokens"
                config = CalibrateConfig(
                    model="spell", data_file=data, limit=30, **{**few, **options}
                )
                return run_calibration(config).document

            def evaluate(self, **options):
                config = EvaluateConfig(
                    model="spell", data_file=data, threshold="calibrated", latency_samples=0,
                    **options,
                )  # fmt: skip
                return run_evaluation(config, progress=told).document["config"]["exit"]

        return Spell()

    @pytest.mark.parametrize(
        ("now", "said", "repair"),
        [
            ({"source_prefix": "zz "}, "--source-prefix '', not 'zz '", "--source-prefix 'zz '"),
            ({"max_new_tokens": 5}, "--max-new-tokens 12, not 5", "--max-new-tokens 5"),
            ({"dtype": "float64"}, "--dtype float32, not float64", "--dtype float64"),
            ({"weights": "int8"}, "--weights float, not int8", "--weights int8"),
        ],
    )
    def test_options(self, spell, now, said, repair):
        document = spell.calibrate()
        message = f"is stale: run {document['run_id']} was made with {said}$"
        with pytest.raises(MissingArtifactError, match=message) as stale:
            spell.evaluate(**now)
        assert stale.value.hint == f"Run: eexit calibrate --model spell {repair}"
        with pytest.raises(MissingArtifactError, match=message):
            run_attack(
                AttackConfig(
                    model="spell", data_file=spell.data_file, threshold="calibrated", limit=2, **now
                )
            )
        again = spell.calibrate(**now)
        assert spell.evaluate(**now)["threshold"] == again["report"]["exit"]["threshold"]
        assert spell.evaluate()["threshold"] == document["report"]["exit"]["threshold"]

    def test_a_prediction_reads_the_models_own_prefix(self, spell):
        asked = PredictConfig(model="spell", texts=("queue",), threshold="calibrated")
        spell.calibrate(source_prefix="zz ")
        with pytest.raises(MissingArtifactError, match="--source-prefix 'zz ', not ''"):
            run_prediction(asked)
        document = spell.calibrate()
        threshold = run_prediction(asked)["criterion"]["threshold"]
        assert threshold == document["report"]["exit"]["threshold"]

    def test_its_generation_settings(self, spell):
        spell.calibrate()
        spell.evaluate()
        path = spell.path / "generation_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**settings, "eos_token_id": [1, 2]}), encoding="utf-8")
        with pytest.raises(
            MissingArtifactError, match=r"made with another generation_config\.json"
        ):
            spell.evaluate()
