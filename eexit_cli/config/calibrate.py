"""Settings of ``eexit calibrate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig, TimingConfig, UnseenDataConfig
from eexit_cli.config.decoder import DecoderConfig, DecoderExitConfig
from eexit_cli.config.engine import EngineConfig
from eexit_cli.config.field import CALIBRATION, DATA, DECODERS, LOSSES, RUN, UNDER_ATTACK, like, opt
from eexit_cli.config.runtime import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(
    CommonConfig, UnseenDataConfig, DecoderExitConfig, RuntimeConfig, TimingConfig, EngineConfig
):
    """The exit threshold that saves most while the risk stays below delta.

    The risk is the mean loss on new samples; classification uses equality as its quality. Empty
    ``thresholds`` are the default grid.
    """

    model: str = like(CommonConfig, "model", default="calm")
    limit: int | None = like(
        DataConfig,
        "limit",
        help="Calibration samples, drawn by the seed. By default, and with 0: all of a "
        "calibration split; one half of a split or file that must be divided, the other half "
        "tests; all of --losses.",
    )
    test_limit: int | None = opt(
        None, "Test samples, disjoint from the calibration's; 0 goes without a test.", DATA, least=0
    )
    test_share: float | None = opt(
        None,
        "In place of --test-limit: the share of a file, split or --losses that tests.",
        DATA,
    )
    adaptive_threshold: bool | None = like(
        DecoderConfig,
        "adaptive_threshold",
        help="FREE's threshold that moves with the data cannot be calibrated: only --no-... can "
        "be given.",
        show_default=False,
    )
    delta: float = opt(0.1, "The tolerated risk, between 0 and 1.", CALIBRATION)
    epsilon: float = opt(
        0.05, "The tolerated probability that the risk is above delta all the same.", CALIBRATION
    )
    consistency: str = opt(
        "textual",
        "textual: answers as the full model; risk: no worse than the full model.",
        CALIBRATION,
        names="consistency",
    )
    metric: str | None = opt(
        None,
        "What makes a generated text good; by default rouge-l, for phonemes exact-match.",
        CALIBRATION,
        names="text metric",
        listed=True,
        families=DECODERS,
    )
    p_value: str = opt(
        "hoeffding-bentkus",
        "How one threshold is tested.",
        CALIBRATION,
        names="p-value",
        listed=True,
    )
    procedure: str = opt(
        "fixed-sequence",
        "How many thresholds are tested together.",
        CALIBRATION,
        names="testing procedure",
        listed=True,
    )
    starts: int | None = opt(
        None, "Starting points of fixed-sequence-starts.", CALIBRATION, least=1
    )
    criterion: str | None = opt(
        None,
        "What is calibrated; by default the model's own criterion.",
        CALIBRATION,
        names="calibrated criterion",
        listed=True,
    )
    confidence: str | tuple[str, ...] | None = opt(
        None,
        "Calibrate a threshold on this measure, or on each of several; by default the model's own.",
        CALIBRATION,
        several=True,
        names="any confidence measure",
        excludes=("patience", "voting", "static_layer"),
    )
    thresholds: tuple[float, ...] = opt(
        (),
        "From cautious to eager, the full model first.",
        CALIBRATION,
        parse="numbers",
        metavar="X,X,...",
    )
    curves: bool = opt(
        False,
        "Run every threshold, also past the first failure, and repeated random splits.",
        CALIBRATION,
    )
    deltas: tuple[float, ...] = opt(
        (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
        "The deltas of the curves.",
        CALIBRATION,
        parse="numbers",
        metavar="X,X,...",
        show_default=False,
    )
    repeats: int = opt(100, "Repeated splits behind the curves' bands.", CALIBRATION, least=0)
    compare_naive: bool = opt(
        False, "Compare with thresholds that merely keep 90 or 95 % of the quality.", CALIBRATION
    )
    strict: bool = opt(False, "End with exit code 4 if nothing can be certified.", CALIBRATION)
    store: bool = opt(
        True, "Keep the threshold with the model, for --threshold calibrated.", CALIBRATION
    )
    losses: Path | None = opt(
        None,
        "CSV, Parquet or NumPy in place of a model: a column per threshold, cautious to eager, "
        "losses in [0, 1].",
        LOSSES,
        metavar="FILE",
        excludes=("data_file", "data_dir"),
    )
    exit_layers: Path | None = opt(
        None,
        "The layers that go with the losses, in the same shape.",
        LOSSES,
        metavar="FILE",
        needs="losses",
    )
    full_model: str | None = opt(
        None,
        "The column that is the full model, or 'first': its losses are 0, and it is the answer "
        "where nothing else is certified.",
        LOSSES,
        metavar="COLUMN",
        needs="losses",
    )
    num_layers: float | None = opt(
        None,
        "Layers of the full model; by default the full model's, or the largest exit layer.",
        LOSSES,
        least=1,
        needs="losses",
    )
    verify_on: str | None = opt(
        None,
        "An attack run: does the promise survive its inputs?",
        UNDER_ATTACK,
        completes="runs",
        metavar="RUN",
        excludes=("under_attack",),
    )
    under_attack: str | None = opt(
        None,
        "Attack the calibrated threshold itself with this recipe.",
        UNDER_ATTACK,
        names="recipe",
    )
    attack_limit: int | None = opt(
        100, "Samples that are attacked.", UNDER_ATTACK, least=0, needs="under_attack"
    )
    clean_share: float = opt(
        0.5,
        "Clean samples in the mixture that is calibrated on beside it.",
        UNDER_ATTACK,
        least=0,
        most=1,
    )
    resume: str | None = opt(
        None, "Go on with an interrupted run.", RUN, completes="runs", metavar="RUN"
    )
