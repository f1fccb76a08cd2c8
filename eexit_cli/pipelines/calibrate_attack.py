"""Does a calibrated threshold keep its promise on adversarial inputs?

A guarantee holds for samples like the calibration samples. An attacker changes the distribution,
so nothing is promised then; this measures what remains, and what a calibration on a mixture of
clean and adversarial samples would choose.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from eexit_cli.calibration.bounds import upper_bound
from eexit_cli.calibration.engine import Answer, Question, calibrate
from eexit_cli.calibration.report import column_figures, guarantee, needs
from eexit_cli.calibration.sources import Ledger, MatrixSource
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import stream
from eexit_cli.core.types import Examples
from eexit_cli.metrics.depth import gain_removed
from eexit_cli.pipelines.calibrate_encoder import EncoderCalibration, TraceSource
from eexit_cli.pipelines.calibrate_subjects import Calibratable
from eexit_cli.pipelines.tracing import record_trace
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

Records = list[dict[str, Any]]


def attack_part(
    config: CalibrateConfig,
    subject: Calibratable,
    answer: Answer,
    attacked: Run | None,
    report: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Verify the accepted threshold on adversarial inputs; adds to the report.

    Args:
        attacked: the run of ``verify_on``; None makes one with ``under_attack``.

    Returns:
        Metrics before and after the attack, and those of a calibration on a mixture.
    """
    if not isinstance(subject, EncoderCalibration):
        raise UsageError(
            "Only encoder classifiers can be attacked", hint="Drop --verify-on or --under-attack"
        )
    if attacked is None:
        if not answer.certified:
            report["attack"] = {"verdict": "Nothing to attack: the answer is the full model."}
            return {}
        attacked = attack_calibrated(config, subject, answer, progress)
    checked = verify(attacked, subject, config, progress)
    num_layers = subject.subject.num_layers
    assert num_layers is not None
    figures: dict[str, Any] = dict(attack_metrics(checked, answer, num_layers))
    mixed, ledger = mixture(
        checked, answer.question, clean_share=config.clean_share, seed=config.seed
    )
    report["attack"] = {
        "run": attacked.id,
        "left_out": checked.left_out,
        "verdict": verdict(figures, answer.question.delta),
        "mixture": guarantee(mixed, ledger, subject.subject),
        "mixture_needs": needs(mixed, ledger),
    }
    assert mixed.chosen is not None
    return figures | {
        "mixture_threshold": float(ledger.source.thresholds[mixed.chosen]),
        "mixture_certified": mixed.certified,
        "mixture_samples": mixed.samples,
        "mixture_clean_share": config.clean_share,
        **{
            f"mixture_{name}": value
            for name, value in column_figures(ledger, mixed.chosen, subject.subject).items()
        },
    }


def attack_calibrated(
    config: CalibrateConfig,
    subject: EncoderCalibration,
    answer: Answer,
    progress: Progress,
) -> Run:
    """Attack the model at its calibrated threshold, as an attacker who knows it would."""
    from eexit_cli.pipelines.attack import run_attack

    assert answer.chosen is not None
    assert config.under_attack is not None
    options: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(CalibrateConfig)
        if field.name in AttackConfig.option_names()
    }
    described = subject.described
    options["task"] = config.task if config.data_file is not None else described["task"]
    if config.split is None and config.data_file is None:
        # Not the calibration samples; what still is one of them is left out afterwards.
        options["split"] = described["test_split"]
    options["confidence"] = None
    settings = subject.settings(answer.chosen)
    for name in ("confidence", "threshold", "patience"):
        if name in settings:
            options[name] = settings[name]
    attack = AttackConfig(
        **{**options, "recipe": config.under_attack, "limit": config.attack_limit}
    )
    result = run_attack(attack, progress=progress)
    return ResultStore(config.results_dir).open(result.path.name, command="attack")


@dataclasses.dataclass(frozen=True)
class Verification:
    """Losses of an attack's samples before and after it, under every threshold.

    Attributes:
        run: the attack run.
        before, after: the texts as they were and as the attacker left them.
        left_out: samples of the run that are calibration samples, and so say nothing.
    """

    run: Run
    before: TraceSource
    after: TraceSource
    left_out: int


