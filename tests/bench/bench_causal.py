"""Decoder-only decoding against transformers' generate, in one run, side by side.

SmolLM-135M's shape with random weights (30 layers x 576, 9 heads, 3 key-value heads, vocabulary
49,152): tokens per second at full depth, and with random exits of mean layer 10 to 15, whose ideal
is the time of the layers and heads that are run. Prints ratios of medians.

    python tests/bench/bench_causal.py [--layers 30] [--tokens 24] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.models.decoding.settings import DecodeSettings

PROMPT = 16


class RandomMeasure:
    """Leaves after a random layer, without a look at anything: what is left is the exits' cost."""

    name = "random"
    needs = "residuals"

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def session(self, *, slots: int, num_layers: int, max_tokens: int, like: Any) -> Any:
        self._generator = torch.Generator().manual_seed(0)
        return self

    def confidence(self, view: Any) -> torch.Tensor:
        rows = view.residual.shape[0]
        if view.layer < self.first:
            return torch.zeros(rows)
        left = self.last - view.layer + 1
        return (torch.rand(rows, generator=self._generator) < 1 / max(left, 1)).float()

    def compact(self, slots: Any) -> None:
        pass

    def shift(self, offset: int) -> None:
        pass


class Half:
    """Leaves above a half."""

    def leave(self, confidence: torch.Tensor, position: Any) -> torch.Tensor:
        return confidence > 0.5

    def describe(self) -> dict[str, Any]:
        return {}


def timed(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taking turns; the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=given.layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        ours = load_causal(Path(folder), build_classifier=build_classifier)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    print(f"threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}")
    full = DecodeSettings(max_new_tokens=given.tokens)
    first, last = given.layers // 3, given.layers // 2
    early = DecodeSettings(
        max_new_tokens=given.tokens, measure=RandomMeasure(first, last), rule=Half()
    )
    for batch in (1, 32):
        ids = torch.randint(3, 49_000, (batch, PROMPT))
        mask = torch.ones_like(ids)
        runs: dict[str, Any] = {}

        def generate(ids: Any = ids, mask: Any = mask) -> None:
            with torch.inference_mode():
                theirs.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=False,
                    min_new_tokens=given.tokens,
                    max_new_tokens=given.tokens,
                    pad_token_id=0,
                )

        def decode(
            name: str, settings: Any, ids: Any = ids, mask: Any = mask, runs: Any = runs
        ) -> None:
            runs[name] = ours.decode(ids, mask, settings)

        seconds = timed(
            {
                "generate": generate,
                "full": lambda: decode("full", full),
                "early": lambda: decode("early", early),
                "static": lambda: decode(
                    "static", DecodeSettings(max_new_tokens=given.tokens, static_layer=first)
                ),
                "prompt": lambda: decode("prompt", DecodeSettings(max_new_tokens=1)),
                "shallow prompt": lambda: decode(
                    "shallow", DecodeSettings(max_new_tokens=1, static_layer=first)
                ),
            },
            given.repeats,
        )
        print(
            f"batch {batch}: generate {seconds['generate']:.2f} s, ours {seconds['full']:.2f} s; "
            f"full depth {seconds['generate'] / seconds['full']:.2f} of generate's tokens/s"
        )
        layers = [n for one in runs["early"].samples for n in one.exit_layers[1:]]
        mean = sum(layers) / len(layers)
        # Time of a layer and of the rest (head, embedding) of a step, from two full depths.
        steps = given.tokens - 1
        deep = (seconds["full"] - seconds["prompt"]) / steps
        shallow = (seconds["static"] - seconds["shallow prompt"]) / steps
        layer = (deep - shallow) / (given.layers - first)
        rest = deep - given.layers * layer
        ideal = seconds["prompt"] + steps * (mean * layer + rest)
        print(
            f"          early exit at mean layer {mean:.1f}: {seconds['early']:.2f} s, "
            f"{ideal / seconds['early']:.2f} of the ideal {ideal:.2f} s"
        )


if __name__ == "__main__":
    main()
