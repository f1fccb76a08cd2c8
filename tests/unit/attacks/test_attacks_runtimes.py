"""``--runtime`` and ``models export`` from a command's options to documents, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from attacks_tiny import ENTROPY_EXIT, TEXTS, Listens, save_classifier

from eexit_cli.config import AttackConfig, CalibrateConfig, EvaluateConfig, PredictConfig
from eexit_cli.config.runtime import ExportModelConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.seed import stream
from eexit_cli.families.exported import exported
from eexit_cli.families.exporting import export_model
from eexit_cli.families.listing import summarise
from eexit_cli.families.opening import open_model
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.pipelines.calibrate.run import run_calibration
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.predict import run_prediction
from eexit_cli.pipelines.spreading import placed, settled
from eexit_cli.plots.figure import RunView
from eexit_cli.plots.tradeoff import frame
from eexit_cli.ui.screens.kept import uses

WORDS = [word for text in TEXTS for word in text.split()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runtimes")
    for name, layers in (("model", 4), ("other", 3)):
        save_classifier(root / name, ENTROPY_EXIT, layers=layers)
    draw = stream(3, "reviews")
    rows = [
        {"text": " ".join(draw.choices(WORDS, k=draw.randint(3, 14))), "label": label}
        for label in ("negative", "positive") * 20
    ]
    (root / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(autouse=True)
def _at_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EEXIT_HOME", str(root / "home"))


def data(root: Path) -> dict[str, Any]:
    return {"data_file": root / "reviews.jsonl"}


def evaluated(root: Path, **options: Any) -> Any:
    common = {"model": str(root / "model"), "results_dir": root / "results", "latency_samples": 2}
    return run_evaluation(EvaluateConfig(**{**common, **data(root), **options}))


def export(root: Path, name: str, progress: Any = None, **options: Any) -> dict[str, Any]:
    settings = {"model": str(root / "model"), "output": root / name, **data(root), **options}
    return export_model(ExportModelConfig(**settings), progress)


@pytest.fixture(scope="module")
def deployed(root: Path) -> Path:
    export(root, "deployed")
    return root / "deployed"


def test_runtimes_are_rows_of_one_run(root: Path) -> None:
    run = evaluated(root, runtime=("torch", "onnx", "onnx-int8"), threshold=(0.5, 0.6))
    rows = run.document["rows"]
    assert [(row["runtime"], row["threshold"]) for row in rows] == [
        (runtime, threshold)
        for runtime in ("torch", "onnx", "onnx-int8")
        for threshold in (0.5, 0.6)
    ]
    torch_rows, onnx_rows, _ = (rows[at : at + 2] for at in (0, 2, 4))
    for one, other in zip(torch_rows, onnx_rows, strict=True):
        for name in ("accuracy", "mean_exit_layer", "accuracy_full"):
            assert one[name] == other[name]
    assert torch_rows[0]["mean_exit_layer"] != torch_rows[1]["mean_exit_layer"]
    fulls = [row["latency_full_ms"] for row in rows]
    assert fulls[0] == fulls[1], "a runtime's full depth is timed once"
    assert len(set(fulls)) == 3
    assert all(row["latency_ms"] > 0 and row["throughput"] > 0 for row in rows)
    assert run.document["config"]["runtime"] == ["torch", "onnx", "onnx-int8"]


def test_a_runtime_alone_gives_torchs_records(root: Path) -> None:
    runs = [evaluated(root, runtime=name, latency_samples=0) for name in (None, "torch", "onnx")]
    plain, named, onnx = ([*run.records()] for run in runs)
    assert plain == named
    assert [record["exit_layer"] for record in onnx] == [record["exit_layer"] for record in plain]
    assert [record["prediction"] for record in onnx] == [record["prediction"] for record in plain]
    assert "runtime" not in runs[2].document["config"]["exit"]
    assert runs[2].document["config"]["runtime"] == "onnx"


def test_workers_run_the_same_file(root: Path) -> None:
    here, there = (
        evaluated(root, runtime=("onnx-int8", "torch"), latency_samples=0, workers=workers)
        for workers in (None, 2)
    )
    assert here.document["rows"] == there.document["rows"]


def test_an_exported_folder_is_a_model(root: Path, deployed: Path) -> None:
    told = json.loads((deployed / "config.json").read_text())
    assert exported(told) == "onnx"
    summary = summarise("deployed", "folder", deployed)
    assert summary is not None
    assert (summary.layers, summary.runtime, summary.labels) == (
        4,
        "onnx",
        ("negative", "positive"),
    )
    assert summary.megabytes == round((deployed / "model.onnx").stat().st_size / 1e6, 1)
    file, whole = (evaluated(root, model=str(root / name)) for name in ("deployed", "model"))
    for name in ("accuracy", "mean_exit_layer", "accuracy_full", "flops_per_sample"):
        assert file.document["metrics"][name] == whole.document["metrics"][name]
    assert file.document["config"]["runtime"] == "onnx"
    assert whole.document["config"]["runtime"] is None


def fed(session: Any, model: Any, text: str) -> dict[str, Any]:
    """A text as a file's session reads it."""
    batch = model.tokenised(text)
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    asked = {value.name for value in session.get_inputs()}
    return {name: value.numpy() for name, value in batch.items() if name in asked}


