"""What eight bits cost the bundled models, on texts that they were not trained on."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_tiny import deployed
from transformers import AutoTokenizer

from eexit_cli.confidence import MEASURES
from eexit_cli.data.bundled import ASSETS
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx.export import Flat
from eexit_cli.models.onnx.quantise import _tables, quantised
from eexit_cli.models.onnx.runtime import session
from eexit_cli.store.models import BUNDLED

SAMPLES = 250


def test_tables_with_few_rows_stay_as_they_are():
    """Next to the largest; and what no look-up reads, or is no table, is none."""
    rows = {"words": 100, "bytes": 10, "positions": 9}
    shapes = {name: (count, 4) for name, count in rows.items()} | {"unread": (90, 4), "one": (90,)}
    weights = {
        name: numpy_helper.from_array(np.ones(shape, dtype=np.float32), name)
        for name, shape in shapes.items()
    }
    nodes = [helper.make_node("Gather", [name, "ids"], [f"{name}_out"]) for name in (*rows, "one")]
    assert _tables(nodes, weights) == {"words", "bytes"}
    assert _tables(nodes, {"one": weights["one"]}) == set()


def test_steps_are_of_a_block_and_of_a_row():
    """A product with 1 in each place gives the weights; so does a look-up of each row."""
    weights = np.random.default_rng(0).normal(size=(150, 16)).astype(np.float32)
    weights[:64] *= 100  # another block's steps would be far too large
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
                helper.make_node("Gather", ["w2", "rows"], ["z"]),
            ],
            "both",
            [
                helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, "n", 150]),
                helper.make_tensor_value_info("rows", onnx.TensorProto.INT64, ["n"]),
            ],
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                for name in ("y", "z")
            ],
            [numpy_helper.from_array(weights, name) for name in ("w", "w2")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    flat, _ = quantised(Flat(model, 1, None), reduce_range=False)
    assert {node.op_type for node in flat.model.graph.node} >= {"MatMulNBits", "Cast"}
    rows = {"x": np.eye(150, dtype=np.float32)[None], "rows": np.arange(150)}
    product, table = session(flat.model, "both").run(["y", "z"], rows)
    blocks = np.repeat([np.abs(weights[at : at + 64]).max(0) for at in (0, 64, 128)], 64, 0)[:150]
    assert (np.abs(product[0] - weights) <= blocks / 127 * 0.51).all()
    assert (np.abs(table - weights) <= np.abs(weights).max(1, keepdims=True) / 127 * 0.51).all()


RULES = {
    "deebert": ThresholdExit(MEASURES.load("entropy"), 0.4193),
    "pabee": PatienceExit(2),
}


# Of all 1,100 test texts 95.1 and 98.5 % leave where they did, of these few a little more or less.
@pytest.mark.parametrize(("name", "exits"), [("deebert", 0.92), ("pabee", 0.95)])
def test_bundled_models_keep_their_answers_and_mostly_their_exits(tmp_path, name, exits):
    model = MultiExitClassifier.from_pretrained(BUNDLED / name).eval()
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / name)
    rule = RULES[name]
    assert (
        model.config.exit_defaults.items()
        >= {
            key: value for key, value in rule.describe().items() if key != "regression_tolerance"
        }.items()
    )
    whole = deployed(tmp_path, model, rule)
    small = deployed(tmp_path, model, rule, weights="int8")
    lines = (ASSETS / "movie-reviews" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    same = torch.zeros(3)
    for line in lines[:SAMPLES]:
        text = json.loads(line)["text"]
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)
        expected = model.infer(**batch, criterion=rule)
        exact, found = (file.infer(**batch, criterion=rule) for file in (whole, small))
        same[0] += int(exact.exit_layers) == int(expected.exit_layers)
        same[1] += int(found.exit_layers) == int(expected.exit_layers)
        same[2] += int(found.predictions) == int(expected.predictions)
    share = same / SAMPLES
    print(name, share.tolist())
    assert share[0] == 1
    assert share[1] >= exits, share
    assert share[2] >= 0.97, share
