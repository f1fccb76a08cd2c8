"""What a decoded data set cost and was worth, in the flat names of ``all_results.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from eexit_cli.core.types import TaskInfo
from eexit_cli.families.decoders.decoding import DecodedSet
from eexit_cli.families.decoders.texts import agreement
from eexit_cli.metrics.depth import depth_metrics, histogram
from eexit_cli.metrics.generation import GenerationScores, References, score_generation
from eexit_cli.models.decoding.results import DecodeCounts
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.families.decoders.loaded import LoadedDecoder
    from eexit_cli.models.decoding.decoder import Flops
    from eexit_cli.models.decoding.results import DecodeTimings


@dataclass(frozen=True)
class Measured:
    """One setting on one data set.

    Attributes:
        settings: how it was decoded.
        decoded: the outputs.
        timings: seconds by part; of the same pass on a CPU, of a second one elsewhere.
        scores: quality.
    """

    settings: DecodeSettings
    decoded: DecodedSet
    timings: DecodeTimings
    scores: GenerationScores

    def metrics(self, loaded: LoadedDecoder, full: Measured) -> dict[str, float]:
        """Flat metrics, the task's first: quality, depth, agreement, work, times of the pass.

        One pass shows where its time went. It compares with no other pass: ``decoder_latency``
        does that, with figures that take the place of these.

        Args:
            loaded: the model.
            full: the full model on the same data.
        """
        decoded, depth = self.decoded, loaded.num_layers
        tokens = decoded.counts.tokens
        work = token_flops(loaded, decoded, self.settings) / tokens
        adapted = decoded.threshold
        return {
            **self.scores.corpus,
            **depth_metrics(decoded.token_layers, depth),
            "agreement": agreement(decoded, full.decoded),
            **({} if adapted is None else {"adapted_threshold": adapted}),
            "tokens_per_second": decoded.tokens_per_second,
            "flops_per_token": work,
            "seconds": decoded.seconds,
            **part_seconds(self.timings),
            **layer_milliseconds(
                self.timings,
                decoded.stepped_layers(loaded.model.prompted),
                decoded.counts.layer_tokens,
                self.settings,
                depth,
            ),
            "tokens": tokens,
            "layers_run_per_token": decoded.counts.layer_tokens / tokens,
            **speculation_figures(decoded.counts, len(decoded)),
            **{
                f"exited_at_{layer}": count
                for layer, count in enumerate(histogram(decoded.token_layers, depth), start=1)
            },
        }


def speculation_figures(counts: DecodeCounts, outputs: int) -> dict[str, float]:
    """What drafts were worth; nothing where there were none.

    Args:
        outputs: each begins with a token that comes from its prompt's pass, not a verification.

    Returns:
        ``acceptance_rate`` (accepted of the drafted tokens; 0 where none was drafted),
        ``tokens_per_verification``, ``drafted_tokens``, ``accepted_tokens``, ``verifications``.
    """
    if not counts.verifications:
        return {}
    return {
        "acceptance_rate": counts.accepted / counts.drafted if counts.drafted else 0.0,
        "tokens_per_verification": (counts.tokens - outputs) / counts.verifications,
        "drafted_tokens": counts.drafted,
        "accepted_tokens": counts.accepted,
        "verifications": counts.verifications,
    }


def score(
    info: TaskInfo, outputs: Sequence[str], references: Sequence[References]
) -> GenerationScores:
    """Quality of outputs: of the corpus and of each sample."""
    return score_generation(info, outputs, references)


def part_seconds(timings: DecodeTimings) -> dict[str, float]:
    """Where the time went; together nearly all of ``seconds``."""
    return {
        "encoder_seconds": timings.encoder,
        "decoder_seconds": sum(timings.layers),
        "filling_seconds": timings.filling,
        "confidence_seconds": sum(timings.confidence),
        "head_seconds": timings.head,
        "other_seconds": timings.other,
    }


def layer_milliseconds(
    timings: DecodeTimings,
    token_layers: Sequence[int],
    layer_tokens: int,
    settings: DecodeSettings,
    num_layers: int,
) -> dict[str, float]:
    """Milliseconds of each layer, and of the confidence after it, per token that reached it.

    Args:
        timings: of one pass.
        token_layers: where each of its tokens left.
        layer_tokens: layers that it ran, one token each.
        settings: how it decoded.
        num_layers: L.

    Returns:
        ``decoder_ms_layer_i`` and ``confidence_ms_layer_i``; a layer that no token reached, or
        that no confidence is asked after, has none.
    """
    if settings.draft_layer is not None:
        return {}  # its layers run over drafts, in passes
    left = histogram(token_layers, num_layers)
    reached = [sum(left[layer:]) for layer in range(num_layers)]
    if settings.shallow_layer is not None:
        deep = layer_tokens - settings.shallow_layer * sum(left)
        beyond = num_layers - settings.shallow_layer
        reached[settings.shallow_layer :] = [deep // beyond] * beyond
    found: dict[str, float] = {}
    for layer, count in enumerate(reached, start=1):
        if count:
            found[f"decoder_ms_layer_{layer}"] = 1000 * timings.layers[layer - 1] / count
    for layer, count in enumerate(reached, start=1):
        if count and timings.confidence[layer - 1] > 0:
            found[f"confidence_ms_layer_{layer}"] = 1000 * timings.confidence[layer - 1] / count
    return found


def token_flops(loaded: LoadedDecoder, decoded: DecodedSet, settings: DecodeSettings) -> int:
    """Operations of all output tokens, by formula; the encoder's pass is not part of it.

    A token that FREE stacked and ran deep later counts with all its layers.
    """
    shape = loaded.model.flops()
    counts = decoded.counts
    total = counts.filled * shape.fill + counts.head_rows * shape.head()
    total += counts.kept_rows * shape.head(settings.top_k or 0)
    total += _confidence_flops(loaded, decoded, settings)
    if loaded.model.prompted:
        total += _own_layers(shape, loaded, decoded)
    lengths = decoded.source_lengths
    if settings.draft_layer is not None:
        runs = zip(decoded.passes, lengths, strict=True)
        return total + sum(_speculated(shape, loaded, settings, *run) for run in runs)
    for layers, source in zip(decoded.exit_layers, lengths, strict=True):
        for position, layer in enumerate(_executed(layers, loaded.num_layers, settings)):
            total += layer * shape.decoder_layer(position, source)
    return total


def _own_layers(shape: Flops, loaded: LoadedDecoder, decoded: DecodedSet) -> int:
    """Decoder layers that belong to exits (EE-LLM, Balcony), each taken at the mean position.

    They are what was run beyond the layers of the stack; a model without any has run none.
    """
    counts = decoded.counts
    stack = sum(map(sum, decoded.exit_layers))
    if counts.verifications:
        passes = counts.drafted + counts.verifications
        stack = loaded.num_layers * (len(decoded) + passes)
    extra = counts.layer_tokens - stack
    if extra <= 0:
        return 0
    position = max(1, counts.tokens // (2 * len(decoded)))
    source = sum(decoded.source_lengths) // len(decoded)
    return extra * shape.decoder_layer(position, source)


def _speculated(
    shape: Flops,
    loaded: LoadedDecoder,
    settings: DecodeSettings,
    passes: Sequence[tuple[int, int]],
    source: int,
) -> int:
    """All layers of the newest token and of every draft, whether accepted or not."""
    total, newest = 0, 1
    for drafted, accepted in passes:
        for position in range(newest, newest + drafted + 1):
            total += loaded.num_layers * shape.decoder_layer(position, source)
        newest += accepted + 1
    return total


def encoder_flops(loaded: LoadedDecoder, decoded: DecodedSet) -> int:
    """Operations of the encoder on all sources, with the keys and values for cross-attention.

    Each source counts as it would alone: in a batch, a layer that one output reaches makes them
    for all of its sources.
    """
    shape = loaded.model.flops()
    return sum(
        shape.encoder(length, max(layers))
        for length, layers in zip(decoded.source_lengths, decoded.exit_layers, strict=True)
    )


def _executed(layers: Sequence[int], num_layers: int, settings: DecodeSettings) -> list[int]:
    """Layers that each token of an output ran in the end."""
    if settings.shallow_layer is None:
        return list(layers)
    deepest = max((at for at, layer in enumerate(layers) if layer == num_layers), default=-1)
    return [num_layers if at <= deepest else layer for at, layer in enumerate(layers)]


def _confidence_flops(loaded: LoadedDecoder, decoded: DecodedSet, settings: DecodeSettings) -> int:
    """Of a trained classifier, as it is defined; the other measures' own is below one percent."""
    name = None if settings.measure is None else settings.measure.name
    if name is None or name not in loaded.model.cm_heads:
        return 0
    classifier = loaded.model.cm_heads[name]
    maps = sum(
        2 * part.weight.numel() for part in classifier.modules() if isinstance(part, nn.Linear)
    )
    width = getattr(classifier, "width", None)
    if width is not None:
        maps += 2 * 3 * width * width  # the attention's own projections of query, key and value
    total = 0
    for layers in decoded.exit_layers:
        for position, layer in enumerate(layers):
            if loaded.model.prompted and position == 0:
                continue  # it comes from the prompt's pass through all layers
            asked = _times_asked(layer, loaded.num_layers, settings)
            scores = 0 if width is None else 2 * 2 * width * (position + 1)
            total += asked * (maps + scores)
    return total


def _times_asked(layer: int, num_layers: int, settings: DecodeSettings) -> int:
    """Layers after which a token that left at ``layer`` was asked for its confidence."""
    if settings.shallow_layer is not None:
        return 1
    return max(0, min(layer, num_layers - 1) - settings.min_layer + 1)