def test_the_file_alone_leaves_where_the_model_leaves(root: Path, deployed: Path) -> None:
    """By onnxruntime itself, without a line of ours between."""
    model: Any = open_model(EvaluateConfig(model=str(root / "model")))
    session = onnxruntime.InferenceSession(deployed / "model.onnx")
    left = set()
    for text in TEXTS:
        _, layer = session.run(["logits", "exit_layer"], fed(session, model, text))
        assert layer[0] == model.answers([text]).exit_layers[0][0]
        left.add(int(layer[0]))
    assert len(left) > 1


def test_an_export_says_how_alike_they_are(root: Path) -> None:
    told = export(root, "small", weights="int8")
    assert (told["weights"], told["layers"], told["samples"]) == ("int8", 4, 40)
    file, whole = (
        evaluated(root, model=str(root / name), latency_samples=0) for name in ("small", "model")
    )
    pairs = list(zip(file.records(), whole.records(), strict=True))
    same = [one["exit_layer"] == other["exit_layer"] for one, other in pairs]
    assert told["same_exits"] == pytest.approx(sum(same) / len(same))
    same = [one["prediction"] == other["prediction"] for one, other in pairs]
    assert told["same_labels"] == pytest.approx(sum(same) / len(same))
    assert told["accuracy_file"] == file.document["metrics"]["accuracy"]
    assert told["accuracy_model"] == whole.document["metrics"]["accuracy"]


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.3},
        {"confidence": "max-prob", "threshold": 0.6},
        {"patience": 1},
        {"voting": 1.5},
        {"static_layer": 2},
        {"lower_case": False},
    ],
    ids=str,
)
def test_a_folder_leaves_where_its_program_leaves(
    root: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The program of its README, and eexit with no option at all."""
    folder = tmp_path / "out"
    export(root, str(folder), **options)
    program = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    model: Any = open_model(EvaluateConfig(model=str(folder)))
    for text in ("A Fine film", *TEXTS[:3]):
        done = subprocess.run(
            [sys.executable, "-c", program, text], cwd=folder, capture_output=True, text=True
        )
        assert done.stderr == ""
        told = json.loads(done.stdout)
        answers = model.answers([text])
        assert told["exit_layer"] == answers.exit_layers[0][0]
        assert told["answer"] == model.label_names[answers.outputs[0]]


def test_a_file_has_the_names_that_the_export_gave(root: Path) -> None:
    export(root, "named", label_names=("bad", "good"), data_file=None)
    assert open_model(EvaluateConfig(model=str(root / "named"))).label_names == ("bad", "good")
    with pytest.raises(UsageError, match="3 names"):
        export(root, "three", label_names=("a", "b", "c"))
    assert not (root / "three").exists()


def test_a_file_of_another_folder_is_refused(root: Path, deployed: Path, tmp_path: Path) -> None:
    export(root, str(tmp_path / "small"), weights="int8")
    (tmp_path / "small" / "model.onnx").write_bytes((deployed / "model.onnx").read_bytes())
    with pytest.raises(EexitError, match="is not the file that"):
        open_model(EvaluateConfig(model=str(tmp_path / "small")))


def test_more_than_a_point_lost_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eexit_cli.families import exporting

    scores = iter([0.8, 0.9])
    monkeypatch.setattr(exporting, "compute", lambda *given: {"accuracy": next(scores)})
    listens = Listens()
    export(root, "worse", listens)
    (line,) = [line for line in listens.heard if "more than a point" in line]
    assert line.startswith("accuracy falls from 0.9000 to 0.8000")


def test_a_promise_is_of_one_runtime(root: Path) -> None:
    options: dict[str, Any] = {
        "model": str(root / "model"),
        "results_dir": root / "results",
        "limit": 20,
        "delta": 0.9,
        "latency_samples": 0,
        **data(root),
    }
    run_calibration(CalibrateConfig(**options))
    evaluated(root, threshold="calibrated", latency_samples=0)
    with pytest.raises(MissingArtifactError, match="made with --runtime torch, not onnx") as stale:
        evaluated(root, threshold="calibrated", runtime="onnx", latency_samples=0)
    assert str(stale.value.hint).endswith("--runtime onnx")
    with pytest.raises(UsageError, match="a promise on one runtime, not on torch and onnx"):
        evaluated(root, threshold="calibrated", runtime=("torch", "onnx"), latency_samples=0)
    with pytest.raises(MissingArtifactError, match="made with --runtime torch, not onnx"):
        export(root, "never", threshold="calibrated")
    assert not (root / "never").exists()
    run = run_calibration(CalibrateConfig(**options, runtime="onnx"))
    told = export(root, "promised", threshold="calibrated")
    assert told["threshold_from"] == "calibration"
    assert told["exit"]["threshold"] == pytest.approx(run.document["metrics"]["threshold"])
    about = onnxruntime.InferenceSession(root / "promised" / "model.onnx").get_modelmeta()
    origin = json.loads(about.custom_metadata_map["eexit.provenance"])
    assert (origin["run"], origin["delta"]) == (run.document["run_id"], 0.9)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_promise_reaches_the_file_that_is_deployed(
    root: Path, tmp_path: Path, weights: str
) -> None:
    """A calibration of the folder, and the folder with what it gave."""
    export(root, f"plain-{weights}", weights=weights)
    plain = root / f"plain-{weights}"
    options: dict[str, Any] = {"results_dir": root / "results", "latency_samples": 0}
    run = run_calibration(
        CalibrateConfig(model=str(plain), delta=0.9, limit=20, **options, **data(root))
    )
    runtime = "onnx" if weights == "float32" else "onnx-int8"
    assert run.document["config"]["runtime"] == runtime
    evaluate, exported_, *_ = uses(run.document)
    assert evaluate.endswith(f"{plain} --threshold calibrated --runtime {runtime}")
    assert exported_ == (
        f"eexit models export {plain} --threshold calibrated --weights {weights} --output FOLDER"
    )
    told = export(root, f"promised-{weights}", model=str(plain), threshold="calibrated")
    chosen = run.document["metrics"]["threshold"]
    assert told["threshold_from"] == "calibration"
    assert told["exit"]["threshold"] == pytest.approx(chosen)
    assert "same_exits" not in told
    assert told["weights"] == weights
    old, new = (
        onnxruntime.InferenceSession(folder / "model.onnx")
        for folder in (plain, root / f"promised-{weights}")
    )
    about = new.get_modelmeta().custom_metadata_map
    assert json.loads(about["eexit.rule"])["threshold"] == pytest.approx(chosen)
    model: Any = open_model(EvaluateConfig(model=str(root / "model")))
    changed = 0
    for text in TEXTS:
        feed = fed(new, model, text)
        turned = {**feed, "threshold": np.array(chosen, dtype=np.float32)}
        expected, found = old.run(None, turned), new.run(None, feed)
        for one, other in zip(expected, found, strict=True):
            assert np.array_equal(one, other)
        changed += int(found[1][0] != old.run(None, feed)[1][0])
    assert changed, "the old default leaves elsewhere, so this shows something"
    readme = (root / f"promised-{weights}" / "README.md").read_text()
    assert run.document["run_id"] in readme
    later = evaluated(root, model=str(root / f"promised-{weights}"), latency_samples=0)
    assert later.document["config"]["exit"]["threshold"] == pytest.approx(chosen)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["evaluate --model M --threshold calibrated"]),
        ({"runtime": "torch"}, ["evaluate --model M --threshold calibrated --runtime torch"]),
        (
            {"runtime": "onnx", "lower_case": True},
            [
                "evaluate --model M --threshold calibrated --runtime onnx --lower-case",
                "models export M --threshold calibrated --weights float32 --lower-case "
                "--output FOLDER",
            ],
        ),
        # A file takes texts as long as the model does.
        (
            {"runtime": "onnx", "max_length": 64, "dtype": "float32"},
            ["evaluate --model M --threshold calibrated --runtime onnx --max-length 64"],
        ),
    ],
)
def test_what_to_do_with_a_kept_threshold(settings: dict[str, Any], expected: list[str]) -> None:
    document = {"config": {"model": "M", **settings}, "run_id": "R", "metrics": {"certified": 1}}
    assert uses(document) == [f"eexit {command}" for command in expected]
    document["metrics"] = {"certified": False}
    assert all(" --threshold calibrated:R" in command for command in uses(document))


def test_a_patience_is_set_anew(root: Path) -> None:
    export(root, "patient", patience=3)
    told = export(root, "hasty", model=str(root / "patient"), patience=1)
    assert (told["exit"]["criterion"], told["exit"]["patience"]) == ("patience", 1)
    session = onnxruntime.InferenceSession(root / "hasty" / "model.onnx")
    (knob,) = session.get_overridable_initializers()
    assert (knob.name, knob.type) == ("patience", "tensor(int64)")
    layers = {}
    for name, patience in (("hasty", None), ("model", 1), ("patient", None)):
        options = EvaluateConfig(model=str(root / name), patience=patience)
        model: Any = open_model(options)
        layers[name] = [each[0] for each in model.answers(TEXTS, model.exit(options)).exit_layers]
    assert layers["hasty"] == layers["model"] != layers["patient"]


def test_a_file_is_verified_on_what_another_was_attacked_with(root: Path, deployed: Path) -> None:
    """Its figures are of the file; what the inputs were made against is said."""
    plain: dict[str, Any] = {"recipe": "random", "beam_width": 5, "limit": 12}
    made = {name: attack(root, name, **plain) for name in ("model", "deployed")}
    said = {}
    for name, run in made.items():
        checked = run_calibration(
            CalibrateConfig(
                model=str(deployed),
                delta=0.9,
                limit=16,
                verify_on=run.path.name,
                latency_samples=0,
                results_dir=root / "results",
                **data(root),
            )
        )
        said[name] = checked.document["report"]["attack"]["mixture"]
    assert f"made against {root / 'model'}, not against this model" in said["model"]
    assert "not against this model" not in said["deployed"]


def test_a_prediction_says_what_made_it(root: Path, deployed: Path) -> None:
    for options, runtime in (
        ({"model": str(root / "model")}, "torch"),
        ({"model": str(root / "model"), "runtime": "onnx-int8"}, "onnx-int8"),
        ({"model": str(deployed)}, "onnx"),
    ):
        document = run_prediction(PredictConfig(texts=(TEXTS[0],), **options))
        assert document["runtime"] == runtime
    assert run_prediction(PredictConfig(model="calm", texts=("cat",)))["weights"] == "float"


def attack(root: Path, model: str, progress: Any = None, **options: Any) -> Any:
    settings: dict[str, Any] = {"limit": 6, "top_n": 6, "beam_width": 1, "per_size": 2}
    settings |= {"query_budget": 40, "latency_samples": 1, "results_dir": root / "results"}
    settings |= data(root)
    return run_attack(
        AttackConfig(**{"model": str(root / model), **settings, **options}), progress=progress
    )


def test_attacks_on_a_file(root: Path, deployed: Path) -> None:
    with pytest.raises(UsageError, match="asks for gradients") as no:
        attack(root, "deployed", recipe="same-token")
    assert "--surrogate" in str(no.value.hint)
    table = attack(root, "deployed", recipe="same-token,random")
    status = {row["recipe"]: row.get("status") for row in table.document["rows"]}
    assert "--surrogate" in status["same-token"]
    assert status["random"] is None
    twin = attack(root, "deployed", recipe="same-token", surrogate=str(root / "model"))
    whole = attack(root, "model", recipe="same-token")
    columns = ("perturbed_text", "exit_layer_before", "exit_layer_after", "queries")
    mine, its = (
        [[record[name] for name in columns] for record in run.records()] for run in (twin, whole)
    )
    assert mine == its
    assert any(record["gradient_passes"] for record in twin.records())
    for names, ways in ((("deployed",), "onnx"), (("model", "deployed"), ["torch", "onnx"])):
        replay = run_attack(
            AttackConfig(
                model=",".join(str(root / name) for name in names),
                transfer=(twin.path.name,),
                latency_samples=0,
                results_dir=root / "results",
            )
        )
        assert replay.document["config"]["runtime"] == ways
        for row in replay.document["rows"]:
            assert row["mean_exit_layer_after"] == twin.document["metrics"]["mean_exit_layer_after"]


def test_a_surrogate_goes_where_the_workers_are(
    root: Path, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folders, by whatever name, and a bundled twin not at all."""
    monkeypatch.chdir(root)
    options = AttackConfig(model="deployed", surrogate="./model")
    model: Any = open_model(options)
    sent, folders = settled(options, model)
    assert folders == (str(deployed.resolve()), str((root / "model").resolve()))
    assert (sent.model, sent.surrogate) == folders
    there = placed(sent, {folders[0]: "/there/a", folders[1]: "/there/b"})
    assert (there.model, there.surrogate) == ("/there/a", "/there/b")
    assert placed(sent, {folders[1]: "/there/b"}).model == folders[0]
    assert placed(sent, None) == sent
    bundled, folders = settled(replace(options, surrogate="deebert"), model)
    assert (bundled.surrogate, folders) == ("deebert", (str(deployed.resolve()),))
    here, spread = (
        attack(root, "deployed", recipe="same-token", surrogate="./model", workers=workers)
        for workers in (None, 2)
    )
    mine, theirs = (
        {record["id"]: record["perturbed_text"] for record in run.records()}
        for run in (here, spread)
    )
    assert mine == theirs


def test_an_8_bit_file_is_attacked_where_it_leaves(root: Path) -> None:
    """Without a surrogate named: the float weights are here."""
    run = attack(root, "model", recipe="same-token", runtime="onnx-int8")
    model: Any = open_model(EvaluateConfig(model=str(root / "model"), runtime="onnx-int8"))
    exit = model.default_exit()
    for record in run.records():
        for when, text in (("before", "text"), ("after", "perturbed_text")):
            decision = model.running(exit).infer(
                **model.tokenised(record[text]), criterion=exit.rule
            )
            assert record[f"exit_layer_{when}"] == int(decision.exit_layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, "Unknown runtime 'tensorrt'"),
        ({"runtime": "onnx", "device": "cuda"}, "runs on the CPU alone, not on cuda"),
        ({"runtime": ("torch", "onnx-int8"), "dtype": "float64"}, "computes in float32, not in"),
        ({"model": "deployed", "device": "cuda"}, r"ONNX Runtime \(onnx\) runs on the CPU alone"),
        ({"model": "deployed", "runtime": "torch"}, "is one file for onnx and nothing else"),
        ({"model": "calm", "runtime": "onnx"}, "--runtime is for"),
    ],
)
def test_what_cannot_run_is_one_clear_line(
    root: Path, deployed: Path, options: dict[str, Any], message: str
) -> None:
    if options.get("model") == "deployed":
        options = {**options, "model": str(deployed)}
    with pytest.raises(UsageError, match=message) as refused:
        evaluated(root, **options)
    if "runtime" not in options:
        assert "--runtime" not in f"{refused.value.message} {refused.value.hint}"


