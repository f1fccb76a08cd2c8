"""Does a calibrated threshold keep its promise on adversarial inputs?

A guarantee holds for samples like the calibration samples. An attacker changes the distribution,
so nothing is promised then; this measures what remains, and what a calibration on a mixture of
clean and adversarial samples would choose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.calibration.engine import Answer, Question, calibrate
from eexit_cli.calibration.report import bound_after, column_figures, guarantee, needs
from eexit_cli.calibration.sources import Column, Ledger
from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.digits import at_least, exact
from eexit_cli.core.errors import UsageError
from eexit_cli.core.labels import run_by
from eexit_cli.core.option import flag
from eexit_cli.core.seed import stream
from eexit_cli.exits import CRITERIA
from eexit_cli.metrics.depth import gain_removed
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.calibrate.model import ModelCalibration

OF_EXITS = (
    *dict.fromkeys(
        name
        for _, criterion in CRITERIA.working()
        if criterion.can_be_calibrated()
        for name in criterion.option_names()
    ),
    "min_layer",
    "top_k_propagation",
    "decay",
    "temperature",
    "shallow_layer",
)
"""Options that together are the calibrated exit."""


def attack_part(
    config: CalibrateConfig,
    subject: ModelCalibration,
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
    if attacked is None:
        if not answer.accepted:
            report["attack"] = {"verdict": "Nothing to attack: the answer is the full model."}
            return {}
        attacked = attack_calibrated(config, subject, answer, progress)
    checked = verify(attacked, subject)
    num_layers = subject.subject.num_layers
    assert isinstance(num_layers, int), "only losses from elsewhere have a depth that is not whole"
    figures: dict[str, Any] = dict(attack_metrics(checked, answer, num_layers))
    mixed, ledger = mixture(
        checked, answer.question, clean_share=config.clean_share, seed=config.seed
    )
    against = _made_against(attacked, mixed, subject, config)
    said = [guarantee(mixed, ledger, subject.subject), *against]
    report["attack"] = {
        "run": attacked.id,
        "left_out": checked.left_out,
        "verdict": verdict(figures, answer.question),
        "mixture": " ".join(said),
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


def _made_against(
    run: Run, mixed: Answer, subject: ModelCalibration, config: CalibrateConfig
) -> list[str]:
    """What the mixture's inputs were made against, where it is not what was calibrated."""
    assert mixed.chosen is not None
    victim, calibrated = (
        [settings["model"], *run_by(settings).values()]
        for settings in (run.config, {**config.as_dict(), **subject.described})
    )
    if victim != calibrated:
        return [
            f"The attack was made against {', '.join(map(str, victim))}, not against this model as "
            "it is run here: inputs made against it may do more, and nothing is said of them."
        ]
    attacked = dict(run.config.get("exit") or {})
    own = subject.settings(mixed.chosen) or {}
    kinds = ("criterion", "confidence")
    same = all(attacked.get(name) == own.get(name) for name in kinds)
    knob = CRITERIA.load(attacked["criterion"]).option if same and attacked else "threshold"
    value = attacked.get(knob)
    if same and value == own.get(knob):
        return []
    exit_ = "another exit"
    if same and isinstance(value, (int, float)):
        exit_ = f"{subject.subject.knob} {exact(value)}"
    return [
        f"The attack was made against {exit_}, not against this threshold: inputs made against "
        "this one may do more, and nothing is said of them."
    ]


def check_recipe(config: CalibrateConfig) -> None:
    """Can the recipe of ``under_attack`` attack the model here? Looked up before any work.

    Raises:
        UsageError: it attacks another family of models.
        MissingArtifactError: what it needs is not on this machine.
    """
    from eexit_cli.attacks.textattack_env import prepare
    from eexit_cli.families.opening import family_of
    from eexit_cli.pipelines.attack.plan import plan_recipes

    assert config.under_attack is not None
    kind = family_of(config.model).kind
    plan_recipes(AttackConfig(model=config.model, recipe=config.under_attack), kind)
    prepare()


