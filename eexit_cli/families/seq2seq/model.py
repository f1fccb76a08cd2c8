"""CALM's and FREE's T5 as the use cases know a model, and how one is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.config.field import SEQ2SEQ
from eexit_cli.core.answers import TEXTS, Answers, Exit, Knob
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Evaluation
from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.core.victim import Attacked
from eexit_cli.data import TASKS, load_examples, task_info
from eexit_cli.families.batches import prefix_in, to_device
from eexit_cli.families.data import own_samples
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
from eexit_cli.families.seq2seq.attack_exits import (
    attacked_settings,
    exit_reader,
    settings_by_input,
)
from eexit_cli.families.seq2seq.calibration import knobs
from eexit_cli.families.seq2seq.decoding import Sources, decode_examples, prepare_sources
from eexit_cli.families.seq2seq.evaluation import Seq2SeqEvaluation
from eexit_cli.families.seq2seq.exits import (
    FULL,
    SWEEP,
    decoder_measure,
    decoder_settings,
    describe_settings,
    full_model,
    settings_from,
    sweep_settings,
)
from eexit_cli.families.seq2seq.latency import time_singles
from eexit_cli.families.seq2seq.loaded import LoadedDecoder
from eexit_cli.families.seq2seq.predictions import opinions
from eexit_cli.families.seq2seq.victim import AttackedDecoder, check_rates
from eexit_cli.models.decoding.generation import not_greedy
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.store.calibrations import BESIDE_THRESHOLD, setting_of
from eexit_cli.store.conditions import GENERATION, generation_digest
from eexit_cli.store.models import is_decoder, resolve

SOURCE_TOKENS = 512
"""Longest input of a T5 whose folder says nothing: what T5 was trained with."""

NEW_TOKENS = 128
"""Longest output where neither the model nor the user says."""

_NO_LIMIT = 10**6
"""Tokenizers without a limit carry a number beyond this."""


class Seq2SeqModel(LoadedDecoder):
    """See :class:`eexit_cli.core.family.Model`."""

    family: ClassVar[str] = SEQ2SEQ
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
        )

    def prefix(self, info: TaskInfo | None) -> str:
        if info is not None:
            return prefix_in(info)
        if self.source_prefix is not None:
            return self.source_prefix
        return "" if self.trained_on is None else prefix_in(task_info(self.trained_on))

    def conditions(self, prefix: str) -> dict[str, Any]:
        return {
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
        return Seq2SeqEvaluation(self, examples, config, progress)

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
        exit_reader(self, attacked_settings(config, self))
        prepare_sources(self, examples, progress=progress)
        prefix = prefix_in(examples.info)
        check_rates(config, examples, prefix)
        return dataclasses.replace(config, source_prefix=prefix)

    def under_attack(self, exit: Exit, config: Any) -> Attacked:
        prefix = self.prefix(None) if config.source_prefix is None else config.source_prefix
        return AttackedDecoder(self, exit.rule, prefix, config)


def load_decoder(config: LoadingConfig, *, progress: Progress | None = None) -> Seq2SeqModel:
    """Load what ``config.model`` names: ours, a plain T5, DL2-CALM's or FREE's checkpoint.

    Args:
        config: ``config.common.CommonConfig`` or anything with its attributes; its
            ``max_new_tokens``, if it has one, overrides the model's, and its ``greedy`` allows a
            model that asks for another decoding.
        progress: told how a checkpoint of another layout was read.

    Raises:
        UsageError: an unknown name, device or dtype, a length outside its range, a model
            without a decoder, or one whose generation settings are not greedy decoding's.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no model or is damaged.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    ref = resolve(config.model)
    folder = folder_of(ref)
    if not is_decoder(folder):
        raise UsageError(
            f"Model '{ref.name}' has no decoder; this needs an encoder-decoder (T5)",
            hint="Use a model of the family calm: eexit models list",
        )
    model = load_seq2seq(folder, build_classifier=build_classifier, device=device, dtype=dtype)
    left_out = _only_greedy(model, ref.name, agreed=bool(getattr(config, "greedy", False)))
    tokenizer = load_decoder_tokenizer(folder, config.lower_case)
    check_vocabulary(tokenizer, model.config.vocab_size, folder)
    tell_unwrapped(model, ref.name, progress)
    loaded = Seq2SeqModel(
        ref=ref,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        max_length=_source_tokens(config.max_length, model, tokenizer),
        max_new_tokens=_new_tokens(getattr(config, "max_new_tokens", None), model),
    )
    if progress is not None and left_out:
        progress.message(f"{ref.name}: decoded greedily; its settings {left_out} are left out")
    if progress is not None and (layout := model.config.training.get("converted_from")):
        progress.message(_conversion_note(loaded, layout))
    return loaded


def settings_left_out(model: MultiExitT5) -> str:
    """What the model's generation settings ask for beyond greedy decoding; empty for nothing."""
    return ", ".join(
        f"{name} {value}" for name, value in not_greedy(model.generation_config).items()
    )


def _only_greedy(model: MultiExitT5, name: str, *, agreed: bool) -> str:
    """:func:`settings_left_out`, where the user agrees."""
    left_out = settings_left_out(model)
    if left_out and not agreed:
        raise UsageError(
            f"Model '{name}' asks for {left_out} (generation_config.json); exits of tokens are "
            "defined for greedy decoding alone",
            hint="Add --greedy to leave that out, or remove it from the file",
        )
    return left_out


def load_decoder_tokenizer(folder: Path, lower_case: bool | None = None) -> Any:
    """The fast tokenizer of a T5's folder; see ``families.loading.load_tokenizer``."""
    from transformers import T5Config

    return load_tokenizer(folder, backbone=T5Config(), lower_case=lower_case)


def _source_tokens(asked: int | None, model: MultiExitT5, tokenizer: Any) -> int:
    """T5's positions are relative: longer inputs than it was trained with are possible."""
    if asked is not None:
        if asked < 2:
            raise UsageError(
                f"--max-length {asked} leaves no room for a source",
                hint="Give at least 2: a token and the end",
            )
        return asked
    trained = model.config.max_source_length
    if trained is not None:
        return int(trained)
    limit = int(tokenizer.model_max_length)
    return limit if limit < _NO_LIMIT else SOURCE_TOKENS


def _new_tokens(asked: int | None, model: MultiExitT5) -> int:
    if asked is not None:
        if asked < 1:
            raise UsageError(f"--max-new-tokens {asked} is too few", hint="Give at least 1")
        return asked
    trained = model.config.max_target_length or model.generation_config.max_new_tokens
    return NEW_TOKENS if trained is None else int(trained)


def _conversion_note(loaded: LoadedDecoder, layout: str) -> str:
    name = loaded.ref.name
    if layout == "t5":
        return (
            f"{name}: a plain T5, whose layers were not trained to answer early; "
            f"train them: eexit train --model calm --backbone {name}"
        )
    titles = {"calm": "CALM's PyTorch layout", "free": "FREE's layout"}
    settings = ", ".join(f"{key} {value}" for key, value in loaded.exit_defaults.items())
    return f"{name}: read from {titles[layout]}; default exit {settings or 'none'}"
