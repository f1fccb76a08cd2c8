"""Operations by formula against a count of what runs, one source at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoders import SHAPE, save_decoder
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from eexit_cli.config import EvaluateConfig
from eexit_cli.families.decoders.costs import encoder_flops, token_flops
from eexit_cli.families.decoders.decoding import decode_examples, prepare_sources
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.seq2seq.model import load_decoder

WORDS = ["queue", "knight", "thoroughly"]
EXITS: dict[str, dict[str, Any]] = {
    "full": {},
    "static": {"static_layer": 1},
    "never the last": {"static_layer": 2},
    "shallow and deep": {"confidence": "softmax", "threshold": 1.0, "shallow_layer": 1},
    "shallow": {"confidence": "softmax", "threshold": 0.0, "shallow_layer": 1},
    "some": {"confidence": "softmax", "threshold": 0.5},
    "some, by state": {"confidence": "linear", "threshold": 0.5},
}


@pytest.fixture(scope="module", params=["relu", "gated-gelu"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("flops")
    save_decoder(folder, feed_forward_proj=request.param)
    return load_decoder(EvaluateConfig(model=str(folder), device="cpu", max_new_tokens=8))


@pytest.mark.parametrize("name", EXITS)
def test_the_formula_is_what_runs(name: str, loaded: LoadedDecoder) -> None:
    settings = settings_from(EXITS[name], loaded)
    deepest = set()
    for word in WORDS:
        sources = prepare_sources(loaded, [word], batch_size=1)
        loaded.model.decode(**sources.batches[0], settings=settings)  # weights are rearranged once
        with FlopCounterMode(display=False) as counted:
            decoded = decode_examples(loaded, sources, settings)
        by_formula = token_flops(loaded, decoded, settings) + encoder_flops(loaded, decoded)
        if name == "some, by state":
            # Of its two outputs only the difference is computed, where one is enough.
            asked = sum(min(layer, 2) for layer in decoded.token_layers)
            by_formula -= asked * 2 * SHAPE["d_model"]
        # A waiting token's query is part of the running one's product, and read by nobody.
        unread = decoded.counts.filled * 2 * SHAPE["d_model"] * SHAPE["num_heads"] * SHAPE["d_kv"]
        assert by_formula + unread == counted.get_total_flops() + _fused(loaded, decoded)
        deepest |= {max(layers) for layers in decoded.exit_layers}
    if name in ("static", "shallow"):
        assert deepest == {1}


def _fused(loaded: LoadedDecoder, decoded: Any) -> int:
    """The encoder's attention, where the counter does not see it (on the CPU)."""
    x = torch.ones(1, 1, 2, 4)
    with FlopCounterMode(display=False) as counted:
        scaled_dot_product_attention(x, x, x, attn_mask=x.new_zeros(1, 1, 2, 2), scale=1.0)
    if counted.get_total_flops():
        return 0
    inner, layers = SHAPE["num_heads"] * SHAPE["d_kv"], SHAPE["num_layers"]
    return sum(layers * 2 * 2 * inner * n * n for n in decoded.source_lengths)
