"""Self-speculation against transformers' ``assistant_early_exit``, same E and draft length.

    python tests/bench/bench_speculation.py [--model layerskip] [--exit-layer 2] [--draft-tokens 4]

Batch 1, the first words of the test split, one run, both ways taking turns; prints tokens per
second, the ratio, and whether the outputs are the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

import eexit_cli as eexit
from eexit_cli.data import TASKS
from eexit_cli.models.decoding.settings import DecodeSettings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="layerskip")
    parser.add_argument("--exit-layer", type=int, default=2)
    parser.add_argument("--draft-tokens", type=int, default=4)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    from transformers import AutoModelForCausalLM

    loaded: Any = eexit.load(given.model, device="cpu", dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(loaded.folder, dtype=torch.float32).eval()
    task = TASKS.load("pronunciation")
    words = task.read("test", data_dir=None, progress=None).texts[: given.words]
    prompts = [loaded.tokenised(word)["input_ids"] for word in words]
    longest = loaded.max_new_tokens
    settings = DecodeSettings(
        max_new_tokens=longest, draft_layer=given.exit_layer, draft_tokens=given.draft_tokens
    )
    full = DecodeSettings(max_new_tokens=longest)
    theirs.generation_config.num_assistant_tokens = given.draft_tokens
    theirs.generation_config.num_assistant_tokens_schedule = "constant"
    # A draft is as long as it may be, as here.
    theirs.generation_config.assistant_confidence_threshold = 0.0

    def hugging(ids: torch.Tensor, **others: Any) -> list[int]:
        out = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=longest,
            pad_token_id=0,
            **others,
        )
        found: list[int] = out[0, ids.shape[1] :].tolist()
        return found

    ways = {
        "generate": lambda ids: hugging(ids),
        "assistant_early_exit": lambda ids: hugging(ids, assistant_early_exit=given.exit_layer),
        "ours, full depth": lambda ids: loaded.model.decode(ids, None, full).samples[0].tokens,
        "ours, speculating": lambda ids: loaded.model.decode(ids, None, settings).samples[0].tokens,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, list[list[int]]] = {}
    for turn in range(given.repeats + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            with torch.inference_mode():
                outputs[name] = [run(ids) for ids in prompts]
            if turn:
                seconds[name].append(time.perf_counter() - started)
    tokens = sum(map(len, outputs["generate"]))
    rates = {name: tokens / statistics.median(each) for name, each in seconds.items()}
    print(f"threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}")
    print(
        f"{given.model}, E = {given.exit_layer}, {given.draft_tokens} drafted, {len(words)} words"
    )
    for name, rate in rates.items():
        same = outputs[name] == outputs["generate"]
        print(f"  {name:22} {rate:8.0f} tokens/s  outputs {'the same' if same else 'DIFFER'}")
    ratio = rates["ours, speculating"] / rates["assistant_early_exit"]
    print(f"  ours over assistant_early_exit: {ratio:.2f}")
    print(
        f"  ours over our full depth: {rates['ours, speculating'] / rates['ours, full depth']:.2f}"
    )


if __name__ == "__main__":
    main()
