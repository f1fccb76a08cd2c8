"""The deployed file and its folder: what they say, what they need, and bad ones."""

from __future__ import annotations

import json
import subprocess
import sys

import onnx
import pytest
import torch
from onnx_tiny import RULES, deployed, small, written
from transformers import AutoTokenizer

import eexit_cli
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.published import EXPORTED_FILE
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx import quantise, runtime
from eexit_cli.models.onnx.about import graphs_within
from eexit_cli.models.onnx.deployment import write_deployment
from eexit_cli.models.onnx.sessions import OnnxClassifier
from eexit_cli.store.models import BUNDLED

TEXTS = ["a gripping film", "it is dull, and far too long", "not bad at all, or is it"]
ORIGIN = {"run": "calibrate-1", "delta": 0.1, "epsilon": 0.05}


@pytest.fixture(scope="module")
def bundled():
    folder = BUNDLED / "deebert"
    model = MultiExitClassifier.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folder(bundled, tmp_path_factory):
    target = tmp_path_factory.mktemp("deployed") / "model"
    write_deployment(
        *bundled, RULES["entropy"], target, weights="int8", provenance=ORIGIN, name="deebert"
    )
    return target


def test_the_file_says_what_it_is(tmp_path):
    graph = onnx.load(written(tmp_path / "m.onnx", small(), RULES["entropy"], provenance=ORIGIN))
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["eexit.version"] == eexit_cli.__version__
    assert json.loads(said["eexit.rule"]) == RULES["entropy"].describe()
    assert json.loads(said["eexit.provenance"]) == ORIGIN
    assert json.loads(said["eexit.classes"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert (said["eexit.family"], said["eexit.backbone"]) == ("deebert", "bert")
    assert (said["eexit.layers"], said["eexit.max_tokens"]) == ("4", "40")
    assert (said["eexit.weights"], said["eexit.format"]) == ("float32", "1")


@pytest.mark.parametrize("reduced", [True, False])
def test_an_int8_file_says_how_it_was_made(tmp_path, reduced):
    file = deployed(tmp_path, small(), RULES["entropy"], weights="int8", reduce_range=reduced)
    assert file.about.weights == "int8"
    assert file.about.quantisation["reduce_range"] is reduced
    graphs = list(graphs_within(onnx.load(tmp_path / "model.onnx").graph))
    products = [node for g in graphs for node in g.node if node.op_type == "MatMulInteger"]
    weights = {one.name: one for g in graphs for one in g.initializer}
    values = [onnx.numpy_helper.to_array(weights[node.input[1]]).astype(int) for node in products]
    assert bool(max(abs(each).max() for each in values) <= 64) is reduced
    blocks = sum(node.op_type == "MatMulNBits" for g in graphs for node in g.node)
    # The second product of each layer's feed-forward.
    assert blocks == (0 if reduced else file.num_exits)
    # Its five other products, and the two of the exit.
    assert len(products) == file.num_exits * (8 if reduced else 7)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fpu avx2", True),
        ("x86_64", "fpu avx512_vnni", False),
        ("AMD64", None, True),
        ("aarch64", "", False),
    ],
)
def test_processors_without_vnni_use_seven_bits(monkeypatch, machine, flags, expected):
    def read(path, **_):
        if flags is None:
            raise FileNotFoundError(path)
        return f"processor : 0\nflags : {flags}\n"

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(quantise.Path, "read_text", read)
    assert quantise.needs_reduced_range() is expected


