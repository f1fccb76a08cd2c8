"""Settings of ``eexit calibrate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DecoderExitConfig, TimingConfig, UnseenDataConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(CommonConfig, UnseenDataConfig, DecoderExitConfig, TimingConfig):
    """The exit threshold that saves most while the risk stays below delta.

    Attributes:
        delta: the tolerated risk: mean loss on new samples, in (0, 1).
        epsilon: the tolerated probability that the risk is above delta all the same.
        consistency: textual (as the full model) or risk (no worse than the full model).
        metric: quality of a generated text, in [0, 1]; None is ROUGE-L, over words or, where the
            task's outputs are phonemes, over those. Classification uses equality.
        p_value: a name of the p-value catalog.
        procedure: a name of the catalog of testing procedures.
        starts: starting points of ``fixed-sequence-starts``; None is 5.
        confidence: calibrate a threshold on this measure, or on each of several; None is the
            model's own criterion.
        criterion: threshold or patience; None is the model's own, or what ``confidence`` says.
        thresholds: from cautious to eager, the full model first; empty is the default grid.
        limit: calibration samples; None or 0 is all of a calibration split, half of what must be
            divided, and all that ``losses`` has.
        test_limit: test samples, disjoint from those; None is the rest, and of ``losses`` none
            unless ``limit`` leaves some; 0 is none.
        test_share: the same as a share of what is divided.
        losses: a table of losses in place of a model.
        exit_layers: a table of the layers that go with ``losses``.
        full_model: the column of ``losses`` that is the full model, or ``first``: the answer where
            no other is certified. None: no column is.
        num_layers: L, for ``losses``; None is the full model's, or the largest exit layer given.
        curves: run every threshold, also past the first failure, and draw repeated splits.
        deltas: the deltas of the curves.
        repeats: repeated random splits behind the bands of the curves.
        compare_naive: compare with thresholds found without calibration.
        strict: no certified threshold is an error (exit code 4).
        store: keep the threshold with the model, for ``--threshold calibrated``.
        verify_on: an attack run: does the promise survive its adversarial inputs?
        under_attack: a recipe that attacks the calibrated threshold itself.
        attack_limit: samples attacked with ``under_attack``.
        clean_share: clean samples in the mixture that is calibrated on beside it.
        resume: a run to go on with: thresholds that it has run are not run again.
    """

    model: str = "calm"
    delta: float = 0.1
    epsilon: float = 0.05
    consistency: str = "textual"
    metric: str | None = None
    p_value: str = "hoeffding-bentkus"
    procedure: str = "fixed-sequence"
    starts: int | None = None
    confidence: str | tuple[str, ...] | None = None
    criterion: str | None = None
    thresholds: tuple[float, ...] = ()
    test_limit: int | None = None
    test_share: float | None = None
    losses: Path | None = None
    exit_layers: Path | None = None
    full_model: str | None = None
    num_layers: float | None = None
    curves: bool = False
    deltas: tuple[float, ...] = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    repeats: int = 100
    compare_naive: bool = False
    strict: bool = False
    store: bool = True
    verify_on: str | None = None
    under_attack: str | None = None
    attack_limit: int | None = 100
    clean_share: float = 0.5
    resume: str | None = None
