"""A learned prefix: the race of few candidates against one that tries all on every search text.

    python tests/bench/bench_universal.py --model deebert --limit 400

Both learn on the same texts with the same settings, in turn, with one torch thread, and are judged
on the same other inputs. Printed are seconds, queries and gradients of the learning, the gain that
the prefix removes, and the ratio of the seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from eexit_cli.attacks.textattack_env import prepare
from eexit_cli.config import AttackConfig
from eexit_cli.pipelines.attack.run import run_attack

prepare()
from eexit_cli.attacks import prefix  # noqa: E402 - after TextAttack is made ready

EVERY = {
    "TRIED": 1,
    "PROVEN": 0,
    "RACE": (),
    "FINALISTS": 10**6,
    "GRADIENT_TEXTS": 10**6,
    "PATIENCE": 1,
}
"""Each candidate on the whole search set, as Wallace et al. do it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deebert")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = {}
    for name, changes in (("race", {}), ("every", EVERY)):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.multiple(prefix, LOWER=prefix.LOWER, **changes),
        ):
            config = AttackConfig(
                model=options.model,
                recipe="universal",
                limit=options.limit,
                per_size=options.rounds,
                latency_samples=0,
                results_dir=Path(folder),
            )
            run = run_attack(config)
            text = (run.path / "learned.json").read_text(encoding="utf-8")
        learned: dict[str, Any] = json.loads(text)["learned"]["universal"]
        seconds[name] = learned["seconds"]
        print(
            f"{name:<6} {learned['seconds']:7.1f} s {learned['queries']:6,} queries "
            f"{learned['gradient_passes']:5,} gradients  '{learned['prefix']}'  gain removed "
            f"{100 * run.metrics['gain_removed']:.1f} %"
        )
    print(f"every / race: {seconds['every'] / seconds['race']:.1f}x")


if __name__ == "__main__":
    main()
