"""What eight bits cost the bundled models, on texts that they were not trained on."""

from __future__ import annotations

import json

import pytest
import torch
from onnx_tiny import deployed
from transformers import AutoTokenizer

from eexit_cli.confidence import MEASURES
from eexit_cli.data.bundled import ASSETS
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.store.models import BUNDLED

SAMPLES = 250

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
