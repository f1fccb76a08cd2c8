"""Decode a data set: batches of similar length, answers in the given order."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from eexit_cli.core.errors import UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.types import Examples
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.families.batches import (
    DEFAULT_BATCH_SIZE,
    batches_by_length,
    shares_of,
    titled,
    to_device,
)
from eexit_cli.families.decoders.exits import describe_settings, settings_from
from eexit_cli.families.decoders.texts import PROMPT, given_batches
from eexit_cli.models.decoding.given import log_likelihoods
from eexit_cli.models.decoding.results import DecodeCounts, Decoded, DecodedSample, DecodeTimings
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Crew, Progress
    from eexit_cli.families.decoders.loaded import LoadedDecoder


Numbers = TypeVar("Numbers", DecodeCounts, DecodeTimings)


@dataclass(frozen=True)
class Sources:
    """Tokenised sources in batches of similar length, longest first, on the model's device.

    Attributes:
        rows: of each batch, the sources in it, by their place in the given order.
        batches: ``input_ids`` and ``attention_mask`` of each. Shape: [batch, tokens]. Of raw text
            the first tokens, and with them the rest, ``given``.
        lengths: tokens of each source, in the given order.
        truncated: sources cut at the model's limit.
        batch_size: as asked for.
    """

    rows: list[list[int]]
    batches: list[dict[str, Any]]
    lengths: list[int]
    truncated: int
    batch_size: int

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class DecodedSet:
    """Outputs of a data set, in the order of its sources.

    Attributes:
        outputs: texts.
        tokens: ids of each output, the end token included when it was reached.
        exit_layers: layer that emitted each token, 1..L.
        confidences: confidence that each token left with; NaN where none was asked.
        source_lengths: tokens of each source.
        counts: how much was computed.
        seconds: wall time of decoding; tokenising and detokenising are not part of it.
        timings: by part; None unless the settings ask for it.
        truncated: sources cut at the model's limit.
        unfinished: outputs that were as long as they may be before they ended.
        threshold: where FREE's adaptive threshold ended; None for a fixed one.
        pairs: (confidence, agreement) of FREE's deep passes; empty otherwise.
        passes: of each output, (drafted, accepted) of each verification of self-speculation.
        log_likelihoods: of raw text, of each true token in nats, whose ``tokens`` are what the
            exits would have chosen. Empty where outputs are written.
    """

    outputs: list[str]
    tokens: list[list[int]]
    exit_layers: list[list[int]]
    confidences: list[list[float]]
    source_lengths: list[int]
    counts: DecodeCounts
    seconds: float
    timings: DecodeTimings | None
    truncated: int
    unfinished: int
    threshold: float | None = None
    pairs: list[tuple[float, bool]] = field(default_factory=list)
    passes: list[list[tuple[int, int]]] = field(default_factory=list)
    log_likelihoods: list[list[float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def token_layers(self) -> list[int]:
        """Exit layers of all tokens, sample by sample."""
        return [layer for layers in self.exit_layers for layer in layers]

    def stepped_layers(self, prompted: bool) -> list[int]:
        """The same without tokens that come from their prompt's pass, the first of each output."""
        first = int(prompted)
        return [layer for layers in self.exit_layers for layer in layers[first:]]

    @property
    def tokens_per_second(self) -> float:
        return self.counts.tokens / self.seconds


def sources_of(examples: Examples) -> list[str]:
    """Source texts, with the task's prefix, in the order of the samples."""
    return list(examples.dataset["source"])


