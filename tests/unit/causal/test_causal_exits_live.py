"""Live early exits against a decoder written out token by token, and batches against rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from causal_tiny import ALL, END, LAYERS, prompts, tiny
from torch import Tensor

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.settings import DecodeSettings

NEW = 10


def with_classifiers(model: Any) -> Any:
    torch.manual_seed(3)
    for name in CLASSIFIERS:
        classifier = build_classifier(name, model.state_width)
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.normal_(0.0, 0.4)
        model.add_classifier(name, classifier.double())
    return model.eval()


def residuals(model: Any, ids: list[int], prompt: int, left: list[int]) -> list[Tensor]:
    """Every layer's output of the last token, where tokens behind the prompt handed on the state
    that they left with.

    Args:
        ids: prompt and output so far.
        prompt: tokens of the prompt.
        left: exit layer of each token behind it that was read, but the last.

    Returns:
        Of the last token. Shape: layers x [d]. The layers are transformers' own, run one after the
        other over the whole sequence; a state is put back where its token had left.
    """
    sequence = torch.tensor([ids])
    kept: list[Tensor] = []
    before: list[Tensor] = []

    def put_back(module: Any, inputs: Any, output: Any) -> Any:
        made = output[0] if isinstance(output, tuple) else output
        layer = len(kept) + 1
        made = made.clone()
        for offset, exit_layer in enumerate(left):
            if layer > exit_layer:
                made[0, prompt + offset] = before[-1][0, prompt + offset]
        kept.append(made[0, -1].clone())
        before.append(made)
        return (made, *output[1:]) if isinstance(output, tuple) else made

    handles = [layer.register_forward_hook(put_back) for layer in model.layers]
    try:
        with torch.no_grad():
            model.body(sequence, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def written_out(
    model: Any, ids: list[int], threshold: float, first: int
) -> tuple[list[int], list[int]]:
    """Tokens and exit layers under softmax response (p1 - p2 above a threshold)."""
    tokens: list[int] = []
    layers: list[int] = []
    while len(tokens) < NEW:
        states = residuals(model, [*ids, *tokens], len(ids), layers[1:])
        chosen = LAYERS
        if tokens:  # the first token comes from the prompt's pass
            for layer in range(first, LAYERS):
                with torch.no_grad():
                    logits = model.exit_logits(model.final(states[layer - 1]))
                top = torch.softmax(logits, -1).topk(2)
                if float(top.values[0] - top.values[1]) > threshold:
                    chosen = layer
                    break
        token = int(model.exit_logits(model.final(states[chosen - 1])).argmax())
        tokens.append(token)
        layers.append(chosen)
        if token == END:
            break
    return tokens, layers


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "gpt2", "gpt_neox", "opt", "qwen3"])
def test_live_exits_are_the_definition(tmp_path: Path, name: str) -> None:
    ours, _ = tiny(tmp_path, name)
    ids, mask = prompts(count=3, longest=6)
    threshold = 0.05 if name != "gemma2" else 0.02
    settings = DecodeSettings(
        max_new_tokens=NEW,
        measure=build_measure("softmax"),
        rule=TokenThreshold(threshold),
        min_layer=2,
    )
    decoded = ours.decode(ids, mask, settings).samples
    seen: set[int] = set()
    for row, sample in enumerate(decoded):
        prompt = ids[row, : int(mask[row].sum())].tolist()
        assert (sample.tokens, sample.exit_layers) == written_out(ours, prompt, threshold, 2)
        assert sample.exit_layers[0] == LAYERS
        seen |= set(sample.exit_layers)
    assert len(seen) > 1


@pytest.mark.parametrize("measure", ["softmax", "saturation", *CLASSIFIERS])
@pytest.mark.parametrize("filling", ["lazy", "immediate"])
def test_batch_and_stream_are_one_by_one(tmp_path: Path, measure: str, filling: Any) -> None:
    ours, _ = tiny(tmp_path, "llama")
    with_classifiers(ours)
    batches = [prompts(count=6, seed=seed, longest=7 - seed) for seed in range(4)]
    threshold = {"softmax": 0.03, "saturation": 0.9}.get(measure, 0.5)
    settings = DecodeSettings(
        max_new_tokens=NEW,
        measure=build_measure(measure, dict(ours.cm_heads.items())),
        rule=TokenThreshold(threshold),
        filling=filling,
    )
    alone = []
    for ids, mask in batches:
        for row in range(len(ids)):
            length = int(mask[row].sum())
            alone += ours.decode(ids[row : row + 1, :length], None, settings).samples
    together = [
        sample for ids, mask in batches for sample in ours.decode(ids, mask, settings).samples
    ]
    streamed = ours.decode_many(
        [{"input_ids": ids, "attention_mask": mask} for ids, mask in batches], settings
    ).samples
    for found in (together, streamed):
        assert [one.tokens for one in found] == [one.tokens for one in alone]
        assert [one.exit_layers for one in found] == [one.exit_layers for one in alone]
    assert len({layer for one in alone for layer in one.exit_layers}) > 1


@pytest.mark.parametrize("name", ALL)
def test_a_static_exit_is_the_model_cut_off_there(tmp_path: Path, name: str) -> None:
    ours, _ = tiny(tmp_path, name)
    ids, mask = prompts(count=3)
    for layer in (1, LAYERS - 1):
        settings = DecodeSettings(max_new_tokens=NEW, static_layer=layer)
        sample = ours.decode(ids, mask, settings).samples[0]
        row = ids[0, : int(mask[0].sum())].tolist()
        for token in sample.tokens:
            state = residuals(ours, row, len(row), [])[layer - 1]
            assert int(ours.exit_logits(ours.final(state)).argmax()) == token
            row.append(token)
        assert set(sample.exit_layers) == {layer}


def test_top_k_keeps_the_tokens_of_the_first_layer(tmp_path: Path) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    common: dict[str, Any] = {
        "max_new_tokens": NEW,
        "measure": build_measure("softmax"),
        "rule": TokenThreshold(0.05),
    }
    whole = ours.decode(ids, mask, DecodeSettings(**common, top_k=61)).samples
    plain = ours.decode(ids, mask, DecodeSettings(**common)).samples
    assert [one.tokens for one in whole] == [one.tokens for one in plain]
    few = ours.decode(ids, mask, DecodeSettings(**common, top_k=2))
    assert few.counts.kept_rows > 0
    alone = ours.decode(ids[:1], mask[:1], DecodeSettings(**common, top_k=2)).samples[0]
    assert alone.tokens == few.samples[0].tokens


def whole(model: Any, ids: list[int], prompt: int, left: list[int]) -> list[Tensor]:
    """As :func:`residuals`, of every token from the prompt's last one on.

    Shape: layers x [tokens, d].
    """
    kept: list[Tensor] = []

    def put_back(module: Any, inputs: Any, output: Any) -> Any:
        made = (output[0] if isinstance(output, tuple) else output).clone()
        for offset, exit_layer in enumerate(left):
            if len(kept) >= exit_layer:
                made[0, prompt + offset] = kept[-1][0, prompt + offset]
        kept.append(made)
        return (made, *output[1:]) if isinstance(output, tuple) else made

    handles = [layer.register_forward_hook(put_back) for layer in model.layers]
    try:
        with torch.no_grad():
            model.body(torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [made[0, prompt - 1 :] for made in kept]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_sees_what_it_was_trained_on(tmp_path: Path, name: str) -> None:
    """The states from the prompt's last token on, in a stream whose caches move as well."""
    ours, _ = tiny(tmp_path, "llama")
    with_classifiers(ours)
    classifier = ours.cm_heads[name]
    batches = [prompts(count=6, seed=seed, longest=5) for seed in range(20)]
    settings = DecodeSettings(
        max_new_tokens=NEW,
        measure=build_measure(name, dict(ours.cm_heads.items())),
        rule=TokenThreshold(0.5),
    )
    streamed = ours.decode_many(
        [{"input_ids": ids, "attention_mask": mask} for ids, mask in batches], settings
    ).samples
    rows = [
        ids[row, : int(mask[row].sum())].tolist()
        for ids, mask in batches
        for row in range(len(ids))
    ]
    for prompt, sample in list(zip(rows, streamed, strict=True))[::7]:
        for at in range(1, len(sample.tokens)):
            seen = [*prompt, *sample.tokens[:at]]
            states = whole(ours, seen, len(prompt), sample.exit_layers[1:at])
            left = LAYERS
            for layer in range(1, LAYERS):
                with torch.no_grad():
                    answers = classifier(ours.final(states[layer - 1])[None])
                if float(torch.softmax(answers[0, -1], -1)[1]) > 0.5:
                    left = layer
                    break
            assert sample.exit_layers[at] == left
