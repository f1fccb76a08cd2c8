"""Attack runs on the same samples, side by side: gain removed, and paired tests against the first.

    eexit attack --model deebert --recipe same-token,random --limit 200 --query-budget 1000
    eexit attack --model deebert --recipe same-token --compat upstream --limit 200 \\
        --query-budget 1000
    python tests/bench/compare_attacks.py results/RUN results/UPSTREAM-RUN

A run's own table compares the recipes within it; this also compares runs whose options differ. A
recipe that several runs have counts as in the first of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from eexit_cli.metrics.statistics import bootstrap_interval, holm, sign_flip_test


def share(removed: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Of the saved layers, taken back. Shape: [..., samples] -> [...]."""
    return removed.sum(axis=-1) / room.sum(axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of attack runs")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    columns: dict[str, dict[str, tuple[int, int]]] = {}
    for run in options.runs:
        settings = json.loads((run / "config.json").read_text())
        compat = settings["config"].get("compat")
        for line in (run / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["exit_layer_before"] is None:
                continue
            name = record["recipe"] + (f" --compat {compat}" if compat else "")
            layers = record["exit_layer_before"], record["exit_layer_after"]
            columns.setdefault(name, {}).setdefault(record["id"], layers)
    ids = sorted(set.intersection(*map(set, columns.values())))
    first = next(iter(columns))
    before = np.array([columns[first][one][0] for one in ids])
    depth = max(layer for column in columns.values() for pair in column.values() for layer in pair)
    after = {name: np.array([column[one][1] for one in ids]) for name, column in columns.items()}
    for name, column in columns.items():
        if [column[one][0] for one in ids] != before.tolist():
            raise SystemExit(f"{name} started from other exit layers: other model or threshold?")
    others = [name for name in columns if name != first]
    tests = [sign_flip_test(after[first] - after[name], seed=options.seed) for name in others]
    corrected = dict(zip(others, holm(tests), strict=True))
    print(f"{len(ids)} samples in all runs, mean exit layer {before.mean():.2f} of {depth} before")
    for name, layers in after.items():
        removed, room = layers - before, depth - before
        interval = bootstrap_interval(share, removed, room, seed=options.seed)
        low, high = interval or (float("nan"), float("nan"))
        line = (
            f"{name:32s} gain removed {share(removed, room):6.1%} "
            f"[{low:.1%}, {high:.1%}], exit layer {layers.mean():.2f}"
        )
        if name in corrected:
            better, worse = (after[first] > layers).sum(), (after[first] < layers).sum()
            line += (
                f"; {first} later on {better}, earlier on {worse}, p = {corrected[name]:.2g} (Holm)"
            )
        print(line)


if __name__ == "__main__":
    main()
