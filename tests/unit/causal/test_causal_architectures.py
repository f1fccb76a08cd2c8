"""Every architecture against transformers: outputs of generate, hidden states of forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from causal_tiny import ALL, LAYERS, generated, prompts, tiny

from eexit_cli.models.decoding.settings import DecodeSettings

NEW = 12


@pytest.mark.parametrize("name", ALL)
def test_full_depth_is_generate(tmp_path: Path, name: str) -> None:
    ours, theirs = tiny(tmp_path, name)
    ids, mask = prompts()
    wanted = generated(theirs, ids, mask, NEW)
    decoded = ours.decode(ids, mask, DecodeSettings(max_new_tokens=NEW))
    assert [sample.tokens for sample in decoded.samples] == wanted
    assert all(set(sample.exit_layers) == {LAYERS} for sample in decoded.samples)


@pytest.mark.parametrize("name", ALL)
def test_one_at_a_time_is_the_batch(tmp_path: Path, name: str) -> None:
    ours, theirs = tiny(tmp_path, name)
    ids, mask = prompts()
    wanted = generated(theirs, ids, mask, NEW)
    settings = DecodeSettings(max_new_tokens=NEW)
    for row, length, tokens in zip(ids, mask.sum(dim=1).tolist(), wanted, strict=True):
        assert ours.decode(row[None, :length], None, settings).samples[0].tokens == tokens


@pytest.mark.parametrize("name", ALL)
def test_exits_are_norm_and_head_on_hidden_states(tmp_path: Path, name: str) -> None:
    ours, theirs = tiny(tmp_path, name)
    if name == "gemma2":
        # transformers' eager attention takes a float32 softmax of float64's lowest number.
        ours, theirs = ours.float(), theirs.float()
    ids, mask = prompts(count=3)
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(3, 60, (3, 4), generator=generator)
    states = ours.layer_states(ids, mask, ours.shift_right(labels))
    near = {"rtol": 1e-5, "atol": 1e-5} if name == "gemma2" else {"rtol": 1e-9, "atol": 1e-9}
    for row in range(3):
        length = int(mask[row].sum())
        whole = torch.cat((ids[row, :length], labels[row, :-1]))[None]
        with torch.no_grad():
            out = theirs(whole, output_hidden_states=True)
        for layer in range(1, LAYERS + 1):
            logits = ours.exit_logits(states.states[layer - 1][row])
            if layer == LAYERS:
                wanted = out.logits[0, length - 1 :]
            else:
                hidden = out.hidden_states[layer][0, length - 1 :]
                torch.testing.assert_close(states.residuals[layer - 1][row], hidden, **near)
                wanted = ours.exit_logits(ours.final(hidden))
            torch.testing.assert_close(logits, wanted, **near)
