"""The six classifiers: their shapes, their decoding form against the plain one, saturation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seq2seq_tiny import tiny_t5
from torch import Tensor, nn

from eexit_cli.confidence import CLASSIFIERS, DECODER_MEASURES
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.confidence.saturation import saturation
from eexit_cli.core.decoding import LayerView
from eexit_cli.core.errors import UsageError

WIDTH = 24


def parameters_by_hand(name: str, d: int) -> int:
    """Weights and biases counted from the definition."""

    def affine(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    if name == "linear":
        return affine(d, 2)
    if name == "mlp":
        return affine(d, d) + affine(d, 2)
    _, head, width = name.split("_")
    e = int(width)
    tail = affine(e, 2) if head == "linear" else affine(e, e) + affine(e, 2)
    return 3 * affine(d, e) + 4 * affine(e, e) + tail


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shapes(name: str) -> None:
    classifier = build_classifier(name, WIDTH)
    assert sum(p.numel() for p in classifier.parameters()) == parameters_by_hand(name, WIDTH)
    assert classifier(torch.randn(3, 5, WIDTH)).shape == (3, 5, 2)
    assert classifier.name == name


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "transformer" in name])
def test_attention_is_causal_and_has_sixteen_heads(name: str) -> None:
    classifier = build_classifier(name, WIDTH)
    assert classifier.multihead_attn.num_heads == 16
    states = torch.randn(1, 6, WIDTH)
    before = classifier(states)
    states[0, 4] += 1
    after = classifier(states)
    torch.testing.assert_close(before[0, :4], after[0, :4])
    assert not torch.allclose(before[0, 4:], after[0, 4:])


def by_hand(classifier: nn.Module, states: Tensor) -> Tensor:
    """Attention written out for one layer. Shape: [tokens, d] -> [tokens, 2]."""
    attention = classifier.multihead_attn
    e = classifier.width
    weights = attention.in_proj_weight.split(e)
    biases = attention.in_proj_bias.split(e)
    outer = (classifier.query_proj, classifier.key_proj, classifier.value_proj)
    q, k, v = (
        (layer(states) @ w.T + b).view(-1, 16, e // 16)
        for layer, w, b in zip(outer, weights, biases, strict=True)
    )
    rows = []
    for token in range(len(states)):
        scores = torch.einsum("hs,ths->ht", q[token], k[: token + 1]) / (e // 16) ** 0.5
        mixed = torch.einsum("ht,ths->hs", scores.softmax(-1), v[: token + 1]).reshape(-1)
        rows.append(classifier.classifier(attention.out_proj(mixed)))
    return torch.stack(rows)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "transformer" in name])
def test_attention_follows_the_definition(name: str) -> None:
    torch.manual_seed(1)
    classifier = build_classifier(name, WIDTH).double()
    states = torch.randn(7, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(classifier(states[None])[0], by_hand(classifier, states))


def view(layer: int, position: int, rows: Tensor | None, state: Tensor) -> LayerView:
    return LayerView(layer, position, rows, state, state, state)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_token_by_token_equals_all_at_once(name: str) -> None:
    """Every layer evaluated for every token: the session's cache against the causal pass."""
    torch.manual_seed(2)
    classifier = build_classifier(name, WIDTH).double()
    states = torch.randn(3, 6, 4, WIDTH, dtype=torch.float64)  # batch, tokens, layers, d
    session = build_measure(name, {name: classifier}).session(
        slots=3, num_layers=5, max_tokens=6, like=states
    )
    for position in range(6):
        for layer in range(1, 5):
            got = session.confidence(view(layer, position, None, states[:, position, layer - 1]))
            whole = classifier(states[:, : position + 1, layer - 1])[:, -1].softmax(-1)[:, 1]
            torch.testing.assert_close(got, whole)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "transformer" in name])
