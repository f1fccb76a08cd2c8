"""Self-speculation writes what the full model writes, and counts what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
from causal_tiny import ALL, LAYERS, generated, prompts, tiny

from eexit_cli.models.decoding.settings import DecodeSettings

NEW = 14


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("draft", [1, 3])
def test_outputs_are_the_full_models(tmp_path: Path, name: str, draft: int) -> None:
    ours, theirs = tiny(tmp_path, name)
    ids, mask = prompts()
    wanted = generated(theirs, ids, mask, NEW)
    for layer in range(1, LAYERS):
        settings = DecodeSettings(max_new_tokens=NEW, draft_layer=layer, draft_tokens=draft)
        decoded = ours.decode(ids, mask, settings)
        assert [sample.tokens for sample in decoded.samples] == wanted
        length = int(mask[1].sum())
        alone = ours.decode(ids[1:2, :length], None, settings).samples[0]
        assert alone.tokens == wanted[1]
        assert alone.passes == decoded.samples[1].passes
