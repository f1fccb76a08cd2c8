"""A decoder on text pairs: the full model once, then every exit.

An early token changes what follows, so each exit is decoded anew. All of them share the tokenised
sources and the full model's outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.core.answers import Exit
from eexit_cli.core.digits import exact
from eexit_cli.core.types import Examples
from eexit_cli.families.batches import references_of
from eexit_cli.families.decoders.costs import Measured, encoder_flops, part_seconds, token_flops
from eexit_cli.families.decoders.decoding import decode_examples, prepare_sources, sources_of
from eexit_cli.families.decoders.exits import describe_settings, full_model
from eexit_cli.families.decoders.latency import settled, time_batches, time_singles
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.decoders.texts import scores_of, shortened
from eexit_cli.families.decoders.token_names import token_names

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.metrics.counters import Meter

WARM_UP_TOKENS = 4


class TextEvaluation:
    """See :class:`eexit_cli.core.family.Evaluation`.

    Args:
        config: with ``batch_size`` and what times it.

    Raises:
        UsageError: no source, or an empty one.
    """

    def __init__(
        self, loaded: LoadedDecoder, examples: Examples, config: Any, progress: Progress
    ) -> None:
        self.loaded, self.examples, self.config = loaded, examples, config
        self.timings: dict[str, float] = {}
        self._progress = progress
        size = config.batch_size
        self.sources = prepare_sources(loaded, examples, batch_size=size, progress=progress)
        self._references = references_of(examples)
        settings = full_model(loaded)
        self._full = Exit.of(describe_settings(settings), settings)
        self._known: dict[Exit, Measured] = {}
        self._full_speed: dict[str, float] = {}

    def figures(self, exit: Exit, *, progress: Progress) -> dict[str, Any]:
        full = self._measured(self._full, progress, "Full model")
        measured = self._measured(exit, progress, _title(exit))
        self.timings.setdefault("chosen_seconds", measured.decoded.seconds)
        return measured.metrics(self.loaded, full)

    def beside(self, exit: Exit) -> dict[str, Any]:
        full, chosen = self._known[self._full], self._known[exit]
        return {
            **self._of_full(chosen, full),
            **self._full_speed,
            "truncated": self.sources.truncated,
            "unfinished": chosen.decoded.unfinished,
            "samples": len(self.examples),
            "num_layers": self.loaded.num_layers,
            "batch_size": self.sources.batch_size,
        }

    def records(self, exit: Exit) -> list[dict[str, Any]]:
        """Both outputs, and where each token of the early one left."""
        full, early = self._known[self._full], self._known[exit]
        columns = self.examples.dataset
        sources, targets = sources_of(self.examples), list(columns["target"])
        records = []
        for index, identifier in enumerate(columns["id"]):
            layers = early.decoded.exit_layers[index]
            tokens = early.decoded.tokens[index]
            of_full = full.scores.samples[index].items()
            records.append(
                {
                    "id": identifier,
                    "source": sources[index],
                    "target": targets[index],
                    "output": early.decoded.outputs[index],
                    "output_full": full.decoded.outputs[index],
                    "tokens": token_names(self.loaded.tokenizer, tokens),
                    "exit_layers": layers,
                    "mean_exit_layer": sum(layers) / len(layers),
                    **early.scores.samples[index],
                    **{f"{name}_full": value for name, value in of_full},
                }
            )
        return records

    def speeds(
        self, exits: Sequence[Exit], *, swept: bool, meter: Meter | None = None
    ) -> dict[Exit, dict[str, Any]]:
        # Of a sweep's many settings the chosen one alone is timed one by one; those of
        # self-speculation are few, and seconds are all that they are for.
        many = swept and not any(exit.rule.draft_layer for exit in exits)
        alone = [self._full, exits[0]] if many else list(self._known)
        one, all_of_them = (
            {exit.key: settled(self._known[exit]) for exit in timed}
            for timed in (alone, list(self._known))
        )
        model, examples, full = self.loaded, self.examples, self._full.key
        single = time_singles(model, examples, one, full, self.config, self._progress, meter)
        size = self.sources.batch_size
        batched = time_batches(
            model, examples, all_of_them, full, size, self.config, self._progress
        )
        self._full_speed = _named_full(batched[self._full.key])
        return {exit: batched[exit.key] | single.get(exit.key, {}) for exit in dict.fromkeys(exits)}

    def _measured(self, exit: Exit, progress: Progress, title: str) -> Measured:
        """Each exit once."""
        if not self._known:
            # The first call packs the weights; that is not part of anybody's time.
            warm = dataclasses.replace(self._full.rule, max_new_tokens=WARM_UP_TOKENS)
            batch = shortened(self.sources.batches[-1], WARM_UP_TOKENS)
            self.loaded.model.decode(**batch, settings=warm)
        if exit not in self._known:
            measured = self._measure(exit, progress, title)
            self._known[exit] = measured
            self.timings.setdefault("full_seconds", measured.decoded.seconds)
        return self._known[exit]

    def _measure(self, exit: Exit, progress: Progress, title: str) -> Measured:
        """Decode, time the parts and judge the outputs.

        On a CPU the clock readings cost under 1 % at batch 32, so that one pass gives all
        times; elsewhere each reading waits for the device, so that the parts need a second pass.
        """
        settings = exit.rule
        timed = dataclasses.replace(settings, timings=True)
        cheap = self.loaded.device.type == "cpu"
        decoded = decode_examples(
            self.loaded,
            self.sources,
            timed if cheap else settings,
            progress=progress,
            title=title,
        )
        timings = decoded.timings
        if timings is None:
            timings = decode_examples(self.loaded, self.sources, timed).timings
        assert timings is not None
        scores = scores_of(self.examples.info, decoded, self._references)
        return Measured(settings, decoded, timings, scores)

    def _of_full(self, chosen: Measured, full: Measured) -> dict[str, float]:
        """The full model's figures, and what only the chosen setting has."""
        decoded = full.decoded
        tokens = decoded.counts.tokens
        encoder = encoder_flops(self.loaded, decoded)
        work = {
            name: (token_flops(self.loaded, item.decoded, item.settings) + encoder) / len(decoded)
            for name, item in (("flops_per_sample", chosen), ("flops_full", full))
        }
        return {
            **{f"{name}_full": value for name, value in full.scores.corpus.items()},
            "tokens_per_second_full": decoded.tokens_per_second,
            "flops_per_token_full": token_flops(self.loaded, decoded, full.settings) / tokens,
            **work,
            "seconds_full": decoded.seconds,
            **{f"{name}_full": value for name, value in part_seconds(full.timings).items()},
            "tokens_full": tokens,
        }


def _title(exit: Exit) -> str:
    """What an exit is called while it runs."""
    described = exit.described
    if "static_layer" in described:
        return f"layer {described['static_layer']}"
    if "exit_layer" in described:
        return f"drafts of layer {described['exit_layer']}"
    if "confidence" not in described:
        return "full model"
    top_k = described.get("top_k_propagation")
    said = f"{described['confidence']} {exact(described['threshold'])}"
    return f"{said}, top {top_k}" if top_k else said


def _named_full(speed: Mapping[str, float]) -> dict[str, float]:
    """The full model's own speed, in the names that stand beside the chosen setting's."""
    names = ("tokens_per_second", "tokens_per_second_low", "tokens_per_second_high")
    return {f"{name}_full": speed[name] for name in names}