def verify(
    run: Run, subject: EncoderCalibration, config: CalibrateConfig, progress: Progress
) -> Verification:
    """Trace the attack's texts through the calibrated model.

    Raises:
        UsageError: the run has no usable sample, or samples without labels where risk
            consistency needs them.
    """
    seen = set(subject.texts("calibration"))
    records = run.records()
    kept = [record for record in records if record["text"] not in seen]
    if not kept:
        raise UsageError(
            f"Every sample of attack run '{run.id}' is a calibration sample",
            hint="Attack other samples: eexit attack --split test",
        )
    sources = []
    for key, title in (("text", "before"), ("perturbed_text", "after")):
        examples = _examples(kept, key, subject)
        trace = record_trace(
            subject.loaded,
            examples,
            batch_size=config.batch_size,
            progress=progress,
            title=f"Texts {title} the attack",
        )
        sources.append(TraceSource(trace, subject.knob, subject.consistency))
    return Verification(run, sources[0], sources[1], len(records) - len(kept))


def _examples(records: Records, key: str, subject: EncoderCalibration) -> Examples:
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "id": [str(record["id"]) for record in records],
        "text": [record[key] for record in records],
    }
    if any(record.get("text_pair") is not None for record in records):
        columns["text_pair"] = [record.get("text_pair") or "" for record in records]
    labels = [record.get("label") for record in records]
    if all(isinstance(label, int) for label in labels):
        columns["label"] = labels
    return Examples(
        info=subject.info, split=key, dataset=Dataset.from_dict(columns), total=len(records)
    )


def attack_metrics(
    checked: Verification, answer: Answer, num_layers: int
) -> dict[str, float | int | bool | None]:
    """Realised risk and depth at the accepted threshold, before and after.

    Returns:
        ``mean_loss_before`` and ``_after`` with ``mean_loss_low_*`` and ``mean_loss_high_*``,
        bounds that each hold with probability 1 - epsilon for samples like these;
        ``mean_exit_layer_*``, ``speedup_layers_*``; ``gain_removed``;
        ``promise_kept_before`` and ``_after``: the realised mean is at most delta;
        ``attack_samples``.
    """
    assert answer.chosen is not None
    figures: dict[str, float | int | bool | None] = {"attack_samples": checked.before.samples}
    question = answer.question
    for when, source in (("before", checked.before), ("after", checked.after)):
        column = Ledger(source).get(answer.chosen)
        assert column.exit_layers is not None
        mean = float(column.losses.mean())
        low = 1 - upper_bound(question.p_value, 1 - column.losses, question.epsilon)
        figures |= {
            f"mean_loss_{when}": mean,
            f"mean_loss_low_{when}": max(0.0, low),
            f"mean_loss_high_{when}": upper_bound(
                question.p_value, column.losses, question.epsilon
            ),
            f"promise_kept_{when}": mean <= question.delta,
            f"mean_exit_layer_{when}": float(column.exit_layers.mean()),
            f"speedup_layers_{when}": num_layers / float(column.exit_layers.mean()),
        }
    before, after = figures["mean_exit_layer_before"], figures["mean_exit_layer_after"]
    assert before is not None
    assert after is not None
    figures["gain_removed"] = gain_removed(before, after, num_layers)
    return figures


def verdict(figures: dict[str, Any], delta: float) -> str:
    """One sentence: does the promise survive?"""
    mean, low, high = (figures[f"mean_loss{part}_after"] for part in ("", "_low", "_high"))
    n = figures["attack_samples"]
    what = f"On {n} adversarial inputs the mean loss is {mean:.4g}, delta is {delta:g}"
    if low > delta:
        return f"{what}: the promise does not survive this attack."
    if high <= delta:
        return f"{what}: the promise survives this attack."
    leaning = "kept on these samples" if mean <= delta else "broken on these samples"
    return f"{what}: {leaning}, but {n} are too few to say so of others like them."


def mixture(
    checked: Verification, question: Question, *, clean_share: float, seed: int
) -> tuple[Answer, Ledger]:
    """Calibrate on the attack's samples, each left clean with probability ``clean_share``.

    Whether a sample is clean depends on the seed and its id alone.
    """
    ids = checked.before.trace.ids
    clean = np.array([stream(seed, "mixture", name).random() < clean_share for name in ids])
    before, after = Ledger(checked.before).matrix(), Ledger(checked.after).matrix()
    assert before.exit_layers is not None
    assert after.exit_layers is not None
    mixed = MatrixSource(
        thresholds=before.thresholds,
        losses=np.where(clean[:, None], before.losses, after.losses),
        exit_layers=np.where(clean[:, None], before.exit_layers, after.exit_layers),
        full_model=True,
    )
    ledger = Ledger(mixed)
    return calibrate(ledger, question), ledger
