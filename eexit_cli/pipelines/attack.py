"""Slow a multi-exit classifier down, sample by sample, and measure what that costs."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.recipe import Budget, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.core.types import Examples, RunResult
from eexit_cli.data import load_examples
from eexit_cli.models.kernels import for_inference
from eexit_cli.pipelines.attack_report import attack_metrics, measure_latency
from eexit_cli.pipelines.calibrated import with_calibrated
from eexit_cli.pipelines.exiting import build_criterion, describe
from eexit_cli.pipelines.loading import LoadedModel, load_model
from eexit_cli.pipelines.tracing import check_fits, model_label_names, task_of
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.victim import EncoderVictim
    from eexit_cli.core.protocols import Progress


def list_recipes() -> list[dict[str, Any]]:
    """Name, description, source and needs of every recipe; quick, TextAttack is not imported."""
    recipes: list[Recipe] = [ATTACKS.load(name) for name in ATTACKS]
    return [
        {
            "name": recipe.name,
            "description": recipe.description,
            "source": recipe.source,
            "needs": list(recipe.needs),
        }
        for recipe in recipes
    ]


def run_attack(config: AttackConfig, *, progress: Progress | None = None) -> RunResult:
    """Attack a sample of a data set with one recipe.

    Each sample's record is written as it is finished, and depends on the seed and the sample
    alone: a killed run, resumed, ends with the records of an unbroken one.

    Args:
        config: see :class:`AttackConfig`. With ``resume`` the rest comes from that run.
        progress: where to show it; None is silent.

    Returns:
        The run: speed and quality before and after, one record per sample.

    Raises:
        UsageError: options, data or a model that cannot be attacked.
        MissingArtifactError: no such model, data or run.
    """
    progress = progress or SilentProgress()
    store = ResultStore(config.results_dir)
    if config.resume is None:
        return _attack(config, None, store, progress)
    with store.resume(config.resume, command="attack") as run:
        return _attack(_resumed(config, run), run, store, progress)


def _attack(
    config: AttackConfig, resumed: Run | None, store: ResultStore, progress: Progress
) -> RunResult:
    recipe: Recipe = ATTACKS.load(config.recipe)
    config = dataclasses.replace(config, recipe=ATTACKS.canonical(config.recipe))
    _check(config)
    seed_everything(config.seed)
    loaded = load_model(config, progress=progress)
    config = task_of(config, loaded)
    examples = load_examples(
        config, default_split="test", label_names=model_label_names(loaded), progress=progress
    )
    check_fits(examples.info, loaded)
    config = with_calibrated(config, loaded, task=examples.info.name, progress=progress)
    criterion = _criterion(config, loaded)
    _announce(examples, config, progress)
    victim, attack = _assemble(recipe, config, loaded, criterion)
    # A file names its own split, which --split does not take: a repeated run must be able to.
    split = config.split if config.data_file else examples.split
    settings = {**config.as_dict(), "split": split, "exit": describe(criterion)}
    settings.pop("resume")
    if resumed is not None:
        _check_unchanged(resumed, settings)
        return _finish(resumed, config, loaded, criterion, examples, victim, attack, progress)
    with store.create("attack", settings) as run:
        return _finish(run, config, loaded, criterion, examples, victim, attack, progress)


def _finish(
    run: Run,
    config: AttackConfig,
    loaded: LoadedModel,
    criterion: ExitCriterion,
    examples: Examples,
    victim: EncoderVictim,
    attack: textattack.Attack,
    progress: Progress,
) -> RunResult:
    started = time.perf_counter()
    records = _attack_samples(run, config, examples, victim, attack, progress)
    timings = {"attack_seconds": time.perf_counter() - started}
    metrics = attack_metrics(examples.info, records, loaded.num_layers)
    started = time.perf_counter()
    metrics |= measure_latency(records, loaded, criterion, progress)
    timings["latency_seconds"] = time.perf_counter() - started
    if skipped := int(metrics["skipped"]):
        progress.message(
            f"{skipped} of {len(records)} samples use all layers already and were not attacked"
        )
    document = run.finish(
        metrics=metrics, rows=[{"recipe": config.recipe, **metrics}], timings=timings
    )
    return RunResult(document, run.path)


def _check(config: AttackConfig) -> None:
    """Numbers that no attack can run with."""
    least = {"top_n": 1, "beam_width": 1, "per_size": 1}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise UsageError(
                f"--{name.replace('_', '-')} {getattr(config, name)} is outside its range",
                hint=f"Give a whole number, at least {bound}",
            )
    if config.query_budget is not None and config.query_budget < 1:
        raise UsageError(
            f"--query-budget {config.query_budget} leaves nothing to attack with",
            hint="Give at least 1; the input itself is the first query",
        )
    if not 0 <= config.lam <= 1:
        raise UsageError(
            f"--lam {config.lam} is outside [0, 1]", hint="The published setting is 0.8"
        )
    if not 0 < config.change_rate <= 1:
        raise UsageError(
            f"--change-rate {config.change_rate} is outside (0, 1]",
            hint="The published setting is 0.1: one word in ten, and three at least",
        )


def _criterion(config: AttackConfig, loaded: LoadedModel) -> ExitCriterion:
    if loaded.num_classes < 2:
        raise UsageError(
            f"Slowdown attacks need classes; '{loaded.ref.name}' has one output (regression)",
            hint="Choose a classification model: eexit models list",
        )
    criterion = build_criterion(
        config, loaded.exit_defaults, num_layers=loaded.num_layers, num_classes=loaded.num_classes
    )
    if criterion is None:
        raise UsageError(
            f"'{loaded.ref.name}' stores no exit setting, so every input uses all layers",
            hint="Give --threshold VALUE or --patience N",
        )
    return criterion


def _assemble(
    recipe: Recipe, config: AttackConfig, loaded: LoadedModel, criterion: ExitCriterion
) -> tuple[EncoderVictim, textattack.Attack]:
    from eexit_cli.attacks.textattack_env import prepare

    prepare()
    from eexit_cli.attacks.victim import DEFAULT_BATCH_SIZE, EncoderVictim

    budget = Budget(config.query_budget)
    loaded.model.requires_grad_(False)
    victim = EncoderVictim(
        loaded.model,
        loaded.batcher(),
        criterion,
        budget,
        scorer=for_inference(loaded.model),
        batch_size=config.batch_size or DEFAULT_BATCH_SIZE,
    )
    return victim, recipe.build(victim, budget, config)


def _announce(examples: Examples, config: AttackConfig, progress: Progress) -> None:
    if len(examples) < examples.total:
        progress.message(
            f"Attacking a sample: {len(examples)} of the {examples.total} texts of "
            f"{examples.info.name}'s {examples.split} split (--limit 0 takes all)"
        )


def _attack_samples(
    run: Run,
    config: AttackConfig,
    examples: Examples,
    victim: EncoderVictim,
    attack: textattack.Attack,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Attack what has no record yet; all records in the order of the samples."""
    done = {record["id"]: record for record in run.records()}
    waiting = [sample for sample in examples.dataset if str(sample["id"]) not in done]
    if done:
        progress.message(f"Going on with {run.id}: {len(done)} samples are done")
    try:
        with progress.task(f"Attack {config.recipe}", total=len(examples)) as ticker:
            if done:
                ticker.advance(len(examples) - len(waiting))
            for sample in waiting:
                record = attack_sample(sample, config, victim, attack)
                run.append(record)
                done[record["id"]] = record
                ticker.advance(
                    note=f"layer {record['exit_layer_before']} to {record['exit_layer_after']}, "
                    f"{record['queries']} queries"
                )
    except KeyboardInterrupt:
        # A path names the run wherever it lies.
        progress.message(
            f"Stopped after {len(done)} of {len(examples)} samples. Go on with: "
            f"eexit attack --resume {run.path}"
        )
        raise
    return [done[str(sample["id"])] for sample in examples.dataset]


