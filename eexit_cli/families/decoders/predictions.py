"""What a decoder writes for a text, where each token left, and what every layer would say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from eexit_cli.core.answers import Exit
from eexit_cli.families.batches import to_device
from eexit_cli.families.decoders.decoding import DecodedSet, decode_examples
from eexit_cli.families.decoders.exits import full_model
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.decoders.token_names import token_names
from eexit_cli.models.decoding.int8 import FLOAT
from eexit_cli.models.decoding.tracing import IGNORED, trace_tokens

if TYPE_CHECKING:
    from eexit_cli.config.evaluate import PredictConfig
    from eexit_cli.core.protocols import Progress


def opinions(
    loaded: LoadedDecoder, prefix: str, config: PredictConfig, exit: Exit, progress: Progress
) -> list[dict[str, Any]]:
    """See :func:`eexit_cli.pipelines.predict.run_prediction`."""
    sources, size = [prefix + text for text in config.texts], config.batch_size
    decoded = decode_examples(loaded, sources, exit.rule, batch_size=size, progress=progress)
    full = decode_examples(loaded, sources, full_model(loaded), batch_size=size)
    opinions = _opinions(loaded, sources, decoded)
    return [
        {
            "text": text,
            "output": decoded.outputs[index],
            "output_full": full.outputs[index],
            "mean_exit_layer": sum(layers) / len(layers),
            **_passes(decoded, index),
            "tokens": _tokens(loaded, decoded, index, opinions[index]),
        }
        for index, (text, layers) in enumerate(zip(config.texts, decoded.exit_layers, strict=True))
    ]


def _passes(decoded: DecodedSet, index: int) -> dict[str, Any]:
    """What self-speculation drafted and verified, pass by pass; nothing where it did not."""
    passes = decoded.passes[index]
    if not passes:
        return {}
    return {"passes": [{"drafted": drafted, "accepted": accepted} for drafted, accepted in passes]}


def _sources(passes: Sequence[tuple[int, int]], count: int) -> list[str]:
    """Where each token comes from: its prompt's pass, an accepted draft, or a verification."""
    found = ["prompt"]
    for _, accepted in passes:
        found += ["draft"] * accepted + ["verification"]
    return found[:count]


def _opinions(
    loaded: LoadedDecoder, sources: list[str], decoded: DecodedSet
) -> list[list[list[int]]]:
    """Texts x tokens x layers: what each layer would choose after the tokens that were emitted."""
    batch = to_device(loaded.batcher()(sources), loaded.device)
    if loaded.model.weights != FLOAT:
        # transformers' layers, which a trace runs, have the float weights.
        found: list[list[list[int]]] = loaded.model.layer_choices(
            batch["input_ids"],
            batch["attention_mask"],
            decoded.tokens,
            longest=loaded.max_new_tokens,
        )
        return found
    labels = pad_sequence(
        [torch.tensor(ids) for ids in decoded.tokens], batch_first=True, padding_value=IGNORED
    ).to(loaded.device)
    trace = trace_tokens(
        loaded.model,
        batch["input_ids"],
        batch["attention_mask"],
        labels,
        longest=loaded.max_new_tokens,
    )
    return [
        tokens[: len(ids)]
        for tokens, ids in zip(trace.tokens.tolist(), decoded.tokens, strict=True)
    ]


def _tokens(
    loaded: LoadedDecoder, decoded: DecodedSet, index: int, opinions: list[list[int]]
) -> list[dict[str, Any]]:
    passes = decoded.passes[index]
    ids = decoded.tokens[index]
    sources = [{"from": each} for each in _sources(passes, len(ids))] if passes else [{}] * len(ids)
    return [
        {
            "token": token,
            **source,
            "exit_layer": layer,
            "confidence": None if math.isnan(confidence) else confidence,
            "layers": token_names(loaded.tokenizer, layers),
        }
        for source, token, layer, confidence, layers in zip(
            sources,
            token_names(loaded.tokenizer, ids),
            decoded.exit_layers[index],
            decoded.confidences[index],
            opinions,
            strict=True,
        )
    ]