def test_a_skipped_layer_sees_the_copied_state(name: str) -> None:
    torch.manual_seed(3)
    classifier = build_classifier(name, WIDTH).double()
    session = build_measure(name, {name: classifier}).session(
        slots=3, num_layers=4, max_tokens=4, like=torch.zeros(1, dtype=torch.float64)
    )
    exits = torch.tensor([[1, 3, 2], [2, 1, 3], [3, 3, 3]])  # token, slot: last layer evaluated
    final = torch.zeros(3, 3, 3, WIDTH, dtype=torch.float64)  # layer, slot, token, d
    for position, layers in enumerate(exits):
        for layer in range(1, 4):
            rows = (layers >= layer).nonzero().flatten()
            if not len(rows):
                continue
            state = torch.randn(len(rows), WIDTH, dtype=torch.float64)
            got = session.confidence(view(layer, position, rows, state))
            final[layer - 1 :, rows, position] = state
            seen = final[layer - 1, rows, : position + 1]
            torch.testing.assert_close(got, classifier(seen)[:, -1].softmax(-1)[:, 1])
    session.compact(torch.tensor([2, 0]))
    state = torch.randn(2, WIDTH, dtype=torch.float64)
    got = session.confidence(view(2, 3, None, state))
    seen = torch.cat([final[1, [2, 0]], state[:, None]], dim=1)
    torch.testing.assert_close(got, classifier(seen)[:, -1].softmax(-1)[:, 1])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_confidence_is_the_probability_of_output_one(name: str) -> None:
    """And it follows the classifier's training: weights are folded anew when they change."""
    torch.manual_seed(4)
    classifier = build_classifier(name, WIDTH)
    measure = build_measure(name, {name: classifier})
    state = torch.randn(5, WIDTH)

    def confidence() -> Tensor:
        session = measure.session(slots=5, num_layers=3, max_tokens=2, like=state)
        return session.confidence(view(1, 0, None, state))

    torch.testing.assert_close(confidence(), classifier(state[:, None])[:, 0].softmax(-1)[:, 1])
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    logits = classifier(state[:, None])[:, 0]
    nn.functional.cross_entropy(logits, torch.ones(5, dtype=torch.long)).backward()
    optimizer.step()
    torch.testing.assert_close(confidence(), classifier(state[:, None])[:, 0].softmax(-1)[:, 1])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("vanilla_classifier", "linear"),
        ("MLP", "mlp"),
        ("meta", "mlp"),
        ("transformer_MLP_64", "transformer_mlp_64"),
        ("transformer_MLP_512", "transformer_mlp_512"),
        ("transformer-linear-512", "transformer_linear_512"),
    ],
)
def test_the_seeds_spellings(spelling: str, name: str) -> None:
    assert build_classifier(spelling, WIDTH).name == name
    measure = build_measure(spelling, {name: build_classifier(name, WIDTH)})
    assert measure.name == name


def test_every_measure_is_built_and_named() -> None:
    model = tiny_t5(0)
    for name in DECODER_MEASURES:
        assert build_measure(name, model.cm_heads).name == name
    assert build_measure("margin").name == "softmax"
    assert build_measure("hidden-state-saturation").name == "saturation"


def test_a_classifier_that_the_model_lacks() -> None:
    with pytest.raises(UsageError) as caught:
        build_measure("mlp", {"linear": build_classifier("linear", 8)}, model="calm")
    assert "Model 'calm' has no classifier 'mlp' (it has linear)" in caught.value.message
    assert caught.value.hint == "Train one: eexit train --confidence mlp --model calm"
    with pytest.raises(UsageError, match="it has none"):
        build_measure("linear")
    with pytest.raises(UsageError, match="Unknown decoder confidence measure 'entropi'"):
        build_measure("entropi")


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_saturation_is_the_cosine_whatever_the_lengths(seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(0, 1)
    torch.testing.assert_close(saturation(a, b * factor), expected)
    torch.testing.assert_close(saturation(a, a * factor), torch.ones(4, dtype=torch.float64))


def test_saturation_of_nothing_and_at_the_first_layer() -> None:
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert saturation(zero, one).tolist() == [0, 0]
    session = build_measure("saturation").session(slots=2, num_layers=3, max_tokens=1, like=one)
    assert session.confidence(LayerView(1, 0, None, one, one)).tolist() == [0, 0]
    assert session.confidence(LayerView(2, 0, None, one, one)).tolist() == [1, 1]
