"""DL2-CALM's sweep over deltas on a decoder: generated tokens, ours against generating anew.

python -m pytest -m bench tests/bench/bench_calibration_decoder.py -s

``EEXIT_BENCH_MODEL`` names another model than the bundled one.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from eexit_cli.calibration import TEXT_METRICS
from eexit_cli.calibration.engine import ask, calibrate
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.sources import Ledger
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import load_examples
from eexit_cli.families.decoders.decoding import decode_examples
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.opening import open_model
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.pipelines.calibrate.model import ModelCalibration, ModelSamples

pytestmark = pytest.mark.bench

SAMPLES = 100
EPSILON = 0.05
THRESHOLDS = tuple(step / 20 for step in range(20, 0, -1))
SEED = tuple(float(value) for value in np.clip(np.linspace(0, 1, 11), 0.001, 0.999))
"""0 to 1 by 0.1; the ends, at which there is nothing to ask, a hair inside."""


@pytest.fixture
def tokens(monkeypatch):
    """Tokens generated since the last look."""
    counted = [0]
    decode = MultiExitT5.decode

    def counting(self, **options):
        decoded = decode(self, **options)
        counted[0] += decoded.counts.tokens
        return decoded

    monkeypatch.setattr(MultiExitT5, "decode", counting)

    def look() -> int:
        found, counted[0] = counted[0], 0
        return found

    return look


@pytest.fixture
def config() -> CalibrateConfig:
    model = os.environ.get("EEXIT_BENCH_MODEL", "calm")
    return CalibrateConfig(
        model=model, task="pronunciation", confidence="softmax", limit=SAMPLES, test_limit=1
    )


def generated_anew(config: CalibrateConfig, deltas) -> list[float]:
    """DL2-CALM's loops: for each delta the full model, then each threshold up to the first failure.

    The threshold of 1 is the full model itself and is not tested, as in ours (DL2-CALM generates
    once more for it, which would only make this dearer).
    """
    loaded = load_decoder(config)
    examples = load_examples(config, default_split="calibration", generates=True)
    quality = TEXT_METRICS.load("rouge-l-tokens")
    p_value = P_VALUES.load("hoeffding-bentkus")
    answers = []
    for delta in deltas:
        full = decode_examples(loaded, examples, settings_from({}, loaded)).outputs
        accepted = THRESHOLDS[0]
        for threshold in THRESHOLDS[1:]:
            settings = settings_from({"confidence": "softmax", "threshold": threshold}, loaded)
            early = decode_examples(loaded, examples, settings).outputs
            losses = [1 - quality(one, other) for one, other in zip(early, full, strict=True)]
            if p_value.p_value(np.array(losses), delta) > EPSILON:
                break
            accepted = threshold
        answers.append(accepted)
    return answers


def ours(config: CalibrateConfig, deltas) -> list[float]:
    samples = ModelSamples(open_model(config), config, SilentProgress())
    ledger = Ledger(ModelCalibration(samples, samples.knobs[0]).calibration)
    answers = []
    for delta in deltas:
        question = ask(
            delta=delta, epsilon=EPSILON, p_value="hoeffding-bentkus", procedure="fixed-sequence"
        )
        answers.append(float(THRESHOLDS[calibrate(ledger, question).chosen or 0]))
    return answers


@pytest.mark.parametrize(
    "deltas", [SEED, CalibrateConfig().deltas], ids=["0 to 1 by 0.1", "our default deltas"]
)
def test_a_sweep_generates_each_threshold_once(config, tokens, deltas):
    started = time.perf_counter()
    found = ours(config, deltas)
    seconds, spent = time.perf_counter() - started, tokens()
    started = time.perf_counter()
    expected = generated_anew(config, deltas)
    naive_seconds, naive = time.perf_counter() - started, tokens()
    print(
        f"\n{config.model}, {SAMPLES} samples, {len(deltas)} deltas, {len(THRESHOLDS)} thresholds"
    )
    print(f"generated anew {naive:8,} tokens  {naive_seconds:6.1f} s")
    print(f"ours           {spent:8,} tokens  {seconds:6.1f} s")
    print(f"{naive / spent:.1f} times fewer tokens; accepted thresholds {found}")
    assert found == expected
    if deltas == SEED:
        assert naive >= 8 * spent
