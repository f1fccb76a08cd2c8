"""The graph is the model: logits, exits, batches, for every backbone and every exit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models_tiny import random_batch
from onnx_tiny import CLASSES, LAYERS, RULES, deployed, row, small, written

from eexit_cli.core.criterion import Criterion
from eexit_cli.core.errors import EexitError, NotFiniteError, UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.static import StaticExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.models import BACKBONES
from eexit_cli.models.onnx.about import graphs_within
from eexit_cli.models.onnx.export import flat_graph
from eexit_cli.models.onnx.sessions import OnnxClassifier

LENGTHS = [9, 4, 6, 1, 12, 3, 7, 5]
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def batch():
    return random_batch(LENGTHS, seed=3)


def _exits(rule):
    return LAYERS if not isinstance(rule, StaticExit) else rule.layer


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("model_type", list(BACKBONES))
def test_a_file_answers_as_torch_does(tmp_path, model_type, rule, batch):
    """The nested graph one by one, its pieces in a batch, and every exit's logits."""
    model = small(model_type, pooling="mean" if model_type in ("bert", "mpnet") else "first")
    file = deployed(tmp_path, model, rule)
    with torch.no_grad():
        logits = model(**batch).logits
    assert file.num_exits == _exits(rule)
    torch.testing.assert_close(file(**batch).logits, logits[:, : file.num_exits], **CLOSE)

    expected = model.infer(**batch, criterion=rule)
    found = file.infer(**batch, criterion=rule)
    assert found.exit_layers.tolist() == expected.exit_layers.tolist()
    torch.testing.assert_close(found.logits, expected.logits, **CLOSE)
    for at in range(len(LENGTHS)):
        alone = file.infer(**row(batch, at), criterion=rule)
        assert alone.exit_layers.tolist() == expected.exit_layers[at : at + 1].tolist()
        torch.testing.assert_close(alone.logits, expected.logits[at : at + 1], **CLOSE)


def test_the_exits_of_these_tests_are_spread(batch):
    """Otherwise the test above would say little."""
    spread = [
        len(set(small("bert", pooling="mean").infer(**batch, criterion=rule).exit_layers.tolist()))
        for rule in (RULES["entropy"], RULES["margin"], RULES["patience"])
    ]
    assert min(spread) >= 2, spread


@pytest.mark.parametrize("name", ["entropy", "max-prob", "margin"])
def test_probabilities_that_underflow(tmp_path, name, batch):
    """0 ln 0 is 0, in the graph as well."""
    model, rule = small(), RULES[name]
    with torch.no_grad():
        for classifier in model.classifiers:
            classifier.weight.mul_(1000)
        assert bool((model(**batch).logits.softmax(dim=-1) == 0).any())
    file = deployed(tmp_path, model, rule)
    for at in range(len(LENGTHS)):
        one = row(batch, at)
        found, expected = (each.infer(**one, criterion=rule) for each in (file, model))
        assert found.exit_layers.tolist() == expected.exit_layers.tolist()


@pytest.mark.parametrize("family", ["deebert", "pabee"])
def test_a_regression_leaves_by_patience(tmp_path, family, batch):
    model = small(family=family, classes=1)
    rule = PatienceExit(1, tau=0.7)
    file = deployed(tmp_path, model, rule)
    expected = model.infer(**batch, criterion=rule)
    assert len(set(expected.exit_layers.tolist())) > 1
    for found in (
        file.infer(**batch, criterion=rule).exit_layers.tolist(),
        [int(file.infer(**row(batch, at), criterion=rule).exit_layers) for at in range(8)],
    ):
        assert found == expected.exit_layers.tolist()
    assert file.about.classes == ()


@pytest.mark.parametrize(
    ("name", "knob", "values"),
    [("entropy", "threshold", (0.0, 0.3, 0.9, 1.09)), ("patience", "patience", (0, 1, 2, 3, 9))],
)
def test_the_knob_is_an_input_with_a_default(tmp_path, batch, name, knob, values):
    model, rule = small(pooling="mean"), RULES[name]
    session = onnxruntime.InferenceSession(written(tmp_path / "m.onnx", model, rule))
    assert knob not in [value.name for value in session.get_inputs()]
    for at in range(len(LENGTHS)):
        one = row(batch, at)
        feed = {value.name: one[value.name].numpy() for value in session.get_inputs()
                if value.name in one}  # fmt: skip
        feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
        # The file's own default, then each value.
        assert session.run(["exit_layer"], feed)[0].tolist() == (
            model.infer(**one, criterion=rule).exit_layers.tolist()
        )
        for value in values:
            other = (
                PatienceExit(value) if knob == "patience" else ThresholdExit(rule.measure, value)
            )
            kind = np.int64 if knob == "patience" else np.float32
            found = session.run(["exit_layer"], {**feed, knob: np.array(value, dtype=kind)})[0]
            assert found.tolist() == model.infer(**one, criterion=other).exit_layers.tolist()


