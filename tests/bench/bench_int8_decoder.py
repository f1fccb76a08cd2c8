"""8-bit weights in decoders: seconds against float's and CTranslate2's int8, and what changes.

    python tests/bench/bench_int8_decoder.py                      # T5-small's shape
    python tests/bench/bench_int8_decoder.py --quality calm,layerskip

Random weights of T5-small's shape, outputs of one length, one thread: medians of runs taken in
turns, in ms per token, and ratios to CTranslate2 int8 of the same weights (package ctranslate2).
``--quality`` compares bundled models with themselves on their own test split: outputs, layers,
metric. Nothing is asserted: times on a busy machine say little, ratios of one run say more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_decoding import SHAPES, Inputs, mean_layer, random_exits, random_model
from transformers import T5Config, T5ForConditionalGeneration

from eexit_cli.confidence.decoder import build_measure
from eexit_cli.models.decoding import int8
from eexit_cli.models.decoding.int8 import FLOAT, INT8, largest_weight
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.model import MultiExitT5

Run = Callable[[], int]


def ctranslated(model: MultiExitT5, folder: Path, tokens: int) -> Callable[[int], Run] | None:
    """CTranslate2's int8 of the same weights, by batch size; None without the package."""
    try:
        import ctranslate2
    except ImportError:
        return None
    plain = T5ForConditionalGeneration(
        T5Config(**SHAPES["small"], decoder_start_token_id=0, tie_word_embeddings=True)
    )
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.tie_weights()
    spec = _spec(plain)
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))
    translator = ctranslate2.Translator(
        str(folder), compute_type="int8", inter_threads=1, intra_threads=torch.get_num_threads()
    )

    def of(batch: list[list[str]]) -> int:
        found = translator.translate_batch(
            batch, beam_size=1, min_decoding_length=tokens, max_decoding_length=tokens
        )
        return sum(len(one.hypotheses[0]) for one in found)

    return lambda size: lambda: of(NAMED[:size])


NAMED: list[list[str]] = []
"""Inputs as CTranslate2 takes them."""


def _spec(plain: Any) -> Any:
    """What its converter makes of a T5 in memory, whose tokens are called by their numbers."""
    from ctranslate2.converters.transformers import T5Loader

    class Loader(T5Loader):
        def get_vocabulary(self, model: Any, tokenizer: Any) -> list[str]:
            return [f"t{number}" for number in range(model.config.vocab_size)]

    class Tokenizer:
        pad_token, eos_token, unk_token = "t0", "t1", "t2"

        def convert_ids_to_tokens(self, number: int) -> str:
            return f"t{number}"

    return Loader()(plain, Tokenizer())


def ratios(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """Median ms per token of each, taken in turns so that a disturbance hits them alike."""
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            tokens = run()
            seen[name].append((time.perf_counter() - started) * 1e3 / tokens)
    return {name: statistics.median(values) for name, values in seen.items()}


def speed(options: argparse.Namespace) -> None:
    model = random_model("small")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, SHAPES["small"]["vocab_size"], (32, options.source), generator=generator)
    NAMED[:] = [[f"t{each}" for each in row] for row in ids.tolist()]
    full = DecodeSettings(max_new_tokens=options.tokens)
    softmax = replace(
        full,
        measure=build_measure("softmax"),
        rule=random_exits(options.mean_layer, model.depth),
    )
    kept = replace(softmax, top_k=2000)

    def ours(weights: str, settings: DecodeSettings, size: int) -> Run:
        batch: Inputs = {"input_ids": ids[:size], "attention_mask": torch.ones_like(ids[:size])}
        twin = random_model("small")
        twin.weights = weights

        def run() -> int:
            found = twin.decode(**batch, settings=settings)
            if settings is not full:
                LAYERS.append(mean_layer(found))
            return found.counts.tokens

        return run

    with tempfile.TemporaryDirectory() as folder:
        theirs = ctranslated(model, Path(folder) / "int8", options.tokens)
        for size in (1, 32):
            LAYERS.clear()
            runs: dict[str, Run] = {} if theirs is None else {"CTranslate2 int8": theirs(size)}
            for name, settings in (
                ("full depth", full),
                ("softmax", softmax),
                ("softmax, K = 2000", kept),
            ):
                for weights in (FLOAT, INT8):
                    runs[f"{weights} {name}"] = ours(weights, settings, size)
            got = ratios(runs, options.repeats)
            base = got.get("CTranslate2 int8", got["float full depth"])
            print(f"\nBatch {size}, ms per token, and ratio to {next(iter(got))}")
            layers = statistics.fmean(LAYERS)
            print(f"(mean layer where tokens leave: {layers:.2f} of {model.depth})")
            for name, value in got.items():
                print(f"  {name:24s} {value:7.3f}  {value / base:.2f}")


LAYERS: list[float] = []
"""Mean exit layer of each run that left early."""


def quality(names: list[str], limit: int) -> None:
    """Bundled models, with float weights and with int8: records side by side."""
    import eexit_cli as eexit

    for name in names:
        for full in (False, True):
            layer = eexit.load(name).num_layers
            exits: dict[str, Any] = {"static_layer": layer} if full else {}
            runs: dict[tuple[str, int], Any] = {}
            with tempfile.TemporaryDirectory() as folder:
                for weights in (FLOAT, INT8):
                    for size in (32, 1):
                        run = eexit.evaluate(
                            model=name,
                            weights=weights,
                            limit=limit,
                            batch_size=size,
                            latency_samples=0,
                            results_dir=folder,
                            **exits,
                        )
                        lines = (run.path / "records.jsonl").read_text("utf-8").splitlines()
                        runs[weights, size] = run.metrics, [json.loads(line) for line in lines]
            compare(f"{name}, {'full depth' if full else 'its own exit'}", runs)


def compare(title: str, runs: dict[tuple[str, int], Any]) -> None:
    print(f"\n{title}")
    for (weights, size), (metrics, records) in runs.items():
        shown = ", ".join(
            f"{key} {value:.4f}"
            for key, value in metrics.items()
            if isinstance(value, float) and ("rate" in key or key == "mean_exit_layer")
        )
        print(f"  {weights:5s} batch {size:2d}: {len(records)} samples, {shown}")
    for what, one, other in (
        ("int8 against float", (FLOAT, 32), (INT8, 32)),
        ("float, batch 1 against 32", (FLOAT, 1), (FLOAT, 32)),
        ("int8, batch 1 against 32", (INT8, 1), (INT8, 32)),
    ):
        pairs = list(zip(runs[one][1], runs[other][1], strict=True))
        same = [(a, b) for a, b in pairs if a["output"] == b["output"]]
        layers = [
            x == y for a, b in same for x, y in zip(a["exit_layers"], b["exit_layers"], strict=True)
        ]
        print(
            f"  {what}: {len(same) / len(pairs):.2%} of the outputs equal, "
            f"{statistics.fmean(layers):.2%} of their tokens' layers"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--source", type=int, default=32, help="tokens of an input")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mean-layer", type=float, default=2.5)
    parser.add_argument("--quality", help="bundled models, with commas; no times")
    parser.add_argument(
        "--round-all", action="store_true", help="inputs of small maps are rounded as well"
    )
    parser.add_argument("--limit", type=int, default=1000, help="samples of --quality")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.threads} threads, whole weights up to {largest_weight()}"
    )
    if options.round_all:
        int8.ROUND_FROM = 0
    if options.quality:
        quality(options.quality.split(","), options.limit)
    else:
        speed(options)


if __name__ == "__main__":
    main()
