"""How much of what the saved layers allow does leaving early really save?

Prints, for batch 1 and batch 32, the measured wall-clock speedup of the live path over the full
model (same kernels, taking turns batch by batch) and its share of L / mean exit layer.

    python tests/bench/bench_live_exit.py --model deebert
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from eexit_cli.config import EvaluateConfig
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import load_examples
from eexit_cli.families.batches import batches_by_length, texts_of
from eexit_cli.families.encoder.exits import build_criterion, describe
from eexit_cli.families.encoder.model import load_model
from eexit_cli.metrics.latency import speedup, time_in_turn
from eexit_cli.models.batching import TextBatcher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deebert")
    parser.add_argument("--samples", type=int, default=520)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    config = EvaluateConfig(model=arguments.model, limit=arguments.samples)
    loaded = load_model(config)
    config = loaded.own_data(config, SilentProgress())
    examples = load_examples(config, default_split="test", label_names=loaded.label_names)
    model = loaded.model
    criterion = build_criterion(
        config,
        model.config.exit_defaults,
        num_layers=model.num_exits,
        num_classes=model.num_classes,
    )
    print(f"model {arguments.model}, exit {describe(criterion)}, {torch.get_num_threads()} threads")
    batcher = TextBatcher(loaded.tokenizer, loaded.max_length)
    texts, pairs = texts_of(examples)
    sizes = [len(text) for text in texts]
    for batch_size in (1, 32):
        groups = list(batches_by_length(sizes, batch_size))
        batches = [
            batcher([texts[row] for row in rows], [pairs[row] for row in rows] if pairs else None)
            for rows in groups
        ]
        layers = np.concatenate(
            [model.infer(**batch, criterion=criterion).exit_layers.numpy() for batch in batches]
        )
        seconds = time_in_turn(
            {
                "live": lambda batch: model.infer(**batch, criterion=criterion),
                "full": lambda batch: model.infer(**batch),
            },
            batches,
            repeats=arguments.repeats,
        )
        ideal = model.num_exits / layers.mean()
        found = speedup(seconds["full"], seconds["live"])
        print(
            f"batch {batch_size:2d}: mean exit layer {layers.mean():.2f} of {model.num_exits}, "
            f"ideal {ideal:.2f}x, measured {found.median:.2f}x "
            f"[{found.low:.2f}, {found.high:.2f}], share of the ideal {found.median / ideal:.2f}"
        )


if __name__ == "__main__":
    main()