def test_layers_behind_an_exit_are_in_its_else_branch_and_a_fixed_exit_has_no_branch(tmp_path):
    def depth(graph):
        branches = [a.g for n in graph.node for a in n.attribute if a.name == "else_branch"]
        return 1 + max(map(depth, branches), default=0)

    def norms(graph):
        return sum(node.op_type == "LayerNormalization" for node in graph.node)

    graph = onnx.load(written(tmp_path / "a.onnx", small(), RULES["entropy"])).graph
    assert depth(graph) == LAYERS
    # The embeddings' and two of the first layer; two in each branch.
    assert norms(graph) == 3
    branch = next(a.g for n in graph.node for a in n.attribute if a.name == "else_branch")
    assert norms(branch) == 2
    fixed = onnx.load(written(tmp_path / "b.onnx", small(), StaticExit(2))).graph
    assert depth(fixed) == 1
    assert norms(fixed) == 5


def test_shared_layers_are_in_the_file_once(tmp_path):
    sizes = [
        _weights(written(tmp_path / f"{n}.onnx", small("albert", layers=n, family="pabee"), None))
        for n in (2, 8)
    ]
    # Six layers more have six classifiers of their own; a layer has 4 x 16 x 16 + 2 x 16 x 32.
    assert sizes[1] - sizes[0] < 4 * (4 * 16 * 16 + 2 * 16 * 32), sizes


def _weights(path):
    graphs = graphs_within(onnx.load(path).graph)
    return sum(len(one.raw_data) for graph in graphs for one in graph.initializer)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    order=st.randoms(use_true_random=False),
)
def test_companions_change_no_exit(any_file, lengths, seed, order):
    """Batch, order and padding are nobody's business but theirs."""
    file, rule = any_file
    batch = random_batch(lengths, seed=seed, padded_to=max(lengths) + 2)
    trace = file(**batch).logits
    confidence = rule.measure(trace)
    near = (confidence - rule.threshold).abs().amin(dim=1) < 1e-5
    places = list(range(len(lengths)))
    order.shuffle(places)
    mixed = file.infer(**{k: v[places] for k, v in batch.items()}, criterion=rule)
    expected = replay(trace, rule).exit_layers
    for place, layer in zip(places, mixed.exit_layers.tolist(), strict=True):
        alone = int(file.infer(**row(batch, place), criterion=rule).exit_layers)
        assert near[place] or layer == alone == int(expected[place])


@pytest.fixture(scope="module", params=["mpnet", "roberta"])
def any_file(request, tmp_path_factory):
    rule = RULES["entropy"]
    return deployed(tmp_path_factory.mktemp("file"), small(request.param), rule), rule


def test_a_hook_sees_the_rows_that_run(tmp_path, batch):
    model, rule = small(pooling="mean"), RULES["entropy"]
    for weights in ("float32", "int8"):
        file = deployed(tmp_path, model, rule, weights=weights)
        seen = torch.full((len(LENGTHS), LAYERS, CLASSES), torch.nan)
        hook = _into(seen)
        decision = file.infer(**batch, criterion=rule, on_exit=hook)
        trace = file(**batch).logits
        for at, layer in enumerate(decision.exit_layers.tolist()):
            torch.testing.assert_close(seen[at, :layer], trace[at, :layer], **CLOSE)
            assert seen[at, layer:].isnan().all()
        torch.testing.assert_close(
            decision.logits, replay(trace, rule).logits, **CLOSE
        )  # fmt: skip


def _into(seen):
    def hook(layer, rows, logits):
        seen[rows, layer - 1] = logits

    return hook


@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("model_type", list(BACKBONES))
def test_eight_bits_stay_near(tmp_path, model_type, reduced, batch):
    model = small(model_type)
    file = deployed(tmp_path, model, None, weights="int8", reduce_range=reduced)
    with torch.no_grad():
        expected = model(**batch).logits
    error = (file(**batch).logits - expected).square().mean().sqrt()
    assert error < 0.2 * expected.std()
    # Weights that were not touched would be exact.
    assert error > 1e-4