def prepare_sources(
    loaded: LoadedDecoder,
    samples: Sequence[str] | Examples,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Sources:
    """Tokenise once, to decode as often as there are settings.

    Args:
        loaded: model and tokenizer.
        samples: texts as the model reads them, prefix included, or samples of a generation task.
        batch_size: None is 32.
        progress: told how many sources were cut.

    Raises:
        UsageError: no source, or one without text; the message names the sample.
    """
    if isinstance(samples, Examples) and samples.info.raw_text:
        return _pieces(loaded, samples, batch_size or DEFAULT_BATCH_SIZE)
    texts, names, prefix = _texts(samples)
    for name, text in zip(names, texts, strict=True):
        if not text.removeprefix(prefix).strip():
            raise UsageError(f"{name} has an empty source", hint="Every source needs some text")
    if not texts:
        raise UsageError("There is no source to decode", hint="Give at least one text")
    size = batch_size or DEFAULT_BATCH_SIZE
    batcher = loaded.batcher()
    rows = list(batches_by_length([len(text) for text in texts], size))
    lengths = [0] * len(texts)
    batches: list[dict[str, Any]] = []
    for batch_rows in rows:
        batch = batcher([texts[row] for row in batch_rows])
        mask = batch["attention_mask"]
        for row, length in zip(batch_rows, mask.sum(dim=1).tolist(), strict=True):
            lengths[row] = length
        kept = {"input_ids": batch["input_ids"], "attention_mask": mask}
        batches.append(to_device(kept, loaded.device))
    if batcher.truncated and progress is not None:
        progress.message(
            f"{batcher.truncated} of {len(texts)} inputs were cut at {loaded.max_length} tokens"
        )
    return Sources(rows, batches, lengths, batcher.truncated, size)


def _pieces(loaded: LoadedDecoder, examples: Examples, size: int) -> Sources:
    """Pieces of raw text."""
    lengths = [len(each) for each in examples.dataset["tokens"]]
    rows = list(batches_by_length(lengths, size))
    batches = given_batches(examples, rows, loaded.device)
    return Sources(rows, batches, [PROMPT] * len(lengths), 0, size)


def decode_examples(
    loaded: LoadedDecoder,
    samples: Sequence[str] | Examples | Sources,
    settings: DecodeSettings,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
    title: str = "Decoding",
) -> DecodedSet:
    """Outputs for every source, with the layer that each token left at.

    An adaptive threshold starts anew, sees the batches in their order (longest sources first) and
    is refitted before each; at batch size 1 that is FREE's "before each new input".

    Args:
        loaded: model and tokenizer.
        samples: as :func:`prepare_sources` takes them, or what it made.
        settings: from ``families.decoders.exits``.
        batch_size: None is 32; nothing where the sources are prepared.
        progress: told about each batch and about cut sources.

    Raises:
        UsageError: settings that do not fit the model, or an empty source.
    """
    progress = progress or SilentProgress()
    if not isinstance(samples, Sources):
        samples = prepare_sources(loaded, samples, batch_size=batch_size, progress=progress)
    total = len(samples)
    found: list[DecodedSample | None] = [None] * total
    counts = DecodeCounts()
    timings: DecodeTimings | None = None
    pairs: list[tuple[float, bool]] = []
    rule: AdaptiveThreshold | None = None
    if isinstance(settings.rule, AdaptiveThreshold):
        # What it learns here must not reach the caller's next data set.
        rule = copy.deepcopy(settings.rule)
        settings = dataclasses.replace(settings, rule=rule)
    seconds = 0.0
    crew = loaded.crew if rule is None else None
    with progress.task(titled(title, crew), total=total) as ticker:
        for rows, decoded, spent in _passes(loaded, samples, settings, rule, ticker.advance):
            seconds += spent
            pairs += decoded.pairs
            for row, sample in zip(rows, decoded.samples, strict=True):
                found[row] = sample
            counts = _sum(counts, decoded.counts)
            if decoded.timings is not None:
                timings = decoded.timings if timings is None else _sum(timings, decoded.timings)
    outputs = [sample for sample in found if sample is not None]
    ends = loaded.model.config.end_tokens
    tokens = [sample.tokens for sample in outputs]
    given = any("given" in batch for batch in samples.batches)
    return DecodedSet(
        outputs=loaded.tokenizer.batch_decode(tokens, skip_special_tokens=True),
        tokens=tokens,
        exit_layers=[sample.exit_layers for sample in outputs],
        confidences=[sample.confidences for sample in outputs],
        source_lengths=samples.lengths,
        counts=counts,
        seconds=seconds,
        timings=timings,
        truncated=samples.truncated,
        unfinished=0 if given else sum(not ids or ids[-1] not in ends for ids in tokens),
        threshold=None if rule is None else rule.threshold,
        pairs=pairs,
        passes=[sample.passes for sample in outputs],
        log_likelihoods=[sample.log_likelihoods for sample in outputs] if given else [],
    )


@torch.inference_mode()
def given_likelihoods(loaded: LoadedDecoder, sources: Sources) -> dict[int, list[float]]:
    """Log-likelihood of each token of given outputs, in nats, where all tokens leave at one layer.

    Args:
        sources: of raw text.

    Returns:
        By exit layer, ascending, the last one included.
    """
    model = loaded.model
    found: dict[int, list[float]] = {layer: [] for layer in model.exit_layers}
    for batch in sources.batches:
        # One by one: the logits of a whole batch at a large vocabulary would fill the memory.
        for row, output in enumerate(batch["given"]):
            ids = batch["input_ids"][row : row + 1]
            labels = torch.tensor([output], device=ids.device)
            states = model.layer_states(ids, None, model.shift_right(labels)).states
            for layer, values in found.items():
                logits = model.layer_logits(states[layer - 1], layer)[0]
                values += log_likelihoods(logits, output)
    return found


Pass = tuple[list[int], Decoded, float]
"""Sources by their place, their outputs, and seconds of decoding."""


def _passes(
    loaded: LoadedDecoder,
    sources: Sources,
    settings: DecodeSettings,
    rule: AdaptiveThreshold | None,
    finished: Callable[[int], None],
) -> Iterator[Pass]:
    """All sources, in parts and in any order."""
    # What an adaptive threshold has learned of one batch holds for the next.
    if loaded.crew is not None and rule is None:
        yield from _of_crew(loaded.crew, sources, settings, finished)
        return
    for rows, run in _runs(loaded, sources, settings, finished):
        started = _now(loaded)
        if rule is not None:
            rule.refit()
        decoded = run()
        if rule is not None and decoded.pairs:
            rule.observe(*zip(*decoded.pairs, strict=True))
        yield rows, decoded, _now(loaded) - started


@dataclass(frozen=True)
class Share:
    """A part of a pass, for a member of a crew.

    Attributes:
        sources: on the CPU; their rows are places in the whole set.
        described: the exit.
        timings: measure the time of each part.
    """

    sources: Sources
    described: dict[str, Any]
    timings: bool


def _of_crew(
    crew: Crew, sources: Sources, settings: DecodeSettings, finished: Callable[[int], None]
) -> Iterator[Pass]:
    described = describe_settings(settings)
    shares = []
    for places in shares_of(sources.batches, crew.size):
        batches = [to_device(sources.batches[at], "cpu") for at in places]
        rows = [sources.rows[at] for at in places]
        part = dataclasses.replace(sources, rows=rows, batches=batches, lengths=[])
        shares.append(Share(part, described, settings.timings))
    counts = [sum(map(len, share.sources.rows)) for share in shares]
    for index, passes in crew.do(shares, counts):
        yield from passes
        finished(counts[index])


def decode_share(loaded: LoadedDecoder, share: Share) -> list[Pass]:
    """What a member of a crew does."""
    settings = settings_from(share.described, loaded, timings=share.timings)
    batches = [to_device(batch, loaded.device) for batch in share.sources.batches]
    sources = dataclasses.replace(share.sources, batches=batches)
    return list(_passes(loaded, sources, settings, None, lambda finished: None))


def decode_batches(loaded: LoadedDecoder, sources: Sources, settings: DecodeSettings) -> Decoded:
    """The computation alone, as :func:`decode_examples` runs it; outputs in the batches' order."""
    runs = [run() for _, run in _runs(loaded, sources, settings, lambda finished: None)]
    counts, timings = runs[0].counts, runs[0].timings
    for decoded in runs[1:]:
        counts = _sum(counts, decoded.counts)
        if timings is not None and decoded.timings is not None:
            timings = _sum(timings, decoded.timings)
    return Decoded([sample for decoded in runs for sample in decoded.samples], counts, timings)


def _runs(
    loaded: LoadedDecoder,
    sources: Sources,
    settings: DecodeSettings,
    finished: Callable[[int], None],
) -> Iterator[tuple[list[int], Callable[[], Decoded]]]:
    """Sources by their place, and what decodes them: all as one stream where that is possible.

    One row at a time has nobody to make room for, FREE learns from batch to batch, and
    self-speculation's rows write to places of their own.
    """
    if sources.batch_size > 1 and not settings.by_batch:
        rows = [row for batch in sources.rows for row in batch]
        yield rows, lambda: loaded.model.decode_many(sources.batches, settings, finished=finished)
        return
    for rows, batch in zip(sources.rows, sources.batches, strict=True):
        yield rows, partial(loaded.model.decode, **batch, settings=settings)
        finished(len(rows))


def _texts(samples: Sequence[str] | Examples) -> tuple[list[str], list[str], str]:
    """Texts, what each is called, and the prefix in front of every one."""
    if not isinstance(samples, Examples):
        return list(samples), [f"Text {number}" for number in range(1, len(samples) + 1)], ""
    names = [f"Sample '{identifier}'" for identifier in samples.dataset["id"]]
    return sources_of(samples), names, str(samples.info.extra.get("source_prefix") or "")


def _now(loaded: LoadedDecoder) -> float:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)
    return time.perf_counter()


def _sum(one: Numbers, other: Numbers) -> Numbers:
    """Two records of numbers, or of lists of numbers of one length, added field by field."""
    added: dict[str, Any] = {}
    for item in dataclasses.fields(one):
        left, right = getattr(one, item.name), getattr(other, item.name)
        added[item.name] = (
            [a + b for a, b in zip(left, right, strict=True)]
            if isinstance(left, list)
            else left + right
        )
    return type(one)(**added)
