"""What the decoder attack takes back of the bundled model's saved layers, beside random changes.

    python -m pytest -m bench tests/bench/bench_attack_decoder.py -s

or, for other numbers of samples and budgets::

    eexit attack --model calm --recipe all --limit 200 --query-budget 1000
"""

from __future__ import annotations

from pathlib import Path

import pytest

from eexit_cli.config import AttackConfig
from eexit_cli.core.errors import EexitError
from eexit_cli.pipelines.attack.run import run_attack
from eexit_cli.store.models import resolve

SAMPLES = 50
BUDGETS = (100, 1000)


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("budget", BUDGETS)
def test_gain_removed_from_calm(budget: int, tmp_path: Path) -> None:
    try:
        resolve("calm")
    except EexitError as error:
        pytest.skip(str(error))
    config = AttackConfig(
        model="calm", recipe="all", limit=SAMPLES, query_budget=budget, results_dir=tmp_path
    )
    document = run_attack(config).document
    print(f"\ncalm at its default exit, {SAMPLES} test words, {budget} queries a word")
    for row in document["rows"]:
        print(
            f"  {row['recipe']:<12} gain removed {row['gain_removed']:.3f} "
            f"[{row['gain_removed_low']:.3f}, {row['gain_removed_high']:.3f}]  "
            f"layer {row['mean_exit_layer_before']:.2f} to {row['mean_exit_layer_after']:.2f}  "
            f"letters changed {row['change_rate_mean']:.3f}, at most {row['change_rate_max']:.3f}  "
            f"{row['seconds_mean']:.2f} s a word"
        )
    for pair in document["report"]["comparisons"]:
        print(
            f"  paired: {pair['difference_layers']:+.3f} layers a word, p = {pair['p_value']:.4f}"
        )
    for row in document["rows"]:
        assert row["samples"] == SAMPLES
        assert row["change_rate_max"] <= 1 / 2  # a word of two letters may lose one