def test_an_int8_trace_is_what_the_file_says_to_each_input_alone(tmp_path, batch):
    rule = RULES["entropy"]
    file = deployed(tmp_path, small(pooling="mean"), rule, weights="int8")
    together = replay(file(**batch).logits, rule)
    for at in range(len(LENGTHS)):
        alone = file.infer(**row(batch, at), criterion=rule)
        assert int(alone.exit_layers) == int(together.exit_layers[at])
        torch.testing.assert_close(alone.logits[0], together.logits[at], **CLOSE)


def test_one_input_under_the_files_own_rule_runs_the_file_itself(tmp_path, batch):
    file = deployed(tmp_path, small(), RULES["entropy"])
    made, known = [], file._piece
    file._piece = lambda which: (made.append(which), known(which))[1]
    for rule in (RULES["entropy"], ThresholdExit(RULES["entropy"].measure, 0.1)):
        file.infer(**row(batch, 0), criterion=rule)
    assert made == ["whole", "whole"]
    # Another measure, a batch and a hook do not; the full model is its last exit.
    file.infer(**row(batch, 0), criterion=RULES["margin"])
    file.infer(**batch, criterion=RULES["entropy"])
    assert set(made[2:]) == set(range(1, LAYERS + 1))
    del made[:]
    file.infer(**row(batch, 0))
    assert made == ["last"]


@pytest.mark.parametrize("model_type", list(BACKBONES))
def test_a_layer_alone_has_no_weights_but_its_own(tmp_path, model_type):
    """Above all no embeddings, from which the first hidden states would be made once more."""
    file = deployed(tmp_path, small(model_type), RULES["entropy"])
    table = small(model_type).word_embeddings.weight.shape
    sizes = []
    for layer in range(2, LAYERS + 1):
        graph = file._layers.piece([f"hidden_{layer}"], [f"hidden_{layer - 1}"]).graph
        assert all(tuple(one.dims) != table for one in graph.initializer)
        sizes.append(sum(len(one.raw_data) for one in graph.initializer if len(one.dims) == 2))
    assert len(set(sizes)) == 1


def test_the_model_comes_back_in_its_mode():
    model = small()
    model.train()
    model.classifiers.eval()
    flat_graph(model, None)
    assert model.training
    assert model.backbone.training
    assert not model.classifiers.training


def test_other_weights_than_float32_are_refused():
    with pytest.raises(UsageError, match="float32 weights on the CPU, these are float64 on cpu"):
        flat_graph(small(dtype=torch.float64), None)


class _Lost(Criterion):
    """Its threshold is a number before the graph can see it."""

    name, option, options = "lost", "lost", type(None)
    threshold = 0.4

    def step(self, layer, logits, state):
        return logits.softmax(dim=-1).amax(dim=-1) > float(self.threshold)

    def describe(self):
        return {"criterion": "lost", "threshold": self.threshold}


class _Drawn(_Lost):
    """What no graph holds: its answer depends on an `if` over the input."""

    def step(self, layer, logits, state):
        leave = logits.softmax(dim=-1).amax(dim=-1) > self.threshold
        return ~leave if len(logits) == 4 else leave


def test_an_exit_that_the_graph_cannot_hold_is_refused():
    with pytest.raises(EexitError, match="threshold does not reach the ONNX graph"):
        flat_graph(small(), _Lost())
    with pytest.raises(EexitError, match="not the model: who leaves after layer 1 differ"):
        flat_graph(small(), _Drawn())


def test_a_damaged_weight_is_an_error_and_no_class(tmp_path, batch):
    path = written(tmp_path / "m.onnx", small(), RULES["entropy"])
    graph = onnx.load(path)
    for inner in graphs_within(graph.graph):
        for tensor in inner.initializer:
            if "classifiers" in tensor.name:
                size = len(tensor.raw_data) // 4
                tensor.raw_data = np.full(size, np.nan, dtype=np.float32).tobytes()
    path.write_bytes(graph.SerializeToString())
    file = OnnxClassifier.load(path)
    for run in (
        lambda: file(**batch),
        lambda: file.infer(**batch),
        lambda: file.infer(**batch, criterion=RULES["entropy"]),
        lambda: file.infer(**row(batch, 0), criterion=RULES["entropy"]),
    ):
        with pytest.raises(NotFiniteError, match="not finite"):
            run()
