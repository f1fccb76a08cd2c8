"""The bundled decoder: transformers' own tokens at full depth, the same outputs at any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eexit_cli.config import EvaluateConfig
from eexit_cli.data import load_examples
from eexit_cli.families.decoders.decoding import decode_examples, sources_of
from eexit_cli.families.decoders.exits import settings_from
from eexit_cli.families.decoders.loaded import LoadedDecoder
from eexit_cli.families.seq2seq.model import load_decoder

WORDS = 48


@pytest.fixture(scope="module")
def words() -> list[str]:
    config = EvaluateConfig(model="calm", task="pronunciation", limit=WORDS)
    return sources_of(load_examples(config, default_split="test", generates=True))


@pytest.fixture(scope="module")
def loaded() -> LoadedDecoder:
    return load_decoder(EvaluateConfig(model="calm", device="cpu", dtype="float64"))


@pytest.mark.parametrize("batch_size", [1, 7, WORDS])
@pytest.mark.parametrize("settings", [{}, {"confidence": "softmax", "threshold": 1.0}])
def test_full_depth_is_transformers_greedy(
    loaded: LoadedDecoder, words: list[str], batch_size: int, settings: dict[str, Any]
) -> None:
    ours = decode_examples(
        loaded, words, settings_from(settings, loaded), batch_size=batch_size
    ).tokens
    batch = loaded.tokenizer(words, padding=True, return_tensors="pt")
    assert not bool(batch["attention_mask"].all())
    made = loaded.model.generate(
        **batch, do_sample=False, num_beams=1, max_new_tokens=loaded.max_new_tokens
    )
    # Shape: [words, tokens]; the start token is no output, padding follows the end.
    end = loaded.tokenizer.eos_token_id
    for mine, theirs in zip(ours, made[:, 1:].tolist(), strict=True):
        assert mine == theirs[: theirs.index(end) + 1]


@pytest.mark.parametrize("measure", ["softmax", "saturation", "linear", "transformer_mlp_64"])
def test_outputs_do_not_depend_on_the_batch(
    loaded: LoadedDecoder, words: list[str], measure: str
) -> None:
    settings = settings_from({"confidence": measure, "threshold": 0.8}, loaded)
    alone = decode_examples(loaded, words, settings, batch_size=1)
    together = decode_examples(loaded, words, settings, batch_size=32)
    assert alone.tokens == together.tokens
    assert alone.exit_layers == together.exit_layers
    assert len(set(alone.token_layers)) > 1


def test_every_layer_answers(loaded: LoadedDecoder) -> None:
    decoded = decode_examples(
        loaded, ["knight", "banana"], settings_from({"static_layer": 2}, loaded)
    )
    assert decoded.outputs == ["N AY T", "B AH N AE N AH"]
    assert torch.tensor(decoded.token_layers).eq(2).all()
