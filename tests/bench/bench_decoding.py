"""Decoding speed in ratios of one run: against transformers' generate, early exit, top-k, batches.

    python tests/bench/bench_decoding.py                 # T5-small's shape, random weights
    python tests/bench/bench_decoding.py --model calm    # a trained model on its own test split

Batch 32 means 32 slots: an output that ends makes room for the next of the inputs, as in
``eexit evaluate``. Batch 1 is one call per input. Nothing is asserted: times on a busy machine say
little, ratios of interleaved runs say more. ``--unpacked`` shows what the kernels alone are worth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.config import EvaluateConfig
from eexit_cli.core.decoding import DecoderMeasure
from eexit_cli.core.progress import SilentProgress
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.families.decoders.decoding import prepare_sources
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.decoding.results import Decoded
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.timing import Stopwatch
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.model import MultiExitT5

SHAPES = {
    # T5-small's
    "small": {
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": 6,
        "num_heads": 8,
    },
    # of a model for letters and phonemes
    "tiny": {
        "vocab_size": 70,
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 512,
        "num_layers": 6,
        "num_decoder_layers": 6,
        "num_heads": 4,
    },
}


Inputs = dict[str, Tensor]
"""``input_ids`` and ``attention_mask`` of a batch."""


@dataclass
class Setup:
    """What is measured on."""

    model: MultiExitT5
    tokens: int
    sources: Tensor
    mask: Tensor
    repeats: int
    base: DecodeSettings

    def batch(self, size: int) -> Inputs:
        """The first ``size`` inputs."""
        return self.some(range(size))

    def batches(self) -> list[Inputs]:
        """All inputs, 32 at a time."""
        places = range(len(self.sources))
        return [self.some(places[start : start + 32]) for start in places[::32]]

    def spread(self, count: int) -> list[Inputs]:
        """Single inputs at equal distances, so of all lengths."""
        places = range(len(self.sources))
        return [self.some([place]) for place in places[:: max(1, len(places) // count)]]

    def some(self, places: Sequence[int]) -> Inputs:
        chosen = list(places)
        mask = self.mask[chosen]
        longest = int(mask.sum(dim=1).max())
        return {
            "input_ids": self.sources[chosen][:, :longest],
            "attention_mask": mask[:, :longest],
        }


class RandomExits:
    """Leaves at random, so that the layers at which random weights are sure play no part.

    The confidence is computed and then ignored. Rows leave independently, the hard case for a
    batch: at nearly every step some row goes deep.
    """

    def __init__(self, chance: float) -> None:
        self.chance = chance
        self._generator = torch.Generator().manual_seed(3)

    def leave(self, confidence: Tensor, position: int | Tensor) -> Tensor:
        return torch.rand(confidence.shape, generator=self._generator) < self.chance

    def describe(self) -> dict[str, Any]:
        return {"chance": self.chance}


def random_exits(target: float, depth: int) -> RandomExits:
    """Exits whose mean layer is ``target``: the same chance after each layer."""
    low, high = 0.0, 1.0
    for _ in range(40):
        chance = (low + high) / 2
        mean = sum((1 - chance) ** layer for layer in range(depth))
        low, high = (chance, high) if mean > target else (low, chance)
    return RandomExits(low)


def random_model(shape: str) -> MultiExitT5:
    """Random weights; no token ends an output."""
    torch.manual_seed(0)
    config = MultiExitT5Config(**SHAPES[shape], eos_token_id=None, classifiers=["linear"])
    model = MultiExitT5(config, {"linear": build_classifier("linear", config.d_model)})
    return model.eval()


def rates(setup: Setup, runs: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Median tokens per second of each, taken in turns so that a disturbance hits them alike."""
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(setup.repeats):
        for name, run in runs.items():
            start = Stopwatch.clock()
            tokens = run()
            seen[name].append(tokens / (Stopwatch.clock() - start))
    return {name: statistics.median(values) for name, values in seen.items()}


def generate(setup: Setup, batch: Inputs) -> int:
    with torch.inference_mode():
        out = setup.model.generate(
            **batch,
            max_new_tokens=setup.tokens,
            do_sample=False,
            num_beams=1,
        )
    ends = setup.model.config.end_tokens
    return sum(
        next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
        for row in out[:, 1:].tolist()
    )


def decode(setup: Setup, batch: Inputs, settings: DecodeSettings) -> Decoded:
    return setup.model.decode(**batch, settings=settings)