def test_what_is_timed_and_attacked_is_the_file(
    root: Path, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures alike would hide that torch made them: here it cannot."""

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("torch leaves early")

    monkeypatch.setattr(MultiExitClassifier, "infer", refuse)
    evaluated(root, runtime="onnx", threshold=(0.5, 0.6))
    evaluated(root, model=str(deployed))
    attack(root, "model", recipe="same-token", runtime="onnx-int8")
    attack(root, "deployed", recipe="same-token", surrogate=str(root / "model"))
    with pytest.raises(AssertionError, match="torch leaves early"):
        evaluated(root, runtime=("onnx", "torch"))


def test_each_kind_of_rule_has_a_file_that_holds_it(root: Path) -> None:
    model: Any = open_model(EvaluateConfig(model=str(root / "model"), runtime="onnx"))
    exits = [
        model.exit(EvaluateConfig(**options))
        for options in (
            {"threshold": 0.5},
            {"threshold": 0.3},
            {"confidence": "max-prob", "threshold": 0.7},
            {"patience": 1},
        )
    ]
    files = [model.running(exit) for exit in exits]
    assert files[0] is files[1]
    assert len({id(file) for file in files}) == 3
    for exit, file in zip(exits, files, strict=True):
        assert file.about.reads(exit.rule.describe())


def test_a_calibration_cannot_attack_a_file(root: Path, deployed: Path) -> None:
    options: dict[str, Any] = {"model": str(deployed), "under_attack": "same-token", **data(root)}
    with pytest.raises(UsageError, match="asks for gradients") as refused:
        run_calibration(CalibrateConfig(**options, results_dir=root / "refused"))
    assert "--verify-on" in str(refused.value.hint)
    assert not (root / "refused").exists()


def test_surrogates_that_are_none(root: Path, deployed: Path) -> None:
    with pytest.raises(UsageError, match="--surrogate says nothing to random"):
        run_attack(
            AttackConfig(
                model=str(deployed), recipe="random", surrogate=str(root / "model"), **data(root)
            )
        )
    for surrogate, model, message in (
        ("other", "deployed", r"is no twin of .* other layers, classes, tokens or"),
        ("deployed", "deployed", "is no classifier in torch's weights"),
        ("model", "model", "has gradients of its own"),
    ):
        with pytest.raises(UsageError, match=message):
            attack(root, model, surrogate=str(root / surrogate))


def test_exports_that_cannot_be(root: Path, deployed: Path) -> None:
    with pytest.raises(UsageError, match="No --output is given"):
        export_model(ExportModelConfig(model=str(root / "model")))
    with pytest.raises(UsageError, match="is there already"):
        export(root, "deployed")
    file = str(deployed)
    for options, message in (
        ({}, "has this exit already: criterion threshold"),
        ({"weights": "int8"}, "is exported already, with float32 weights"),
        ({"patience": 2}, "holds one exit, criterion threshold, .* only the threshold can be set"),
        ({"threshold": 0.2, "confidence": "margin"}, "holds one exit"),
    ):
        with pytest.raises(UsageError, match=message):
            export(root, "again", model=file, **options)
        assert not (root / "again").exists()
    export(root, "third", static_layer=3)
    with pytest.raises(UsageError, match=r"holds one exit, criterion static, static_layer 3$"):
        export(root, "again", model=str(root / "third"), threshold=0.3)
    save_classifier(root / "no-exit", {}, layers=2)
    export(root, "whole", model=str(root / "no-exit"))
    with pytest.raises(UsageError, match="has this exit already: criterion full"):
        export(root, "again", model=str(root / "whole"))
    with pytest.raises(UsageError, match="writes text; a classifier alone can be exported"):
        export(root, "text", model="calm")
    for nowhere in ("/proc/out", str(root / "reviews.jsonl" / "out")):
        with pytest.raises(UsageError, match="cannot be made"):
            export(root, nowhere)
    broken = root / "broken"
    broken.mkdir(exist_ok=True)
    for file in deployed.glob("*.json"):
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.onnx").write_bytes((deployed / "model.onnx").read_bytes()[:2000])
    with pytest.raises(EexitError, match="damaged"):
        evaluated(root, model=str(broken))


def test_embeddings_of_a_file_are_the_models(root: Path, deployed: Path) -> None:
    file, whole = (
        open_model(EvaluateConfig(model=str(root / name))).model for name in ("deployed", "model")
    )
    assert torch.equal(file.word_embeddings.weight, whole.word_embeddings.weight)


def test_the_figure_has_milliseconds_by_runtime(root: Path) -> None:
    run = evaluated(root, runtime=("torch", "onnx"), threshold=(0.5, 0.6))
    view = RunView("one", "one", run.document, list)
    table = frame([view])
    rows = run.document["rows"]
    early = table[table["kind"] == "early exit"]
    assert early["latency_ms"].tolist() == [row["latency_ms"] for row in rows]
    full = table[table["kind"] == "full depth"].set_index("series")
    assert full.loc["onnx", "latency_ms"] == rows[2]["latency_full_ms"]
    assert full.loc["onnx", "quality"] == rows[2]["accuracy_full"]
    untimed = [{name: row[name] for name in row if name != "latency_ms"} for row in rows]
    with pytest.raises(UsageError, match="no milliseconds by runtime"):
        frame([RunView("two", "two", {**run.document, "rows": untimed}, list)])
