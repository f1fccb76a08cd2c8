"""Exits with norms, heads and layers of their own, against models that end at the exit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_exits_tiny import KINDS, Original, made
from causal_tiny import VOCABULARY, generated, prompts, tiny

from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.causal.layouts import load_causal
from eexit_cli.models.decoding.settings import DecodeSettings

NEW = 10
SPLIT = ((0, 2), (2, 5))
THRESHOLDS = {"softmax": 0.03, "saturation": 0.7}


def lengths(mask: torch.Tensor) -> list[int]:
    return [int(length) for length in mask.sum(dim=1)]


def eager(measure: str = "softmax", **more: Any) -> DecodeSettings:
    rule = TokenThreshold(THRESHOLDS[measure])
    return DecodeSettings(max_new_tokens=NEW, measure=build_measure(measure), rule=rule, **more)


@pytest.mark.parametrize("name", KINDS)
def test_the_full_model_is_generate(tmp_path: Path, name: str) -> None:
    ours, original = made(tmp_path, name)
    ids, mask = prompts()
    decoded = ours.decode(ids, mask, DecodeSettings(max_new_tokens=NEW))
    assert [sample.tokens for sample in decoded.samples] == generated(
        original.cut(), ids, mask, NEW
    )
    with torch.no_grad():
        whole = ours(ids[:1, : lengths(mask)[0]]).logits
        torch.testing.assert_close(whole, original.cut()(ids[:1, : lengths(mask)[0]]).logits)


@pytest.mark.parametrize("name", KINDS)
def test_a_static_exit_is_a_model_that_ends_there(tmp_path: Path, name: str) -> None:
    ours, original = made(tmp_path, name)
    ids, mask = prompts()
    for layer in KINDS[name].layers:
        wanted = generated(original.cut(layer), ids, mask, NEW)
        settings = DecodeSettings(max_new_tokens=NEW, static_layer=layer)
        decoded = ours.decode(ids, mask, settings)
        assert [sample.tokens for sample in decoded.samples] == wanted
        assert {one for sample in decoded.samples for one in sample.exit_layers} == {layer}
        alone = ours.decode(ids[3:4, : lengths(mask)[3]], None, settings).samples[0]
        assert alone.tokens == wanted[3]
        batches = [{"input_ids": ids[a:b], "attention_mask": mask[a:b]} for a, b in SPLIT]
        streamed = ours.decode_many(batches, settings).samples
        assert [sample.tokens for sample in streamed] == wanted
        per_token = layer + KINDS[name].layer
        assert decoded.counts.layer_tokens == per_token * sum(map(len, wanted))


@pytest.mark.parametrize("name", KINDS)
def test_logits_of_an_exit_are_those_of_a_model_that_ends_there(tmp_path: Path, name: str) -> None:
    ours, original = made(tmp_path, name)
    ids, mask = prompts(count=3)
    labels = torch.randint(3, VOCABULARY, (3, 4), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        states = ours.layer_states(ids, mask, ours.shift_right(labels))
    for layer in (*KINDS[name].layers, 4):
        theirs = original.cut(None if layer == 4 else layer)
        for row, length in enumerate(lengths(mask)):
            whole = torch.cat((ids[row, :length], labels[row, :-1]))[None]
            with torch.no_grad():
                wanted = theirs(whole).logits[0, length - 1 :]
                logits = ours.layer_logits(states.states[layer - 1][row], layer)
            torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("measure", ["softmax", "saturation"])
def test_early_exits_are_the_same_at_any_batch_size(
    tmp_path: Path, name: str, measure: str
) -> None:
    ours, _ = made(tmp_path, name)
    ids, mask = prompts()
    together = ours.decode(ids, mask, eager(measure)).samples
    left = {layer for sample in together for layer in sample.exit_layers}
    assert left <= {*KINDS[name].layers, 4}
    assert len(left) > 1
    alone = [
        ours.decode(row[None, :length], None, eager(measure)).samples[0]
        for row, length in zip(ids, lengths(mask), strict=True)
    ]
    batches = [{"input_ids": ids[a:b], "attention_mask": mask[a:b]} for a, b in SPLIT]
    streamed = ours.decode_many(batches, eager(measure)).samples
    filled = ours.decode(ids, mask, eager(measure, filling="immediate", timings=True)).samples
    for others in (alone, streamed, filled):
        for one, other in zip(together, others, strict=True):
            assert one.tokens == other.tokens
            assert one.exit_layers == other.exit_layers
            torch.testing.assert_close(
                torch.tensor(one.confidences), torch.tensor(other.confidences), equal_nan=True
            )


def recomputed(original: Original, prompt: list[int], sample: Any) -> list[torch.Tensor]:
    """Logits of every token of an output, layer by layer over all tokens so far.

    What a layer reads of an earlier token is what came out of the layer before it or, where the
    token left before, the state that it left with.
    """
    base, kind, depth = original.base.model, original.kind, original.depth
    tokens = [*prompt, *sample.tokens[:-1]]
    left = [depth] * len(prompt) + sample.exit_layers[1:]
    # What each layer reads, token by token.
    read: list[list[torch.Tensor]] = [[] for _ in range(depth + 1)]
    found = []
    for at, token in enumerate(tokens):
        x = base.embed_tokens.weight[token]
        for layer in range(depth + 1):
            if 0 < layer <= left[at]:
                x = last_of(base, base.layers[layer - 1], read[layer - 1])
            read[layer].append(x)
        exit_layer = left[at] if at >= len(prompt) else depth
        if at < len(prompt) - 1:
            continue
        if exit_layer == depth:
            found.append(original.base.lm_head(base.norm(x)))
            continue
        if kind.layer:
            x = last_of(base, original.blocks[exit_layer], read[exit_layer])
        if kind.norm:
            x = x * torch.rsqrt(x.pow(2).mean() + 1e-5) * original.norms[exit_layer]
        found.append(
            (original.heads[exit_layer] if kind.head else original.base.lm_head.weight) @ x
        )
    return found


def last_of(base: Any, layer: Any, states: list[torch.Tensor]) -> torch.Tensor:
    """A layer on a whole sequence of states; its output for the last one."""
    x = torch.stack(states)[None]
    places = torch.arange(len(states))[None]
    mask = torch.full((1, 1, len(states), len(states)), -1e30).double().triu(1)
    out = layer(x, attention_mask=mask, position_embeddings=base.rotary_emb(x, places))
    return (out[0] if isinstance(out, tuple) else out)[0, -1]


@pytest.mark.parametrize("name", ["balcony", "balcony-untied", "ee-llm", "ee-llm-block"])
def test_tokens_are_those_of_states_handed_on(tmp_path: Path, name: str) -> None:
    ours, original = made(tmp_path, name)
    original.base.config._attn_implementation = "sdpa"
    ids, mask = prompts(count=3)
    for row, sample in enumerate(ours.decode(ids, mask, eager()).samples):
        prompt = ids[row, : lengths(mask)[row]].tolist()
        with torch.no_grad():
            logits = recomputed(original, prompt, sample)
        assert [int(one.argmax()) for one in logits] == sample.tokens
        for one, sure in zip(logits, sample.confidences, strict=True):
            if not math.isnan(sure):
                # transformers takes norms in float32.
                top = one.softmax(dim=-1).topk(2).values
                assert float(top[0] - top[1]) == pytest.approx(sure, abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_drafts_of_an_exit_change_no_output(tmp_path: Path, name: str) -> None:
    ours, original = made(tmp_path, name)
    ids, mask = prompts()
    wanted = generated(original.cut(), ids, mask, NEW)
    for layer in KINDS[name].layers:
        settings = DecodeSettings(max_new_tokens=NEW, draft_layer=layer, draft_tokens=3)
        samples = ours.decode(ids, mask, settings).samples
        assert [sample.tokens for sample in samples] == wanted
        alone = ours.decode(ids[1:2, : lengths(mask)[1]], None, settings).samples[0]
        assert alone.passes == samples[1].passes
        for row, (length, sample) in enumerate(zip(lengths(mask), samples, strict=True)):
            # The first draft follows the full model's first token.
            first = torch.cat((ids[row, :length], torch.tensor(wanted[row][:1])))[None]
            own = generated(original.cut(layer), first, torch.ones_like(first), 3)[0]
            same = [a == b for a, b in zip(own, wanted[row][1:], strict=False)]
            accepted = same.index(False) if False in same else len(same)
            assert sample.passes[0] == (len(own), accepted)


@pytest.mark.parametrize("name", KINDS)
def test_saved_and_loaded(tmp_path: Path, name: str) -> None:
    ours, _ = made(tmp_path / "theirs", name)
    ours.save_pretrained(tmp_path / "ours")
    again = load_causal(tmp_path / "ours", build_classifier=build_classifier, dtype="float64")
    assert again.config.exit_modules == ours.config.exit_modules
    assert again.config.training == ours.config.training
    assert again.state_dict().keys() == ours.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize("name", ["balcony", "balcony-norm"])
def test_top_k_keeps_rows_of_the_shared_head(tmp_path: Path, name: str) -> None:
    ours, _ = made(tmp_path, name)
    ids, mask = prompts()
    kept = ours.decode(ids, mask, eager(top_k=VOCABULARY - 1)).samples
    whole = ours.decode(ids, mask, eager()).samples
    assert [one.tokens for one in kept] == [one.tokens for one in whole]


def test_layers_without_an_exit_are_refused(tmp_path: Path) -> None:
    ours, _ = made(tmp_path / "own", "ee-llm")
    ids, mask = prompts(count=1)
    for settings, match in (
        (DecodeSettings(static_layer=2), "Static layer 2 has no exit"),
        (DecodeSettings(draft_layer=2), "Exit layer 2 has no exit"),
        (eager(top_k=5), "Top-k propagation keeps rows of one LM head"),
    ):
        with pytest.raises(UsageError, match=match):
            ours.decode(ids, mask, settings)
    plain, _ = tiny(tmp_path / "plain", "llama-plain")
    assert plain.config.exit_layers == (1, 2, 3, 4)
    assert ours.config.exit_layers == (1, 3, 4)