def attack_calibrated(
    config: CalibrateConfig,
    subject: ModelCalibration,
    answer: Answer,
    progress: Progress,
) -> Run:
    """Attack the model at its calibrated threshold, as an attacker who knows it would.

    Raises:
        UsageError: the attack cannot be told one of the calibrated exit's settings.
    """
    from eexit_cli.pipelines.attack.run import run_attack

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
    names = AttackConfig.option_names()
    options |= {name: None for name in OF_EXITS if name in names}
    settings = subject.settings(answer.chosen) or {}
    for name in OF_EXITS:
        if settings.get(name) is None:
            continue
        if name not in names:
            raise UsageError(
                f"An attack has no {flag(name)}, which this calibration uses",
                hint="Calibrate without it, or attack first and give the run to --verify-on",
            )
        options[name] = settings[name]
    if settings.get("shallow_layer") is not None:
        # A model's own threshold may adapt; the calibrated one stands.
        options["adaptive_threshold"] = False
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
        before, after: losses of the texts as they were and as the attacker left them.
        ids: the samples that they are of.
        left_out: samples of the run that are calibration samples, and so say nothing.
        skipped: of these samples, those that the attack skipped and so left as they were.
    """

    run: Run
    before: Ledger
    after: Ledger
    ids: Sequence[str]
    left_out: int
    skipped: int

    @property
    def samples(self) -> int:
        return len(self.ids)


def verify(run: Run, subject: ModelCalibration) -> Verification:
    """Run the attack's texts through the calibrated model.

    Raises:
        UsageError: the run has no usable sample, is one of another kind of model, or has samples
            without labels or references where risk consistency needs them.
    """
    seen = set(subject.inputs("calibration"))
    records = run.records()
    if not all("text" in record and "perturbed_text" in record for record in records):
        raise UsageError(
            f"Attack run '{run.id}' has records without texts, so there is nothing to verify on",
            hint="Choose another: eexit results list",
        )
    kept = [r for r in records if (r["text"], r.get("text_pair")) not in seen]
    if not kept:
        raise UsageError(
            f"Every sample of attack run '{run.id}' is a calibration sample",
            hint="Attack other samples: eexit attack --split test",
        )
    before, after = (
        Ledger(subject.of_records(kept, key, f"Texts {when} the attack"))
        for key, when in (("text", "before"), ("perturbed_text", "after"))
    )
    ids = [str(record["id"]) for record in kept]
    skipped = sum(record.get("status") == "skipped" for record in kept)
    return Verification(run, before, after, ids, len(records) - len(kept), skipped)


def attack_metrics(
    checked: Verification, answer: Answer, num_layers: int
) -> dict[str, float | int | bool | None]:
    """Realised risk and depth at the accepted threshold, before and after.

    Returns:
        ``mean_loss_before`` and ``_after``, where the p-value gives a guarantee with
        ``mean_loss_low_*`` and ``mean_loss_high_*``, bounds that each hold with probability
        1 - epsilon for samples like these; ``mean_exit_layer_*``, ``speedup_layers_*``;
        ``gain_removed``; ``within_delta_before`` and ``_after``: the realised mean is at most
        delta; ``attack_samples``, and of these ``attack_skipped``, which stand as they were.
    """
    assert answer.chosen is not None
    figures: dict[str, float | int | bool | None] = {
        "attack_samples": checked.samples,
        "attack_skipped": checked.skipped,
    }
    question = answer.question
    for when, ledger in (("before", checked.before), ("after", checked.after)):
        column = ledger.get(answer.chosen)
        depth = column.mean_exit_layer
        assert depth is not None
        mean = float(column.losses.mean())
        # No calibration sample is among these: they took no part in the choice.
        high, rest = (bound_after(answer, losses) for losses in (column.losses, 1 - column.losses))
        if high is not None and rest is not None:
            figures |= {
                f"mean_loss_low_{when}": max(0.0, 1 - rest) if answer.accepted else 0.0,
                f"mean_loss_high_{when}": high,
            }
        figures |= {
            f"mean_loss_{when}": mean,
            f"within_delta_{when}": mean <= question.delta,
            f"mean_exit_layer_{when}": depth,
            f"speedup_layers_{when}": num_layers / depth,
        }
    before, after = figures["mean_exit_layer_before"], figures["mean_exit_layer_after"]
    assert before is not None
    assert after is not None
    figures["gain_removed"] = gain_removed(before, after, num_layers)
    return figures


def verdict(figures: dict[str, Any], question: Question) -> str:
    """Does the promise survive, and do the savings? A slowdown attack may take the savings alone:
    whoever is driven to the last layer answers as the full model does. Where none was made, none
    is broken."""
    delta = question.delta
    mean, low, high = (figures.get(f"mean_loss{part}_after") for part in ("", "_low", "_high"))
    assert mean is not None
    n, skipped = figures["attack_samples"], figures["attack_skipped"]
    inputs = f"{n} adversarial inputs"
    if skipped:
        inputs = f"{n} inputs ({n - skipped} attacked, {skipped} skipped and unchanged)"
    what = f"On {inputs} the mean loss is {at_least(mean)}, delta is {exact(delta)}"
    if not question.guarantees:
        who = "training rows" if question.void else f"'{question.p_value.name}'"
        said = (
            f"{what}: {'within' if mean <= delta else 'above'} delta on these samples; "
            f"{who} gave no guarantee that an attack could break."
        )
    elif low is not None and low > delta:
        said = f"{what}: the promise does not survive this attack."
    elif high is not None and high <= delta:
        said = f"{what}: the promise survives this attack."
    else:
        leaning = "kept on these samples" if mean <= delta else "broken on these samples"
        said = f"{what}: {leaning}, but {n} are too few to say so of others like them."
    gone = figures["gain_removed"]
    if gone is None:
        return said
    return f"{said} {100 * gone:.3g} % of the saved layers are gone."


def mixture(
    checked: Verification, question: Question, *, clean_share: float, seed: int
) -> tuple[Answer, Ledger]:
    """Calibrate on the attack's samples, each left clean with probability ``clean_share``.

    Whether a sample is clean depends on the seed and its id alone.
    """
    clean = np.array([stream(seed, "mixture", name).random() < clean_share for name in checked.ids])
    ledger = Ledger(_Mixed(checked.before, checked.after, clean))
    return calibrate(ledger, question), ledger


@dataclasses.dataclass(frozen=True)
class _Mixed:
    """Clean losses for some samples, those after the attack for the others.

    A threshold is run when it is asked for, on both: a decoder's fixed sequence stops early here
    too.
    """

    before: Ledger
    after: Ledger
    clean: NDArray[np.bool_]
    full_model: bool = True

    @property
    def thresholds(self) -> Sequence[float | str]:
        return self.before.source.thresholds

    @property
    def samples(self) -> int:
        return len(self.clean)

    @property
    def cheap(self) -> bool:
        return self.before.source.cheap

    def column(self, index: int) -> Column:
        before, after = self.before.get(index), self.after.get(index)
        return Column(
            losses=np.where(self.clean, before.losses, after.losses),
            exit_layers=self._chosen(before.exit_layers, after.exit_layers),
            tokens=self._chosen(before.tokens, after.tokens),
        )

    def _chosen(
        self, before: NDArray[np.float64] | None, after: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        if before is None or after is None:
            return None
        return np.where(self.clean, before, after)
