"""Options of ``eexit calibrate`` that are checked before anything is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from eexit_cli.attacks import ATTACKS
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.common import DecoderExitConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.option import flag
from eexit_cli.pipelines.resume import resumed
from eexit_cli.store.results import ResultStore, Run


def check_combination(config: CalibrateConfig) -> None:
    """Options that contradict each other, or say nothing together.

    Raises:
        UsageError: what, and how to repair it.
    """
    if not 0 <= config.clean_share <= 1:
        raise UsageError(
            f"--clean-share {config.clean_share} is outside [0, 1]", hint="Give a share, say 0.5"
        )
    if config.test_share is not None:
        if not 0 < config.test_share < 1:
            raise UsageError(
                f"--test-share {config.test_share} is outside (0, 1)",
                hint="Give a share, say 0.5; --test-limit 0 goes without a test",
            )
        if config.test_limit is not None:
            raise UsageError(
                "--test-share and --test-limit exclude each other", hint="Give one of them"
            )
    if config.verify_on is not None and config.under_attack is not None:
        raise UsageError(
            "--verify-on and --under-attack exclude each other",
            hint="The first reads an attack run, the second makes one",
        )
    if config.under_attack is not None:
        ATTACKS.canonical(config.under_attack)
    if config.losses is None:
        if not config.exit_layers is config.num_layers is config.full_model is None:
            raise UsageError(
                "--exit-layers, --full-model and --num-layers go with --losses",
                hint="Add --losses FILE",
            )
        return
    needs_model = {
        "--verify-on": config.verify_on,
        "--under-attack": config.under_attack,
        "--compare-naive": config.compare_naive or None,
        "--thresholds": config.thresholds or None,
        "--confidence": config.confidence,
        "--criterion": config.criterion,
        "--metric": config.metric,
        "--label-names": config.label_names,
        **{
            flag(item.name): getattr(config, item.name)
            for item in dataclasses.fields(DecoderExitConfig)
        },
    }
    for option, value in needs_model.items():
        if value is not None:
            raise UsageError(
                f"{option} needs a model, and --losses brings losses alone",
                hint=f"Drop {option}, or drop --losses",
            )


def resumed_config(
    config: CalibrateConfig, run: Run, explicit: Collection[str] = ()
) -> CalibrateConfig:
    """The configuration of an interrupted run.

    Args:
        config: what was given beside ``resume``: nothing, or the same again.
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: an option says something else than the run's.
    """
    # Losses of somebody's own name no model and no consistency: see ``ExternalLosses.described``.
    noted = {
        name: value
        for name, value in run.config.items()
        if value is not None or name not in ("model", "consistency")
    }
    stored = resumed(
        config,
        noted,
        what="run",
        repair=f"go on with {run.id}, or start a new run without --resume",
        explicit=explicit,
        free=("resume", "results_dir"),
    )
    return dataclasses.replace(stored, results_dir=config.results_dir, resume=config.resume)


def void(described: Mapping[str, Any]) -> str:
    """Why nothing can be promised, whatever a test says; empty where something can.

    Args:
        described: what is calibrated, and on what; see ``Calibratable.described``.
    """
    rows = described.get("training_rows")
    if not isinstance(rows, Mapping) or not rows["included"]:
        return ""
    return (
        f"{rows['included']} of the {rows['of']} samples that it comes from trained the model "
        "(--include-training-rows)"
    )


def find_attack_run(config: CalibrateConfig) -> Run:
    """The run that ``verify_on`` names, checked before anything is computed.

    Raises:
        MissingArtifactError: there is no such run.
        UsageError: it is no attack run, or has no records.
    """
    assert config.verify_on is not None
    run = ResultStore(config.results_dir).open(config.verify_on, command="attack")
    if not run.records():
        raise UsageError(
            f"Attack run '{run.id}' has no records", hint="Choose another: eexit results list"
        )
    return run
