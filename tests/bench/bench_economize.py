"""Early exit and self-speculation of a Llama-layout model, beside the package economize.

economize needs transformers 5 and, beside it, nothing that is not here. Two commands, in an
environment that has transformers 5:

    pip install --no-deps --target beside economize==0.3.2
    PYTHONPATH=.:beside python tests/bench/bench_economize.py [--model FOLDER] [--threshold 0.9]

``--model`` is a decoder-only model by name or folder (``tools/build_smollm2.py`` makes one of a
real language model); without it the weights are random, so that nothing but speed means anything.
One process, batch 1, float32, all ways taking turns. Compared are CALM (arXiv:2207.07061) with one
threshold and one first layer, and LayerSkip's self-speculation (arXiv:2404.16710) with one E and
one draft length: tokens per second, layers run per token, and whether the outputs are the same. It
says who is faster, whoever that is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import eexit_cli as eexit
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.data import TASKS
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.models.decoding.settings import DecodeSettings

PROSE = (
    "The capital of France is",
    "Once upon a time there was a little girl who",
    "In 1999 the 2 largest cities of Spain were",
    "def mean(numbers):\n    return",
)
MEASURES = {"softmax": "softmax", "saturation": "state"}
"""Our name of a confidence, and theirs."""

SEMANTICS = """\
What is the same: the softmax margin (or the cosine of two layers' raw states), "above the
threshold" leaves, the prompt and so the first token run all layers, a skipped layer's key and
value come from the state that the token left with, the model's own norm and head answer at every
layer. What is not: economize lets the cosine decide from layer 1 on, against the embedding (here
both start at layer 2, as the paper does); it fills skipped keys and values at once, eexit when a
later token needs them; its verification runs the first E layers again, eexit goes on from the
states of the draft. Both draft greedily and as long as they may."""


@dataclass
class Way:
    """One way to decode: its program, and what was seen of it.

    Attributes:
        run: from a prompt [1, tokens] to the output's ids and the layers run for them, one number
            per token; None where nobody counts.
    """

    run: Callable[[torch.Tensor], tuple[list[int], float | None]]
    seconds: list[float] = field(default_factory=list)
    outputs: list[list[int]] = field(default_factory=list)
    layers: list[float] = field(default_factory=list)

    def turn(self, prompts: list[torch.Tensor], *, warm_up: bool) -> None:
        """Decode every prompt once."""
        started = time.perf_counter()
        with torch.inference_mode():
            found = [self.run(ids) for ids in prompts]
        if not warm_up:
            self.seconds.append(time.perf_counter() - started)
        self.outputs = [tokens for tokens, _ in found]
        self.layers = [layers for _, layers in found if layers is not None]

    def rate(self) -> float:
        """Tokens per second, the median of the turns."""
        return sum(map(len, self.outputs)) / statistics.median(self.seconds)


def ours(model: Any, settings: DecodeSettings) -> Way:
    """A way of this project's."""

    def run(ids: torch.Tensor) -> tuple[list[int], float]:
        found = model.decode(ids, None, settings)
        tokens = found.samples[0].tokens
        # The first token's layers belong to the prompt.
        spent = found.counts.layer_tokens - model.config.depth
        return tokens, spent / max(1, len(tokens) - 1)

    return Way(run)


def theirs(model: Any, longest: int, end: list[int]) -> Way:
    """A way of economize's."""

    def run(ids: torch.Tensor) -> tuple[list[int], float]:
        found = model.decode(ids[0], longest, stop=end or None)
        technique = next(iter(model.techniques.values()), None)
        summary = found.cost_summary()
        spent = summary["layer_tokens"]
        if technique is not None and hasattr(technique, "depth_stats"):
            spent -= technique.depth_stats()["skipped_layer_tokens"]
        spent -= ids.shape[1] * found.num_layers
        tokens = found.tokens.tolist()
        return tokens, spent / max(1, len(tokens) - 1)

    return Way(run)


def generate(model: Any, longest: int, end: list[int]) -> Way:
    """transformers' own decoding."""

    def run(ids: torch.Tensor) -> tuple[list[int], None]:
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=longest,
            eos_token_id=end or None,
            pad_token_id=0,
        )
        return out[0, ids.shape[1] :].tolist(), None

    return Way(run)