def test_the_folder_says_what_it_is_without_torch(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "multi_exit_classifier"
    assert (config["runtime"], config["weights"]) == ("onnx", "int8")
    assert config["exit_defaults"] == {**RULES["entropy"].describe(), "provenance": ORIGIN}
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    readme = (folder / "README.md").read_text()
    assert "run calibrate-1, delta 0.1, epsilon 0.05" in readme
    assert "negative, positive" in readme


def _program(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    return readme.split("```python\n")[1].split("```")[0]


BLOCKED = """\
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "eexit_cli", "onnx"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Blocker())
exec(compile(open("classify.py", encoding="utf-8").read(), "classify.py", "exec"))
"""


def _says(python, folder, texts, *options):
    (folder / "classify.py").write_text(_program(folder), encoding="utf-8")
    found = [
        subprocess.run(
            [python, *options, *texts_of_one],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout
        for texts_of_one in texts
    ]  # fmt: skip
    (folder / "classify.py").unlink()
    return [json.loads(each) for each in found]


def _expected(bundled, folder, texts):
    """What the file says through this library, with transformers' tokens."""
    _, tokenizer = bundled
    file = OnnxClassifier.load(folder / EXPORTED_FILE)
    found = []
    for text in texts:
        encoded = tokenizer(*text, return_tensors="pt", truncation=True, max_length=512)
        decision = file.infer(**encoded, criterion=RULES["entropy"])
        answer = file.about.classes[int(decision.predictions)]
        found.append({"answer": answer, "exit_layer": int(decision.exit_layers)})
    return found


def test_the_readmes_program_runs_without_torch_transformers_and_this_library(bundled, folder):
    texts = [(text,) for text in TEXTS] + [("good " * 600,), (TEXTS[0], TEXTS[1])]
    found = _says(sys.executable, folder, texts, "-I", "-c", BLOCKED)
    assert found == _expected(bundled, folder, texts)
    assert len({each["exit_layer"] for each in found}) > 1
    assert len(_program(folder).splitlines()) <= 20


@pytest.mark.slow
def test_the_readmes_program_runs_in_an_environment_of_its_two_packages(bundled, folder, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "install", "-q", "onnxruntime", "tokenizers"]
    if subprocess.run([python, *install], check=False).returncode:
        pytest.skip("the package index cannot be reached")
    gone = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert gone.returncode
    texts = [(text,) for text in TEXTS]
    assert _says(python, folder, texts, "classify.py") == _expected(bundled, folder, texts)


def test_a_folder_that_is_in_use_is_left_alone(bundled, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_deployment(*bundled, None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_goes_wrong_leaves_nothing_behind(bundled, tmp_path):
    class Broken:
        is_fast = True

        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_deployment(small(), Broken(), None, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="not a fast tokenizer"):
        write_deployment(small(), object(), None, tmp_path / "new")
    with pytest.raises(UsageError, match="Unknown weights 'int4'"):
        write_deployment(small(), Broken(), None, tmp_path / "new", weights="int4")
    assert list(tmp_path.iterdir()) == []


# --- files that cannot be read ------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "m.onnx", small(), RULES["entropy"])


def _with(path, change):
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def _entry(model, key):
    return next(entry for entry in model.metadata_props if entry.key == key)


def _newer(model):
    _entry(model, "eexit.format").value = "2"


def _garbled(model):
    _entry(model, "eexit.rule").value = "{"


def _foreign(model):
    del model.metadata_props[:]


def _no_layer(model):
    del model.graph.output[1]


def _opset(model):
    model.opset_import[0].version = 99


def _elsewhere(model):
    *_, tensor = (
        one for g in graphs_within(model.graph) for one in g.initializer if len(one.dims) == 2
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.ClearField("raw_data")


def _renamed(model):
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            node.output[at] = "other" if name == "hidden_1" else name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_newer, "has format 2, this eexit reads up to 1"),
        (_garbled, "is damaged: .* in its entries"),
        (_foreign, "not one with exits that eexit wrote"),
        (_no_layer, "not one with exits that eexit wrote"),
        (_opset, "is written for a newer ONNX Runtime than"),
        (_elsewhere, "keeps its weights elsewhere, in weights.bin"),
        (_renamed, "is damaged: its graph has no hidden_1"),
    ],
)
def test_a_bad_file_is_one_clear_line(path, change, message):
    with pytest.raises(EexitError, match=message) as told:
        OnnxClassifier.load(_with(path, change))
    assert "\n" not in told.value.message
    assert told.value.hint


def test_a_file_that_is_cut_off_empty_or_not_there(path, tmp_path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(EexitError, match=r"m\.onnx is damaged, or no ONNX file"):
        OnnxClassifier.load(path)
    path.write_bytes(b"")
    with pytest.raises(EexitError, match="not one with exits that eexit wrote"):
        OnnxClassifier.load(path)
    with pytest.raises(MissingArtifactError, match="No file"):
        OnnxClassifier.load(tmp_path / "none.onnx")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_packages_that_are_missing_or_old(monkeypatch, path, name):
    class Old:
        __version__ = "1.3.0"

    monkeypatch.setitem(sys.modules, name, Old)
    with pytest.raises(EexitError, match=rf"{name} 1\.3\.0 is too old") as told:
        OnnxClassifier.load(path)
    assert "eexit[onnx]" in told.value.hint
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EexitError, match=f"needs the package {name}") as told:
        OnnxClassifier.load(path)
    assert told.value.hint == "pip install 'eexit[onnx]'"


def test_releases_are_compared_as_numbers(monkeypatch):
    class New:
        __version__ = "10.2.0rc1"

    monkeypatch.setitem(sys.modules, "onnx", New)
    assert runtime.package("onnx") is New


def test_it_is_a_classifier_to_those_that_use_one(path):
    file, model = OnnxClassifier.load(path), small()
    for name in ("num_exits", "num_classes", "max_tokens"):
        assert getattr(file, name) == getattr(model, name)
    assert file.config.id2label == model.config.id2label
    assert file.backbone.config.hidden_size == model.backbone.config.hidden_size
    assert file.eval() is file
    assert file.dtype == torch.float32