def one_by_one(setup: Setup, batches: list[Inputs], settings: DecodeSettings) -> int:
    return sum(decode(setup, one, settings).counts.tokens for one in batches)


def mean_layer(result: Decoded) -> float:
    layers = [layer for sample in result.samples for layer in sample.exit_layers]
    return statistics.fmean(layers)


def tuned(setup: Setup, measure: DecoderMeasure, target: float) -> DecodeSettings:
    """The threshold whose mean exit layer comes nearest to the target."""
    low, high = 0.0, 1.0
    settings = setup.base
    for _ in range(14):
        middle = (low + high) / 2
        settings = replace(setup.base, measure=measure, rule=TokenThreshold(middle))
        if mean_layer(decode(setup, setup.batch(8), settings)) < target:
            low = middle
        else:
            high = middle
    return settings


def full_depth(setup: Setup) -> None:
    print("\nFull depth, tokens/s (target: 1.8 times generate at batch 1, 1.2 at batch 32)")
    if setup.model.depth > int(setup.model.config.num_layers):
        print("  left out: generate fails with its cache when the decoder is the deeper one")
        return
    plain = replace(setup.base, packed=False)
    for size in (1, 32):
        ids = setup.batch(size)
        got = rates(
            setup,
            {
                "generate": lambda ids=ids: generate(setup, ids),
                "own": lambda ids=ids: decode(setup, ids, setup.base).counts.tokens,
                "unpacked": lambda ids=ids: decode(setup, ids, plain).counts.tokens,
            },
        )
        print(
            f"  batch {size:2d}: generate {got['generate']:7.1f}, own loop {got['own']:7.1f}: "
            f"{got['own'] / got['generate']:.2f} times "
            f"(without packed products {got['unpacked'] / got['generate']:.2f})"
        )


def early_exit(setup: Setup, name: str, settings: DecodeSettings) -> None:
    target = {1: 0.80, 32: 0.40}
    depth = setup.model.depth
    for size in (1, 32):
        ids = setup.batch(size)
        timed_full = replace(setup.base, timings=True)
        timed = replace(settings, timings=True)
        shares, layers, others = [], [], []
        decode(setup, ids, timed)
        for _ in range(setup.repeats):
            full, early = decode(setup, ids, timed_full), decode(setup, ids, timed)
            assert full.timings is not None
            assert early.timings is not None
            whole = (sum(full.timings.layers) + full.timings.filling) / full.counts.tokens
            spent = sum(early.timings.layers) + early.timings.filling
            mean = mean_layer(early)
            shares.append(whole * mean / depth / (spent / early.counts.tokens))
            layers.append(mean)
            per = 1e3 / early.counts.tokens
            others.append(
                (
                    sum(early.timings.layers) * per,
                    early.timings.filling * per,
                    sum(early.timings.confidence) * per,
                    early.timings.head * per,
                )
            )
        part = [statistics.median(column) for column in zip(*others, strict=True)]
        print(
            f"  {name:10s} batch {size:2d}: mean layer {layers[0]:.2f} of {depth}, share of the "
            f"ideal {statistics.median(shares):.2f} (target {target[size]:.2f}); ms per token: "
            f"layers {part[0]:.3f}, filling {part[1]:.3f}, confidence {part[2]:.3f}, "
            f"head {part[3]:.3f}"
        )


def batches(setup: Setup, name: str, settings: DecodeSettings) -> None:
    few = setup.spread(4 if len(setup.sources) == 32 else 32)
    many = setup.batches()
    got = rates(
        setup,
        {
            "one": lambda: one_by_one(setup, few, settings),
            "many": lambda: setup.model.decode_many(many, settings).counts.tokens,
            "full": lambda: one_by_one(setup, few, setup.base),
        },
    )
    print(
        f"  {name:10s} batch 1 {got['one']:7.1f} tokens/s ({got['one'] / got['full']:.2f} times "
        f"full depth), batch 32 {got['many']:7.1f}: {got['many'] / got['one']:.2f} times"
    )


def confidence_ms(setup: Setup, ids: Inputs, settings: DecodeSettings) -> list[float]:
    """Milliseconds of confidence per step and layer."""
    runs = []
    for _ in range(setup.repeats + 1):
        result = decode(setup, ids, replace(settings, timings=True))
        assert result.timings is not None
        steps = result.counts.tokens / len(ids["input_ids"])
        runs.append([value * 1e3 / steps for value in result.timings.confidence])
    return [statistics.median(column) for column in zip(*runs[1:], strict=True)]


