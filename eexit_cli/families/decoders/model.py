"""A model that writes text as the use cases know a model; a family adds what is its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from eexit_cli.core.answers import TEXTS, Answers, Exit, Knob
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Evaluation
from eexit_cli.core.protocols import Crew, Progress
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.core.victim import Attacked
from eexit_cli.data import TASKS, load_examples, task_info
from eexit_cli.data.raw_text import Cutter
from eexit_cli.families.batches import prefix_in, to_device
from eexit_cli.families.data import own_samples
from eexit_cli.families.decoders.attack_exits import (
    attacked_settings,
    exit_reader,
    score_of,
    settings_by_input,
)
from eexit_cli.families.decoders.calibration import knobs
from eexit_cli.families.decoders.decoding import (
    Pass,
    Share,
    Sources,
    decode_examples,
    decode_share,
    prepare_sources,
)
from eexit_cli.families.decoders.evaluation import TextEvaluation
from eexit_cli.families.decoders.exits import (
    FULL,
    SWEEP,
    decoder_measure,
    decoder_settings,
    describe_settings,
    full_model,
    settings_from,
    sweep_settings,
)
from eexit_cli.families.decoders.latency import time_singles
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.decoders.predictions import opinions
from eexit_cli.families.decoders.victim import AttackedDecoder, check_rates
from eexit_cli.families.seen_rows import leaving_out
from eexit_cli.models.decoding.int8 import INT8, largest_weight
from eexit_cli.store.calibrations import BESIDE_THRESHOLD, setting_of
from eexit_cli.store.conditions import GENERATION, WEIGHT_WIDTH, generation_digest


class TextModel(LoadedDecoder):
    """See :class:`eexit_cli.core.family.Model`."""

    family: ClassVar[str]
    answers_once: ClassVar[bool] = False
    kind: ClassVar[str] = TEXTS
    label_names: ClassVar[None] = None

    def own_data(self, config: Any, progress: Progress) -> Any:
        training = self.model.config.training
        config = own_samples(config, training, self.trained_on, self.name, progress)
        if config.source_prefix is None and self.source_prefix is not None:
            config = dataclasses.replace(config, source_prefix=self.source_prefix)
        return config

    def examples(self, config: Any, *, default_split: str, progress: Progress) -> Examples:
        if config.task is None and config.data_file is None:
            known = [name for name, task in TASKS.working() if task.info.kind == "generation"]
            raise UsageError(
                f"Model '{self.name}' names no task of its own",
                hint=f"Use --task with one of {', '.join(known)}, or --data-file",
            )
        return load_examples(
            config,
            default_split=default_split,
            generates=True,
            progress=progress,
            leave_out=leaving_out(config, self, progress),
            cutter=self.cutter(config),
        )

    def cutter(self, config: Any) -> Cutter | None:
        """What makes pieces of raw text; None refuses it."""
        return None

    def prefix(self, info: TaskInfo | None) -> str:
        if info is not None:
            return prefix_in(info)
        if self.source_prefix is not None:
            return self.source_prefix
        return "" if self.trained_on is None else prefix_in(task_info(self.trained_on))

    def conditions(self, prefix: str) -> dict[str, Any]:
        weights = self.model.weights
        narrow = {WEIGHT_WIDTH: largest_weight()} if weights == INT8 else {}
        return {
            "weights": weights,
            **narrow,
            "max_new_tokens": self.max_new_tokens,
            "source_prefix": prefix,
            GENERATION: generation_digest(self.folder),
        }

    def measure(self, name: str) -> str:
        return decoder_measure(name, model=self.name)

    def exit(self, options: Any) -> Exit:
        settings = decoder_settings(options, self)
        return Exit.of(describe_settings(settings), settings)

    def exit_from(self, described: Mapping[str, Any]) -> Exit:
        settings = settings_from(described, self)
        return Exit.of(describe_settings(settings), settings)

    def default_exit(self) -> Exit:
        return self.exit_from(self.exit_defaults) if self.exit_defaults else self.full()

    def full(self) -> Exit:
        return Exit.of({"criterion": FULL}, full_model(self))

    def grid(self, measures: Sequence[str], options: Any) -> list[Exit]:
        names = [self.measure(name) for name in measures]
        made = sweep_settings(self, names, options)
        return [Exit.of(describe_settings(each), each) for each in made]

    def knobs(self, config: Any) -> list[Knob]:
        return knobs(self, config)

    def check_attackable(self, exit: Exit) -> None:
        exit_reader(self, exit.rule)

    def with_stored(self, config: Any, settings: Mapping[str, Any]) -> Any:
        found = {name: settings.get(name) for name in ("threshold", "patience", "confidence")}
        found |= {name: setting_of(settings, name) for name in BESIDE_THRESHOLD}
        found["adaptive_threshold"] = False
        if settings.get("threshold") is None:
            # No threshold could be certified: the full model.
            found = dict.fromkeys([*found, *BESIDE_THRESHOLD])
            found["static_layer"] = self.num_layers
        return dataclasses.replace(config, **found)

    def inputs(
        self,
        samples: Any,
        *,
        batch_size: int | None,
        progress: Progress | None = None,
        title: str = "",
    ) -> Sources:
        return prepare_sources(self, samples, batch_size=batch_size, progress=progress)

    def answers(
        self,
        inputs: Any,
        exit: Exit | None = None,
        *,
        progress: Progress | None = None,
        title: str = "Decoding",
    ) -> Answers:
        exit = exit or self.default_exit()
        if not isinstance(inputs, (Sources, Examples)):
            inputs = [self.prefix(None) + text for text in inputs]
        decoded = decode_examples(self, inputs, exit.rule, progress=progress, title=title)
        return Answers(exit, decoded.outputs, decoded.exit_layers, decoded)

    def evaluation(self, examples: Examples, config: Any, progress: Progress) -> Evaluation:
        return TextEvaluation(self, examples, config, progress)

    def settle_texts(self, config: Any, progress: Progress) -> None:
        """Texts need nothing to be settled."""

    def name_outputs(self, config: Any, progress: Progress) -> None:
        """Texts have no names."""

    def opinions(self, config: Any, exit: Exit, progress: Progress) -> list[dict[str, Any]]:
        return opinions(self, self.prefix(None), config, exit, progress)

    def speed(
        self, examples: Examples, exit: Exit, config: Any, progress: Progress
    ) -> dict[str, Any]:
        timed = {"live": exit.rule, "full": full_model(self)}
        return time_singles(self, examples, timed, "full", config, progress)["live"]

    def with_crew(self, crew: Crew) -> TextModel:
        return dataclasses.replace(self, crew=crew)

    def share(self, part: Share) -> list[Pass]:
        return decode_share(self, part)

    def tokenised(self, text: str, pair: str | None = None) -> dict[str, Any]:
        batch = self.batcher()([text])
        kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return to_device(kept, self.device)

    def live(self, tokenised: dict[str, Any], exit: Exit) -> object:
        return self.model.decode(**tokenised, settings=exit.rule)

    def along(self, described: Mapping[str, Any]) -> list[Exit]:
        if "threshold" not in described:
            return []
        return [self.exit_from({**described, "threshold": value}) for value in (1.0, *SWEEP)]

    def exit_by_input(self, options: Any) -> Exit:
        settings = settings_by_input(options, self)
        return Exit.of(describe_settings(settings), settings)

    def attacked_exit(self, options: Any) -> Exit:
        settings = attacked_settings(options, self)
        return Exit.of(describe_settings(settings), settings)

    def ready_to_attack(self, config: Any, examples: Examples, progress: Progress) -> Any:
        # Refused here rather than by the first worker, or after a run's folder was made.
        settings = attacked_settings(config, self)
        exit_reader(self, settings, score_of(config, settings))
        prepare_sources(self, examples, progress=progress)
        prefix = prefix_in(examples.info)
        check_rates(config, examples, prefix)
        score = score_of(config, settings)
        return dataclasses.replace(config, source_prefix=prefix, score=score)

    def no_gradients(self, config: Any) -> tuple[str | None, str]:
        return None, ""

    def under_attack(self, exit: Exit, config: Any) -> Attacked:
        prefix = self.prefix(None) if config.source_prefix is None else config.source_prefix
        return AttackedDecoder(self, exit.rule, prefix, config)
