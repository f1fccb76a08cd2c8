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


def test_counts_are_of_what_ran(tmp_path: Path) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    settings = DecodeSettings(max_new_tokens=NEW, draft_layer=3, draft_tokens=3)
    decoded = ours.decode(ids, mask, settings)
    passes = [one for sample in decoded.samples for one in sample.passes]
    assert any(accepted for _, accepted in passes)
    assert any(accepted < drafted for drafted, accepted in passes)
    counts = decoded.counts
    assert counts.drafted == sum(drafted for drafted, _ in passes)
    assert counts.accepted == sum(accepted for _, accepted in passes)
    assert counts.verifications == len(passes)
    assert counts.tokens == sum(len(sample.tokens) for sample in decoded.samples)
    # A layer is paid for every token that ran it: the newest and each draft, rejected ones too,
    # in the first three layers one by one and in the last together; and the prompts' last tokens.
    ran = sum(drafted + 1 for drafted, _ in passes)
    assert counts.layer_tokens == LAYERS * (ran + len(decoded.samples))
    for sample in decoded.samples:
        written = 1 + sum(accepted + 1 for _, accepted in sample.passes)
        assert written >= len(sample.tokens) > written - sample.passes[-1][1] - 1
        assert set(sample.exit_layers) == {LAYERS}


def test_a_draft_ends_where_it_is_unsure(tmp_path: Path) -> None:
    ours, theirs = tiny(tmp_path, "llama")
    ids, mask = prompts()
    wanted = generated(theirs, ids, mask, NEW)
    longest = {}
    for threshold in (0.0, 0.05, 1.0):
        settings = DecodeSettings(
            max_new_tokens=NEW, draft_layer=3, draft_tokens=5, draft_threshold=threshold
        )
        decoded = ours.decode(ids, mask, settings)
        assert [sample.tokens for sample in decoded.samples] == wanted
        longest[threshold] = [n for sample in decoded.samples for n, _ in sample.passes]
    assert max(longest[0.0]) == 5
    # No token is surer than certain: the first of each draft is its last.
    assert set(longest[1.0]) <= {0, 1}
    assert sum(longest[0.05]) / len(longest[0.05]) < sum(longest[0.0]) / len(longest[0.0])


def test_rules_of_the_generation_settings_hold_for_drafts(tmp_path: Path) -> None:
    ours, theirs = tiny(tmp_path, "llama")
    ids, mask = prompts()
    free = generated(theirs, ids, mask, NEW)
    banned = sorted({tokens[1] for tokens in free if len(tokens) > 1})[:2]
    for model in (ours, theirs):
        model.generation_config.suppress_tokens = banned
        model.generation_config.min_new_tokens = 6
    wanted = generated(theirs, ids, mask, NEW)
    assert wanted != free
    settings = DecodeSettings(max_new_tokens=NEW, draft_layer=2, draft_tokens=3)
    assert [one.tokens for one in ours.decode(ids, mask, settings).samples] == wanted