def opened(name: str | None, count: int, scratch: Path) -> tuple[Any, Path, list[torch.Tensor]]:
    """The model, its folder, and prompts for it: words of the test split, prose, or any tokens."""
    if name is None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=4096,
            hidden_size=256,
            intermediate_size=683,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            eos_token_id=None,
            bos_token_id=None,
        )
        made = LlamaForCausalLM(config)
        # Early layers are sure of something, some tokens more than others.
        made.model.embed_tokens.weight.data.mul_(3)
        made.save_pretrained(scratch)
        model = load_causal(scratch, build_classifier=build_classifier)
        return model, scratch, [torch.randint(3, 4096, (1, 8)) for _ in range(count)]
    loaded: Any = eexit.load(name, device="cpu", dtype="float32")
    if loaded.model.config.task == "pronunciation":
        texts = TASKS.load("pronunciation").read("test", data_dir=None, progress=None).texts[:count]
        prompts = [loaded.tokenised(text)["input_ids"] for text in texts]
    else:
        tokenizer = loaded.tokenizer
        prompts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in PROSE[:count]]
    return loaded.model, loaded.folder, prompts


def same(one: Way, other: Way) -> str:
    """How many of the outputs are equal, and of their tokens, place by place."""
    pairs = list(zip(one.outputs, other.outputs, strict=True))
    if one.outputs == other.outputs:
        return "the same"
    equal = sum(a == b for a, b in pairs)
    total = sum(max(len(a), len(b)) for a, b in pairs)
    alike = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return f"{equal} of {len(pairs)} the same, {100 * alike / total:.0f} % of tokens"


def verdict(what: str, mine: Way, other: Way) -> str:
    """Who is faster, from the median of the turns' ratios."""
    ratio = statistics.median(b / a for a, b in zip(mine.seconds, other.seconds, strict=True))
    # Outputs that differ have other lengths.
    ratio *= sum(map(len, mine.outputs)) / max(1, sum(map(len, other.outputs)))
    winner = "eexit" if ratio > 1 else "economize"
    return f"{what}: {winner} is faster, {max(ratio, 1 / ratio):.2f} times the tokens per second"


def ways_of(given: Any, model: Any, folder: Path, first: int) -> dict[str, Way]:
    """Every way to decode, on the same weights."""
    import economize
    from economize.techniques.dynamic_depth import CalmConfig
    from economize.techniques.early_exit import EarlyExitConfig

    longest = given.max_new_tokens
    stated = model.generation_config.eos_token_id
    end = [stated] if isinstance(stated, int) else list(stated or [])

    def plain() -> Any:
        # One each: economize attaches to the model that it is given.
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    calm = CalmConfig(
        confidence=MEASURES[given.confidence], threshold=given.threshold, min_layer=first
    )
    drafter = EarlyExitConfig(exit_layer=given.exit_layer, head="shared")
    drafting = economize.DecodeConfig(cycle_length=given.draft_tokens + 1)
    early = DecodeSettings(
        max_new_tokens=longest,
        measure=build_measure(given.confidence),
        rule=TokenThreshold(given.threshold),
        min_layer=first,
    )
    speculating = DecodeSettings(
        max_new_tokens=longest, draft_layer=given.exit_layer, draft_tokens=given.draft_tokens
    )
    return {
        "transformers, full": generate(plain(), longest, end),
        "economize, full": theirs(economize.apply(plain()), longest, end),
        "eexit, full": ours(model, DecodeSettings(max_new_tokens=longest)),
        "economize, CALM": theirs(economize.apply(plain(), calm), longest, end),
        "eexit, CALM": ours(model, early),
        "economize, self-speculative": theirs(
            economize.apply(plain(), drafter, decoding=drafting), longest, end
        ),
        "eexit, self-speculative": ours(model, speculating),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model")
    parser.add_argument("--confidence", choices=list(MEASURES), default="softmax")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--min-layer", type=int)
    parser.add_argument("--exit-layer", type=int, default=2)
    parser.add_argument("--draft-tokens", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    first = given.min_layer or (1 if given.confidence == "softmax" else 2)
    with tempfile.TemporaryDirectory() as scratch:
        model, folder, prompts = opened(given.model, given.prompts, Path(scratch))
        try:
            ways = ways_of(given, model, folder, first)
        except ImportError as error:
            raise SystemExit(f"economize is not here ({error}); see the docstring") from error
    for turn in range(given.repeats + 1):
        for way in ways.values():
            way.turn(prompts, warm_up=turn == 0)
    full = ways["transformers, full"]
    print(f"threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}")
    print(
        f"{given.model or 'random weights'}, {model.config.depth} layers, {len(prompts)} prompts, "
        f"{given.confidence} above {given.threshold:g} from layer {first} on, "
        f"E = {given.exit_layer}, {given.draft_tokens} drafted"
    )
    for name, way in ways.items():
        layers = f"{statistics.fmean(way.layers):6.2f} layers/token" if way.layers else " " * 19
        print(f"  {name:28} {way.rate():8.1f} tokens/s {layers}  to full: {same(way, full)}")
    for what in ("full", "CALM", "self-speculative"):
        mine, other = ways[f"eexit, {what}"], ways[f"economize, {what}"]
        print(f"{verdict(what, mine, other)}; outputs of the two: {same(mine, other)}")
    print(SEMANTICS)


if __name__ == "__main__":
    main()