def top_k(setup: Setup) -> None:
    vocabulary = int(setup.model.config.vocab_size)
    # Threshold 1: nothing leaves, so every layer is measured.
    softmax = replace(setup.base, measure=build_measure("softmax"), rule=TokenThreshold(1.0))
    for size in (1, 32):
        ids = setup.batch(size)
        plain = confidence_ms(setup, ids, softmax)
        print(
            f"  batch {size:2d} plain:   ms per step by layer "
            f"{' '.join(f'{value:.3f}' for value in plain)}"
        )
        for k in (10, 500, 2000):
            if k > vocabulary:
                continue
            kept = confidence_ms(setup, ids, replace(softmax, top_k=k))
            share = sum(kept[1:]) / sum(plain[1:])
            print(
                f"  batch {size:2d} K = {k:4d}: ms per step by layer "
                f"{' '.join(f'{value:.3f}' for value in kept)}; after the first layer "
                f"{100 * share:.0f} % of plain"
            )


def untrained(options: argparse.Namespace) -> tuple[MultiExitT5, Tensor, Tensor]:
    """Random weights and random inputs of one length."""
    model = random_model(options.shape)
    generator = torch.Generator().manual_seed(1)
    shape = (options.inputs or 32, options.source)
    sources = torch.randint(3, int(model.config.vocab_size), shape, generator=generator)
    return model, sources, torch.ones_like(sources)


def trained(options: argparse.Namespace) -> tuple[MultiExitT5, Tensor, Tensor]:
    """A trained model and samples of its own test split, longest first."""
    config = EvaluateConfig(model=options.model, limit=options.inputs or 256)
    loaded = load_decoder(config)
    examples = loaded.examples(
        loaded.own_data(config, SilentProgress()), default_split="test", progress=SilentProgress()
    )
    prepared = prepare_sources(loaded, examples, batch_size=len(examples))
    (batch,) = prepared.batches
    return loaded.model, batch["input_ids"], batch["attention_mask"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name, folder or hub id; default: random weights")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of the random weights")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--source", type=int, default=64, help="tokens of a random input")
    parser.add_argument("--inputs", type=int, help="default: 32 random ones, 256 of the test split")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--mean-layer", type=float, default=3.0)
    parser.add_argument("--parts", default="full,early,batch,topk")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: with one thread, on a busy machine"
    )
    parser.add_argument("--unpacked", action="store_true", help="plain products everywhere")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cpu_time:
        Stopwatch.clock = staticmethod(time.process_time)
    model, sources, mask = trained(options) if options.model else untrained(options)
    base = DecodeSettings(max_new_tokens=options.tokens, packed=not options.unpacked)
    setup = Setup(model, options.tokens, sources, mask, options.repeats, base)
    name = options.model or f"{options.shape}, random weights"
    print(
        f"{name}: d {model.config.d_model}, {model.depth} decoder "
        f"layers, vocabulary {model.config.vocab_size}; {len(sources)} inputs of at most "
        f"{sources.shape[1]} tokens, outputs of at most {options.tokens}; "
        f"{options.threads} threads; torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    parts = set(options.parts.split(","))
    if "full" in parts:
        full_depth(setup)
    settings = {}
    if parts & {"early", "batch"}:
        for name in ("saturation", "linear", "softmax"):
            if name != "linear" or "linear" in model.cm_heads:
                measure = build_measure(name, model.cm_heads)
                settings[name] = (
                    tuned(setup, measure, options.mean_layer)
                    if options.model
                    else replace(
                        base, measure=measure, rule=random_exits(options.mean_layer, model.depth)
                    )
                )
    if "early" in parts:
        print("\nEarly exit, decoder-layer time with filling, share of the ideal")
        for name, one in settings.items():
            early_exit(setup, name, one)
    if "batch" in parts:
        print("\nBatch 32 against batch 1 with early exit (target: 6 times, bundled model 3.5)")
        for name, one in settings.items():
            batches(setup, name, one)
    if "topk" in parts:
        print("\nTop-k propagation, confidence time (target: K = 2000, batch 1: at most 15 %)")
        top_k(setup)


if __name__ == "__main__":
    main()
