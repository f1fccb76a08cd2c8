"""What leaving early inside ONNX Runtime saves: over torch's live exits, and over quantising alone.

    python -m pytest -m bench tests/bench/bench_onnx.py -s

One thread. "Full depth" is what anybody would deploy: the last exit alone, without branches, as
float32 or as ``quantize_dynamic`` makes it per channel. All ways take turns: text by text, where
each finds the processor's caches full of the others' weights, and twenty texts at a time, as where
one model is served. A ratio is that of the medians over items of each item's median over repeats.
Exits and accuracy are those of the test split.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eexit_cli.confidence import MEASURES
from eexit_cli.data.bundled import ASSETS
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.metrics.latency import time_in_turn
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx.deployment import deployed_model
from eexit_cli.models.onnx.export import flat_graph
from eexit_cli.models.onnx.nesting import Layers, nest
from eexit_cli.models.onnx.runtime import session
from eexit_cli.models.onnx.sessions import OnnxClassifier
from eexit_cli.store.models import BUNDLED

pytestmark = pytest.mark.bench

TIMED, SERVED, BATCH, REPEATS = 100, 20, 32, 7

RULES = {
    "deebert": ThresholdExit(MEASURES.load("entropy"), 0.4193),
    "pabee": PatienceExit(2),
}


def full_depth(model: MultiExitClassifier, folder: Path, *, int8: bool) -> Any:
    """A session of the last exit alone."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    flat = flat_graph(model, None)
    last = [f"logits_{flat.layers}"]
    graph = Layers.of(nest(flat), flat.layers, folder).piece(last)
    if int8:
        import onnx

        quantize_dynamic(graph, folder / "q.onnx", per_channel=True, weight_type=QuantType.QInt8)
        graph = onnx.load(folder / "q.onnx")
    made = session(graph, "full depth")
    return lambda batch: made.run(last, {name: value.numpy() for name, value in batch.items()})


def median(seconds: np.ndarray) -> float:
    return float(np.median(np.median(seconds, axis=0)))


@pytest.mark.parametrize("name", RULES)
def test_live_exits(name: str, tmp_path: Path) -> None:
    model = MultiExitClassifier.from_pretrained(BUNDLED / name).eval()
    tokenizer, rule = AutoTokenizer.from_pretrained(BUNDLED / name), RULES[name]
    files = {}
    for weights in ("float32", "int8"):
        path = tmp_path / f"{weights}.onnx"
        path.write_bytes(deployed_model(model, rule, weights=weights)[0].SerializeToString())
        files[weights] = OnnxClassifier.load(path)
        print(f"\n{name} {weights}: {path.stat().st_size / 1e6:.1f} MB", end="")
    with tempfile.TemporaryDirectory() as folder:
        whole = {w: full_depth(model, Path(folder), int8=w == "int8") for w in files}

    lines = (ASSETS / "movie-reviews" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    def encode(texts: list[str]) -> dict[str, torch.Tensor]:
        return dict(
            tokenizer(texts, return_tensors="pt", truncation=True, max_length=128, padding=True)
        )

    singles = [encode([row["text"]]) for row in rows]
    labels = [model.config.label2id[row["label"]] for row in rows]
    narrow = tmp_path / "narrow.onnx"
    graph, _ = deployed_model(model, rule, weights="int8", reduce_range=True)
    narrow.write_bytes(graph.SerializeToString())
    # Of the last one exits alone: how long it takes without VNNI, a processor with it cannot tell.
    every = {"torch": model, **files, "int8 without VNNI": OnnxClassifier.load(narrow)}
    found = {
        way: [each.infer(**batch, criterion=rule) for batch in singles]
        for way, each in every.items()
    }
    exits = {way: np.array([int(d.exit_layers) for d in each]) for way, each in found.items()}
    answers = {way: np.array([int(d.predictions) for d in each]) for way, each in found.items()}
    print()
    for way in found:
        same = (exits[way] == exits["torch"]).mean()
        print(
            f"{name} {way}: of {len(rows)} texts {100 * same:.1f} % leave as in torch, mean layer "
            f"{exits[way].mean():.2f}, accuracy {100 * (answers[way] == labels).mean():.1f} %"
        )

    ways = {
        "torch live": lambda batch: model.infer(**batch, criterion=rule),
        **{f"{w} live": _live(each, rule) for w, each in files.items()},
        **{f"{w} full depth": each for w, each in whole.items()},
    }
    one = {w: median(s) for w, s in _timed(ways, singles[:TIMED]).items()}
    rows_of = [singles[at : at + SERVED] for at in range(0, TIMED, SERVED)]
    in_a_row = {w: lambda texts, run=run: [run(text) for text in texts] for w, run in ways.items()}
    served = {w: median(s) / SERVED for w, s in _timed(in_a_row, rows_of).items()}
    ordered = sorted(rows, key=lambda row: len(row["text"]))
    groups = [ordered[at : at + BATCH] for at in range(0, len(rows) - BATCH, 4 * BATCH)]
    many = {
        w: float(np.median(s.sum(axis=1)))
        for w, s in _timed(ways, [encode([r["text"] for r in g]) for g in groups]).items()
    }
    for how, seconds in (("text by text", one), (f"{SERVED} texts in a row", served)):
        print(
            f"{name}, batch 1, {how}, ms:", {way: round(1e3 * s, 2) for way, s in seconds.items()}
        )
        for live, other in (
            ("int8 live", "torch live"),
            ("int8 live", "int8 full depth"),
            ("float32 live", "torch live"),
            ("float32 live", "float32 full depth"),
        ):
            ratio = seconds[live] / seconds[other]
            print(f"{name}, batch 1, {how}: {live} / {other} {ratio:.2f}")
    for live in ("int8", "float32"):
        gain = many[f"{live} full depth"] / many[f"{live} live"]
        print(f"{name}, batch {BATCH}: {live} live samples/s / {live} full depth {gain:.2f}")


def _live(file: OnnxClassifier, rule: Any) -> Any:
    return lambda batch: file.infer(**batch, criterion=rule)


def _timed(ways: dict[str, Any], batches: list[Any]) -> dict[str, np.ndarray]:
    seconds = time_in_turn(ways, batches, repeats=REPEATS)
    return {way: np.asarray(each) for way, each in seconds.items()}