def attack_sample(
    sample: dict[str, Any],
    config: AttackConfig,
    victim: EncoderVictim,
    attack: textattack.Attack,
) -> dict[str, Any]:
    """Attack one sample; its record.

    Args:
        sample: ``id``, ``text``, and where there are any ``text_pair`` and ``label``.
    """
    from textattack.attack_results import SkippedAttackResult
    from textattack.shared import AttackedText

    identifier, label = str(sample["id"]), sample.get("label")
    seed = derive_seed(config.seed, "attack", config.recipe, identifier)
    seed_everything(seed)
    victim.seed = seed
    columns = OrderedDict(text=sample["text"])
    if "text_pair" in sample:
        columns["text_pair"] = sample["text_pair"]
    original = AttackedText(columns)
    started = time.perf_counter()
    result = attack.attack(original, -1 if label is None else int(label))
    seconds = time.perf_counter() - started
    before = result.original_result.raw_output
    chosen = result.perturbed_result
    after, text = chosen.raw_output, chosen.attacked_text
    perturbed = text.tokenizer_input
    record = {
        "id": identifier,
        **columns,
        "label": label,
        "status": "skipped" if isinstance(result, SkippedAttackResult) else "attacked",
        "prediction_before": before.prediction,
        "prediction_after": after.prediction,
        "exit_layer_before": before.exit_layer,
        "exit_layer_after": after.exit_layer,
        "perturbed_text": perturbed if isinstance(perturbed, str) else perturbed[0],
        "changed_words": [
            {"position": index, "from": old, "to": new}
            for index, (old, new) in enumerate(zip(original.words, text.words, strict=True))
            if old != new
        ],
        "num_words": original.num_words,
        "queries": victim.budget.queries,
        "gradient_passes": victim.budget.gradient_passes,
        "seconds": seconds,
    }
    if not isinstance(perturbed, str):
        record["perturbed_text_pair"] = perturbed[1]
    return record


def _resumed(config: AttackConfig, run: Run) -> AttackConfig:
    """The configuration of the run to go on with; options given beside it must agree.

    Raises:
        UsageError: an option differs from the run's.
    """
    stored = {
        item.name: run.config[item.name]
        for item in dataclasses.fields(AttackConfig)
        if item.name in run.config
    }
    for name in _PATHS:
        if stored.get(name) is not None:
            stored[name] = Path(stored[name])
    stored["results_dir"] = config.results_dir
    original = AttackConfig(**stored)
    defaults = AttackConfig()
    for item in dataclasses.fields(AttackConfig):
        if item.name in ("resume", "results_dir"):
            continue
        given, before = getattr(config, item.name), getattr(original, item.name)
        if given not in (getattr(defaults, item.name), before):
            raise UsageError(
                f"--{item.name.replace('_', '-')} {given} differs from the run's {before}",
                hint=f"Leave it out to go on with {run.id}, or start a new run without --resume",
            )
    return dataclasses.replace(original, resume=run.id)


_PATHS = ("results_dir", "data_file", "data_dir")


def _check_unchanged(run: Run, settings: dict[str, Any]) -> None:
    """The model's own exit or the data may have changed under a resumed run."""
    for name in ("exit", "split", "task"):
        if run.config.get(name) != settings[name]:
            raise UsageError(
                f"Run {run.id} was started with {name} {run.config.get(name)}, "
                f"which is {settings[name]} now",
                hint="Start a new run without --resume",
            )
