"""What a decoder writes for a text, where each token left, and what every layer would say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from eexit_cli.config.evaluate import PredictConfig
from eexit_cli.config.field import SEQ2SEQ, refuse_unread
from eexit_cli.families.batches import to_device
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.seq2seq.data import prefix_of
from eexit_cli.families.seq2seq.decoding import DecodedSet, decode_examples
from eexit_cli.families.seq2seq.exits import (
    decoder_settings,
    describe_settings,
    full_model,
)
from eexit_cli.families.seq2seq.model import LoadedDecoder, load_decoder
from eexit_cli.models.t5.tracing import IGNORED, trace_tokens

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def run_decoder_prediction(
    config: PredictConfig, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Decode texts.

    Args:
        config: see :class:`PredictConfig`; its model is a decoder and its texts are not empty.
        progress: told about cut texts and calibrated thresholds.

    Returns:
        ``model``, ``num_layers``, ``criterion`` and, per text, ``output``, ``output_full`` (all
        layers), ``mean_exit_layer`` and ``tokens``: of each its text, ``exit_layer``,
        ``confidence`` (None where none was asked) and ``layers``, the token that each layer would
        choose after the same tokens, had all of those gone through every layer.

    Raises:
        UsageError: an empty text, options that cannot be.
    """
    refuse_unread(config, SEQ2SEQ, model=config.model)
    loaded = load_decoder(config, progress=progress)
    prefix = prefix_of(loaded)
    config = with_calibrated(config, loaded, task=None, prefix=prefix, progress=progress)
    settings = decoder_settings(config, loaded)
    sources = [prefix + text for text in config.texts]
    decoded = decode_examples(
        loaded, sources, settings, batch_size=config.batch_size, progress=progress
    )
    full = decode_examples(loaded, sources, full_model(loaded), batch_size=config.batch_size)
    opinions = _opinions(loaded, sources, decoded)
    return {
        "model": loaded.ref.name,
        "num_layers": loaded.num_layers,
        "criterion": describe_settings(settings),
        "results": [
            {
                "text": text,
                "output": decoded.outputs[index],
                "output_full": full.outputs[index],
                "mean_exit_layer": sum(decoded.exit_layers[index])
                / len(decoded.exit_layers[index]),
                "tokens": _tokens(loaded, decoded, index, opinions[index]),
            }
            for index, text in enumerate(config.texts)
        ],
    }


def _opinions(
    loaded: LoadedDecoder, sources: list[str], decoded: DecodedSet
) -> list[list[list[int]]]:
    """Texts x tokens x layers: what each layer would choose after the tokens that were emitted."""
    batch = to_device(loaded.batcher()(sources), loaded.device)
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
    def named(ids: list[int]) -> list[str]:
        return [str(token) for token in loaded.tokenizer.convert_ids_to_tokens(ids)]

    return [
        {
            "token": token,
            "exit_layer": layer,
            "confidence": None if math.isnan(confidence) else confidence,
            "layers": named(layers),
        }
        for token, layer, confidence, layers in zip(
            named(decoded.tokens[index]),
            decoded.exit_layers[index],
            decoded.confidences[index],
            opinions,
            strict=True,
        )
    ]
