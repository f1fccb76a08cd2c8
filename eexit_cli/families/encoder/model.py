"""DeeBERT, PABEE and their like as the use cases know a model, and how one is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from eexit_cli.attacks.closeness import closeness_for
from eexit_cli.config.field import ENCODER
from eexit_cli.config.runtime import TORCH
from eexit_cli.core.answers import CLASSES, Answers, Exit, Knob
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Evaluation
from eexit_cli.core.protocols import Crew, Progress
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Examples, TaskInfo, Trace
from eexit_cli.core.victim import Attacked
from eexit_cli.data import load_examples
from eexit_cli.exits import CRITERIA
from eexit_cli.families.batches import to_device
from eexit_cli.families.class_names import name_classes, trained_on_pairs
from eexit_cli.families.data import own_samples
from eexit_cli.families.encoder.calibration import knobs
from eexit_cli.families.encoder.evaluation import EncoderEvaluation
from eexit_cli.families.encoder.exits import (
    build_criterion,
    classifier_measure,
    criterion_from,
    describe,
    settings_along,
    sweep_settings,
)
from eexit_cli.families.encoder.latency import measure_speed
from eexit_cli.families.encoder.loaded import LoadedModel
from eexit_cli.families.encoder.predictions import opinions
from eexit_cli.families.encoder.runtimes import (
    asked_runtimes,
    check_runtimes,
    load_exported,
    rounding,
    runner,
)
from eexit_cli.families.encoder.victim import AttackedEncoder, criterion_by_input, has_gradients
from eexit_cli.families.exported import exported
from eexit_cli.families.loading import (
    LoadingConfig,
    check_vocabulary,
    folder_of,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    tell_unwrapped,
)
from eexit_cli.families.seen_rows import leaving_out
from eexit_cli.models.encoder.conversion import load_classifier
from eexit_cli.store.models import config_of, is_causal, is_seq2seq, resolve


class EncoderModel(LoadedModel):
    """See :class:`eexit_cli.core.family.Model`."""

    family: ClassVar[str] = ENCODER
    answers_once: ClassVar[bool] = True
    kind: ClassVar[str] = CLASSES
    source_prefix: ClassVar[None] = None

    def own_data(self, config: Any, progress: Progress) -> Any:
        settings = self.model.config
        config = own_samples(config, settings.training, settings.task, self.name, progress)
        name_classes(settings, self.name, config, progress)
        if self.runner is None and self.runtimes != (TORCH,):
            # An exported model's, which no option needs to name.
            config = dataclasses.replace(config, runtime=self.runtimes[0])
        return config

    def examples(self, config: Any, *, default_split: str, progress: Progress) -> Examples:
        examples = load_examples(
            config,
            default_split=default_split,
            label_names=self.label_names,
            progress=progress,
            leave_out=leaving_out(config, self, progress),
        )
        self._check_fits(examples.info, progress)
        return examples

    def _check_fits(self, info: TaskInfo, progress: Progress) -> None:
        """A task and a model that do not go together are a usage error."""
        if info.num_labels != self.num_classes:
            raise UsageError(
                f"Task '{info.name}' has {info.num_labels} classes, "
                f"model '{self.name}' has {self.num_classes}",
                hint="Choose a task with the model's classes, or train one: eexit train --task "
                f"{info.name}",
            )
        pairs = trained_on_pairs(self.model.config)
        if pairs is not None and pairs != info.pair:
            words = {True: "pairs of texts", False: "single texts"}
            repair = (
                "--text-pair-column names" if pairs else "leave --text-pair-column out for single"
            )
            progress.message(
                f"Model '{self.name}' was trained on {words[pairs]}; '{info.name}' is read as "
                f"{words[info.pair]} ({repair}{' the second' if pairs else ' texts'})"
            )

    def prefix(self, info: TaskInfo | None) -> str:
        return ""

    def conditions(self, prefix: str) -> dict[str, Any]:
        return {"runtime": self.runtimes[0], **rounding(self)}

    def measure(self, name: str) -> str:
        return classifier_measure(name)

    def exit(self, options: Any) -> Exit:
        criterion = build_criterion(
            options, self.exit_defaults, num_layers=self.num_layers, num_classes=self.num_classes
        )
        described = describe(criterion)
        if len(self.runtimes) > 1:
            described["runtime"] = options.runtime or self.runtimes[0]
        return Exit.of(described, criterion)

    def exit_from(self, described: Mapping[str, Any]) -> Exit:
        if described["criterion"] == "full":
            return self.full()
        criterion = criterion_from(
            described, num_layers=self.num_layers, num_classes=self.num_classes
        )
        return Exit.of(described, criterion)

    def default_exit(self) -> Exit:
        return self.exit_from(self.exit_defaults) if self.exit_defaults else self.full()

    def full(self) -> Exit:
        return Exit.of(describe(None), None)

    def grid(self, measures: Sequence[str], options: Any) -> list[Exit]:
        settings = sweep_settings(
            num_layers=self.num_layers,
            num_classes=self.num_classes,
            measures=[self.measure(name) for name in measures] or None,
        )
        return [self.exit_from(each) for each in settings]

    def knobs(self, config: Any) -> list[Knob]:
        return knobs(self, config)

    def check_attackable(self, exit: Exit) -> None:
        closeness_for(exit.rule)

    def with_stored(self, config: Any, settings: Mapping[str, Any]) -> Any:
        names = {name for _, criterion in CRITERIA.working() for name in criterion.option_names()}
        found = {name: settings.get(name) for name in names & config.option_names()}
        return dataclasses.replace(config, **found)

    def inputs(
        self,
        samples: Any,
        *,
        batch_size: int | None,
        progress: Progress | None = None,
        title: str = "Full pass",
    ) -> Trace:
        """One pass through all layers, which answers every exit."""
        return self.trace(samples, batch_size=batch_size, progress=progress, title=title)

    def answers(
        self,
        inputs: Any,
        exit: Exit | None = None,
        *,
        progress: Progress | None = None,
        title: str = "Full pass",
    ) -> Answers:
        exit = exit or self.default_exit()
        if not isinstance(inputs, Trace):
            inputs = self.inputs(inputs, batch_size=None, progress=progress, title=title)
        decision = replay(inputs.logits, exit.rule)
        layers = [[layer] for layer in decision.exit_layers.tolist()]
        return Answers(exit, decision.predictions.tolist(), layers, decision)

    def evaluation(self, examples: Examples, config: Any, progress: Progress) -> Evaluation:
        return EncoderEvaluation(self, examples, config, progress)

    def name_outputs(self, config: Any, progress: Progress) -> None:
        name_classes(self.model.config, self.name, config, progress)

    def settle_texts(self, config: Any, progress: Progress) -> None:
        self.name_outputs(config, progress)
        if trained_on_pairs(self.model.config) and config.text_pair is None:
            progress.message(
                f"Model '{self.name}' was trained on pairs of texts: --text-pair gives the second"
            )

    def opinions(self, config: Any, exit: Exit, progress: Progress) -> list[dict[str, Any]]:
        return opinions(self, config, exit)

    def speed(
        self, examples: Examples, exit: Exit, config: Any, progress: Progress
    ) -> dict[str, Any]:
        return measure_speed(self, examples, [exit], config, progress)[0]

    def with_crew(self, crew: Crew) -> EncoderModel:
        return dataclasses.replace(self, crew=crew)

    def tokenised(self, text: str, pair: str | None = None) -> dict[str, Any]:
        return to_device(self.batcher()([text], None if pair is None else [pair]), self.device)

    def live(self, tokenised: dict[str, Any], exit: Exit) -> object:
        return self.running(exit).infer(**tokenised, criterion=exit.rule)

    def along(self, described: Mapping[str, Any]) -> list[Exit]:
        made = []
        for each in settings_along(described, self.num_layers, self.num_classes):
            criterion = self.exit_from(each).rule
            made.append(Exit.of(describe(criterion), criterion))
        return made

    def exit_by_input(self, options: Any) -> Exit:
        criterion = criterion_by_input(options, self)
        return Exit.of(describe(criterion), criterion)

    def attacked_exit(self, options: Any) -> Exit:
        return self.exit_by_input(options)

    def ready_to_attack(self, config: Any, examples: Examples, progress: Progress) -> Any:
        # Refused here rather than by the first worker, or after a run's folder was made.
        from eexit_cli.attacks.closeness import closeness_for

        closeness_for(criterion_by_input(config, self))
        return config

    def no_gradients(self, config: Any) -> tuple[str | None, str]:
        if has_gradients(self.model) or config.surrogate is not None:
            return None, ""
        return (
            f"'{self.name}' is a file without any",
            "name the model that was exported: --surrogate NAME",
        )

    def under_attack(self, exit: Exit, config: Any) -> Attacked:
        return AttackedEncoder(self, exit, config)


def load_model(config: LoadingConfig, *, progress: Progress | None = None) -> EncoderModel:
    """Load what ``config.model`` names: a bundled model, a local folder or a hub repository.

    Args:
        config: ``config.common.CommonConfig`` or anything with its attributes.
        progress: told how an upstream checkpoint was converted.

    Raises:
        UsageError: an unknown name, device or dtype, or a ``max_length`` beyond the model's limit.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no model or is damaged.
    """
    ref = resolve(config.model)
    folder = folder_of(ref)
    settings = config_of(folder) or {}
    runtimes = asked_runtimes(config, settings, ref.name)
    device = resolve_device(check_runtimes(runtimes, config))
    dtype = resolve_dtype(config.dtype, device)
    if is_seq2seq(folder) or is_causal(settings):
        raise UsageError(
            f"Model '{ref.name}' writes text; this needs a classifier",
            hint="Use an encoder with exits such as deebert, or evaluate this one: "
            f"eexit evaluate --model {ref.name}",
        )
    model: Any
    if exported(settings) is not None:
        model = load_exported(folder, progress)
    else:
        model = load_classifier(folder, device=device, dtype=dtype)
        tell_unwrapped(model, ref.name, progress)
    loaded = EncoderModel(
        ref=ref,
        folder=folder,
        model=model,
        tokenizer=load_tokenizer(
            folder, backbone=model.config.backbone_config(), lower_case=config.lower_case
        ),
        device=device,
        dtype=dtype,
        max_length=_max_length(config.max_length, model.max_tokens),
        runtimes=runtimes,
    )
    check_vocabulary(loaded.tokenizer, model.word_embeddings.num_embeddings, folder)
    if exported(settings) is None and runtimes != (TORCH,):
        default = loaded.default_exit().rule
        branches = default is not None and default.reads_input
        runs = runner(model, runtimes, default if branches else None)
        loaded = dataclasses.replace(loaded, runner=runs)
    if progress is not None and (layout := model.config.training.get("converted_from")):
        progress.message(_conversion_note(ref.name, layout, loaded.exit_defaults))
    return loaded


def _max_length(asked: int | None, limit: int) -> int:
    if asked is None:
        return limit
    if not 3 <= asked <= limit:
        raise UsageError(
            f"--max-length {asked} is outside the model's range",
            hint=f"Give a number from 3 to {limit}, or leave it out",
        )
    return asked


def _conversion_note(name: str, layout: str, defaults: dict[str, Any]) -> str:
    titles = {"deebert": "DeeBERT", "pabee": "PABEE"}
    settings = ", ".join(f"{key} {value}" for key, value in defaults.items())
    exit_note = (
        f"default exit is the published one: {settings}"
        if settings
        else "no default exit for a regression model: give --static-layer, or the full model runs"
    )
    return f"{name}: converted from {titles.get(layout, layout)}'s layout; {exit_note}"
