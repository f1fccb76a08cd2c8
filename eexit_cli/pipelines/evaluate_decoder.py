"""Speed against quality of a decoder whose tokens leave early: the full model once, every setting.

An early token changes what follows, so each setting is decoded anew. All settings share the
tokenised sources and the full model's outputs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.confidence import DECODER_MEASURES
from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.core.digits import exact
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.seed import seed_everything
from eexit_cli.core.types import Examples, RunResult
from eexit_cli.families.calibrated import with_calibrated, without_calibration_samples
from eexit_cli.families.seq2seq.costs import (
    Measured,
    encoder_flops,
    part_seconds,
    score,
    token_flops,
)
from eexit_cli.families.seq2seq.data import load_pairs, own_task, prefix_in, references_of
from eexit_cli.families.seq2seq.decoding import (
    Sources,
    decode_examples,
    prepare_sources,
    sources_of,
)
from eexit_cli.families.seq2seq.exits import (
    decoder_settings,
    describe_settings,
    full_model,
    settings_from,
)
from eexit_cli.families.seq2seq.latency import settled, time_batches, time_singles
from eexit_cli.families.seq2seq.model import LoadedDecoder, load_decoder
from eexit_cli.metrics.generation import References
from eexit_cli.metrics.latency import NOT_TIMED
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.exit_grid import choices, is_grid, values_of
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress, Ticker

SWEEP = tuple(round(0.95 - 0.05 * step, 2) for step in range(19))
"""Thresholds of a sweep, from cautious to eager; the full model comes before them."""

WARM_UP_TOKENS = 4


def run_decoder_evaluation(
    config: EvaluateConfig, *, progress: Progress | None = None
) -> RunResult:
    """Evaluate one setting, several (a row each) or with ``sweep`` every threshold, on text pairs.

    Args:
        config: see :class:`EvaluateConfig`; its model is a decoder.
        progress: where to show it; None is silent.

    Returns:
        The run: metrics of the chosen setting (the first, where options have several values) and
        of the full model, a row per setting where there are several, one record per sample.

    Raises:
        UsageError: options, data or thresholds that cannot be.
        MissingArtifactError: no such model, data or calibration here.
    """
    progress = progress or SilentProgress()
    seed_everything(config.seed)
    refuse_unread(config, SEQ2SEQ, model=config.model)
    loaded = load_decoder(config, progress=progress)
    config = own_task(config, loaded, progress)
    examples = load_pairs(config, loaded, default_split="test", progress=progress)
    prefix = prefix_in(examples)
    for choice in choices(config):
        examples = without_calibration_samples(
            examples, choice, loaded, prefix=prefix, progress=progress
        )
    chosen = [
        with_calibrated(choice, loaded, task=examples.info.name, prefix=prefix, progress=progress)
        for choice in choices(config)
    ]
    settings = [decoder_settings(choice, loaded) for choice in chosen]
    if len(chosen) == 1 and not is_grid(config):
        config = dataclasses.replace(
            chosen[0],
            confidence=_canonical(config.confidence),
            top_k_propagation=config.top_k_propagation,
        )
    rows = _swept(config, loaded) if config.sweep else settings if len(settings) > 1 else []
    data = _Data.of(loaded, examples, config, progress)
    # A file names its own split, which --split does not take: a repeated run must be able to.
    split = config.split if config.data_file else examples.split
    asked = {
        **config.as_dict(),
        "split": split,
        "exit": describe_settings(settings[0]),
        "training_rows": examples.training_rows,
    }
    with ResultStore(config.results_dir).create("evaluate", asked) as run:
        full = data.measure(full_model(loaded), progress, "Full model")
        known = {_key(full.settings): full}
        first = data.measure_new(settings[0], known, progress, "Decoding")
        metrics = first.metrics(loaded, full) | _beside(loaded, first, full)
        metrics |= {
            "truncated": data.sources.truncated,
            "unfinished": first.decoded.unfinished,
            "samples": len(examples),
            "num_layers": loaded.num_layers,
            "batch_size": data.sources.batch_size,
        }
        _append_records(run, loaded, examples, first, full)
        table = data.table(rows, known, full, progress)
        timings = {"full_seconds": full.decoded.seconds, "chosen_seconds": first.decoded.seconds}
        if config.latency_samples > 0:
            started = time.perf_counter()
            # Of a sweep's many settings the chosen one alone is timed one by one.
            single = [full, first] if config.sweep else list(known.values())
            speeds = data.speeds(single, list(known.values()), full, config, progress)
            metrics |= speeds[_key(first.settings)]
            metrics |= _of_full(speeds[_key(full.settings)])
            table = [
                row | speeds[_key(settings)] for row, settings in zip(table, rows, strict=True)
            ]
            timings["latency_seconds"] = time.perf_counter() - started
        else:
            progress.message(NOT_TIMED)
        document = run.finish(metrics=metrics, rows=table, timings=timings)
        return RunResult(document, run.path)


@dataclass(frozen=True)
class _Data:
    """Tokenised sources with the answers that they should have."""

    loaded: LoadedDecoder
    examples: Examples
    sources: Sources
    references: list[References]

    @classmethod
    def of(
        cls, loaded: LoadedDecoder, examples: Examples, config: EvaluateConfig, progress: Progress
    ) -> _Data:
        sources = prepare_sources(loaded, examples, batch_size=config.batch_size, progress=progress)
        # The first call packs the weights; that is not part of anybody's time.
        warm = dataclasses.replace(full_model(loaded), max_new_tokens=WARM_UP_TOKENS)
        loaded.model.decode(**sources.batches[-1], settings=warm)
        return cls(loaded, examples, sources, references_of(examples))

    def measure_new(
        self,
        settings: DecodeSettings,
        known: dict[str, Measured],
        progress: Progress,
        title: str,
    ) -> Measured:
        """:meth:`measure`, once per setting of a run."""
        key = _key(settings)
        if key not in known:
            known[key] = self.measure(settings, progress, title)
        return known[key]

    def table(
        self,
        rows: list[DecodeSettings],
        known: dict[str, Measured],
        full: Measured,
        progress: Progress,
    ) -> list[dict[str, Any]]:
        """Every setting with its metrics, under one bar."""
        if not rows:
            return []
        found = []
        with progress.task("Settings", total=len(rows) * len(self.sources)) as ticker:
            for settings in rows:
                if _key(settings) in known:
                    ticker.advance(len(self.sources))
                measured = self.measure_new(
                    settings, known, _Within(progress, ticker), _title(settings)
                )
                found.append({**describe_settings(settings), **measured.metrics(self.loaded, full)})
        return found

    def speeds(
        self,
        single: Sequence[Measured],
        batched: Sequence[Measured],
        full: Measured,
        config: EvaluateConfig,
        progress: Progress,
    ) -> dict[str, dict[str, float]]:
        """Measured speed by setting, all in turn: one by one, and at the batch size used."""
        one, many = (
            {_key(item.settings): settled(item) for item in timed} for timed in (single, batched)
        )
        whole = _key(full.settings)
        alone = time_singles(self.loaded, self.examples, one, whole, config, progress)
        size = self.sources.batch_size
        together = time_batches(self.loaded, self.examples, many, whole, size, config, progress)
        return {key: figures | alone.get(key, {}) for key, figures in together.items()}

    def measure(self, settings: DecodeSettings, progress: Progress, title: str) -> Measured:
        """Decode with a setting, time its parts and judge its outputs.

        On a CPU the clock readings cost under 1 % at batch 32, so that one pass gives all
        times; elsewhere each reading waits for the device, so that the parts need a second pass.
        """
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
        scores = score(self.examples.info, decoded.outputs, self.references)
        return Measured(settings, decoded, timings, scores)


class _Within:
    """Work that moves a bar which is there already, and names itself beside it."""

    def __init__(self, progress: Progress, ticker: Ticker) -> None:
        self._progress = progress
        self._ticker = ticker

    def message(self, text: str) -> None:
        self._progress.message(text)

    @contextmanager
    def task(self, title: str, total: int | None = None) -> Iterator[Ticker]:
        self._ticker.update(note=title)
        yield self._ticker


def _canonical(confidence: Any) -> Any:
    if confidence is None:
        return None
    if isinstance(confidence, tuple):
        return tuple(DECODER_MEASURES.canonical(name) for name in confidence)
    return DECODER_MEASURES.canonical(confidence)


def _key(settings: DecodeSettings) -> str:
    return str(sorted(describe_settings(settings).items()))


def _title(settings: DecodeSettings) -> str:
    """What a row is called while it runs."""
    described = describe_settings(settings)
    if "static_layer" in described:
        return f"layer {described['static_layer']}"
    if "confidence" not in described:
        return "full model"
    top_k = f", top {settings.top_k}" if settings.top_k else ""
    return f"{described['confidence']} {exact(described['threshold'])}{top_k}"


def _swept(config: EvaluateConfig, loaded: LoadedDecoder) -> list[DecodeSettings]:
    """The full model, then every threshold of every measure; without --confidence also the static
    layers.

    Raises:
        UsageError: a measure whose classifier the model lacks, or top-k propagation of another
            measure than softmax.
    """
    asked = [DECODER_MEASURES.canonical(name) for name in values_of(config, "confidence")]
    untrained = [name for name in DECODER_MEASURES if name in ("softmax", "saturation")]
    names = asked or [*untrained, *loaded.model.config.classifiers]
    swept = [full_model(loaded)]
    for name in names:
        # Where every measure is meant, K says something about one of them alone.
        meant = bool(asked) or name == "softmax"
        for top_k in (values_of(config, "top_k_propagation") if meant else []) or [None]:
            for threshold in SWEEP:
                choice: Any = dataclasses.replace(
                    config,
                    confidence=name,
                    threshold=threshold,
                    top_k_propagation=top_k,
                    static_layer=None,
                )
                swept.append(decoder_settings(choice, loaded))
    if not asked:
        for layer in range(loaded.num_layers - 1, 0, -1):
            swept.append(settings_from({"static_layer": layer}, loaded))
    return swept


def _of_full(speed: Mapping[str, float]) -> dict[str, float]:
    """The full model's own speed, in the names that stand beside the chosen setting's."""
    names = ("tokens_per_second", "tokens_per_second_low", "tokens_per_second_high")
    return {f"{name}_full": speed[name] for name in names}


def _beside(loaded: LoadedDecoder, first: Measured, full: Measured) -> dict[str, float]:
    """The full model's figures, and what only the chosen setting has."""
    decoded = full.decoded
    tokens = decoded.counts.tokens
    encoder = encoder_flops(loaded, decoded)
    work = {
        name: (token_flops(loaded, item.decoded, item.settings) + encoder) / len(decoded)
        for name, item in (("flops_per_sample", first), ("flops_full", full))
    }
    return {
        **{f"{name}_full": value for name, value in full.scores.corpus.items()},
        "tokens_per_second_full": decoded.tokens_per_second,
        "flops_per_token_full": token_flops(loaded, decoded, full.settings) / tokens,
        **work,
        "seconds_full": decoded.seconds,
        **{f"{name}_full": value for name, value in part_seconds(full.timings).items()},
        "tokens_full": tokens,
    }


def _append_records(
    run: Run, loaded: LoadedDecoder, examples: Examples, first: Measured, full: Measured
) -> None:
    """One record per sample: both outputs, and where each token of the early one left."""
    columns = examples.dataset
    sources, targets = sources_of(examples), list(columns["target"])
    for index, identifier in enumerate(columns["id"]):
        layers = first.decoded.exit_layers[index]
        run.append(
            {
                "id": identifier,
                "source": sources[index],
                "target": targets[index],
                "output": first.decoded.outputs[index],
                "output_full": full.decoded.outputs[index],
                "tokens": loaded.tokenizer.convert_ids_to_tokens(first.decoded.tokens[index]),
                "exit_layers": layers,
                "mean_exit_layer": sum(layers) / len(layers),
                **first.scores.samples[index],
                **{f"{name}_full": value for name, value in full.scores.samples[index].items()},
            }
        )
