"""The full pass against transformers' own; leaving early against the replay of the full pass."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models_tiny import random_batch, random_model
from transformers import AutoModel

from eexit_cli.confidence import MEASURES
from eexit_cli.core.errors import UsageError
from eexit_cli.core.stepping import replay
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.static import StaticExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.exits.voting import VotingExit
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

ALL = list(BACKBONES)
FAMILIES = ("deebert", "pabee")


def trace(model, batch):
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("model_type", ALL)
def test_the_trace_is_the_heads_on_transformers_own_hidden_states(model_type, pooling, family):
    model = random_model(model_type, pooling=pooling, family=family, classes=3, seed=1)
    batch = random_batch([7, 3, 5], seed=2)
    inner = AutoModel.from_config(model.config.backbone_config(), attn_implementation="eager")
    inner.double().eval()
    own = {name: value for name, value in inner.state_dict().items() if "pooler" in name}
    inner.load_state_dict(own | dict(model.backbone.state_dict()), strict=True)
    with torch.no_grad():
        states = inner(**batch, output_hidden_states=True).hidden_states[1:]
        mask = batch["attention_mask"].double()[..., None]
        expected = []
        for index, state in enumerate(states):
            vector = state[:, 0] if pooling == "first" else (state * mask).sum(1) / mask.sum(1)
            pooler = model.poolers[index if family == "deebert" else 0].dense
            hidden = torch.tanh(vector @ pooler.weight.T + pooler.bias)
            head = model.classifiers[index]
            expected.append(hidden @ head.weight.T + head.bias)
    torch.testing.assert_close(trace(model, batch), torch.stack(expected, 1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("model_type", ALL)
def test_padding_and_company_change_nothing(model_type, pooling):
    model = random_model(model_type, pooling=pooling, seed=3)
    lengths = [1, 9, 4, 12]
    batch = random_batch(lengths, seed=4, padded_to=17)
    together = trace(model, batch)
    for row, length in enumerate(lengths):
        ids = batch["input_ids"][row : row + 1, :length]
        for mask in (torch.ones_like(ids), None):
            alone = trace(model, {"input_ids": ids, "attention_mask": mask})
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-9)


@pytest.mark.parametrize("model_type", ALL)
def test_word_embeddings_in_place_of_ids_and_their_gradient(model_type):
    model = random_model(model_type, seed=5)
    batch = random_batch([6, 4], seed=6)
    vectors = model.word_embeddings(batch["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(logits.detach(), trace(model, batch), rtol=0, atol=1e-9)
    logits[:, 0].sum().backward()
    gradient = vectors.grad
    assert gradient is not None
    assert bool((gradient[batch["attention_mask"].bool()].abs().sum(-1) > 0).all())
    # What is masked has no influence.
    assert float(gradient[~batch["attention_mask"].bool()].abs().max()) == 0.0


@pytest.mark.parametrize("model_type", ["bert", "albert", "electra"])
def test_segments_are_used_where_the_backbone_has_them(model_type):
    model = random_model(model_type, seed=7)
    batch = random_batch([6], seed=8)
    plain = trace(model, batch)
    zeros = trace(model, batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])})
    ones = trace(model, batch | {"token_type_ids": torch.ones_like(batch["input_ids"])})
    assert torch.equal(plain, zeros)
    assert not torch.allclose(plain, ones)


# --- live against replay ------------------------------------------------------------------------


@st.composite
def criteria(draw, layers, classes):
    """Any criterion, its setting drawn over the whole range."""
    kind = draw(st.sampled_from(["threshold", "patience", "voting", "static", "full"]))
    if kind == "threshold":
        measure = MEASURES.load(draw(st.sampled_from(list(MEASURES))))
        low, high = measure.bounds(classes)
        return ThresholdExit(measure, draw(st.floats(low, high)))
    if kind == "patience":
        return PatienceExit(draw(st.integers(0, layers)), tau=draw(st.floats(0.01, 5.0)))
    if kind == "voting":
        return VotingExit(
            draw(st.floats(0.5, math.sqrt(layers))), lam=draw(st.sampled_from([0.0, 0.5, 1.0]))
        )
    if kind == "static":
        return StaticExit(draw(st.integers(1, layers)), num_layers=layers)
    return None


CASES = {
    "model_type": st.sampled_from(ALL),
    "family": st.sampled_from(FAMILIES),
    "pooling": st.sampled_from(["first", "mean"]),
    "layers": st.integers(2, 5),
    "classes": st.sampled_from([2, 3, 5]),
    "seed": st.integers(0, 10_000),
    "lengths": st.lists(st.integers(1, 12), min_size=1, max_size=6),
    "extra": st.integers(0, 4),
    "data": st.data(),
}


@settings(max_examples=120, deadline=None)
@given(**CASES)
def test_leaving_early_is_exactly_the_replay_of_the_full_pass(
    model_type, family, pooling, layers, classes, seed, lengths, extra, data
):
    model = random_model(
        model_type, family=family, pooling=pooling, layers=layers, classes=classes, seed=seed
    )
    criterion = data.draw(criteria(layers, classes))
    batch = random_batch(lengths, seed=seed, padded_to=max(lengths) + extra)
    replayed = replay(trace(model, batch), criterion)
    live = model.infer(**batch, criterion=criterion)
    assert live.exit_layers.tolist() == replayed.exit_layers.tolist()
    assert live.predictions.tolist() == replayed.predictions.tolist()
    torch.testing.assert_close(live.logits, replayed.logits, rtol=0, atol=1e-9)
    # One row alone leaves where it left in company.
    row = data.draw(st.integers(0, len(lengths) - 1))
    alone = model.infer(batch["input_ids"][row : row + 1, : lengths[row]], criterion=criterion)
    assert int(alone.exit_layers) == int(live.exit_layers[row])
    torch.testing.assert_close(alone.logits[0], live.logits[row], rtol=0, atol=1e-9)


def near_a_decision(logits, criterion, margin):
    """Rows whose way through the exits hangs on less than ``margin``: a threshold or a tie."""
    top = torch.softmax(logits, -1).topk(2, dim=-1).values
    close = ((top[..., 0] - top[..., 1]) < margin).any(dim=1)
    if isinstance(criterion, ThresholdExit):
        distance = (criterion.measure(logits) - criterion.threshold).abs()
        close |= (distance < margin).any(dim=1)
    return close


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_in_single_precision_only_decisions_on_a_knifes_edge_may_differ(
    model_type, family, pooling, layers, classes, seed, lengths, extra, data
):
    model = random_model(
        model_type,
        family=family,
        pooling=pooling,
        layers=layers,
        classes=classes,
        seed=seed,
        dtype=torch.float32,
    )
    criterion = data.draw(criteria(layers, classes))
    batch = random_batch(lengths, seed=seed, padded_to=max(lengths) + extra)
    logits = trace(model, batch)
    replayed, live = replay(logits, criterion), model.infer(**batch, criterion=criterion)
    sure = ~near_a_decision(logits, criterion, 1e-5)
    assert torch.equal(live.exit_layers[sure], replayed.exit_layers[sure])
    assert torch.equal(live.predictions[sure], replayed.predictions[sure])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    patience=st.integers(1, 4),
    tau=st.floats(0.05, 4.0),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_regression_leaves_early_as_replayed(seed, patience, tau, lengths):
    model = random_model(family="pabee", layers=5, classes=1, seed=seed)
    batch = random_batch(lengths, seed=seed)
    criterion = PatienceExit(patience, tau=tau)
    replayed = replay(trace(model, batch), criterion)
    live = model.infer(**batch, criterion=criterion)
    assert live.exit_layers.tolist() == replayed.exit_layers.tolist()
    torch.testing.assert_close(live.predictions, replayed.predictions, rtol=0, atol=1e-9)


def test_exits_really_happen_and_differ_within_a_batch():
    """The properties above would also hold if nobody ever left: here many layers are used."""
    model = random_model(layers=5, seed=11)
    batch = random_batch([4, 9, 6, 7, 3, 8, 5, 9], seed=12)
    decision = model.infer(**batch, criterion=ThresholdExit(MEASURES.load("entropy"), 0.3))
    assert len(set(decision.exit_layers.tolist())) >= 3


def test_layers_after_the_last_exit_are_not_run(monkeypatch):
    model = random_model(layers=4, seed=13)
    calls = []
    for index, layer in enumerate(model.backbone.encoder.layer):
        layer.register_forward_hook(
            lambda module, inputs, output, index=index: calls.append((index, len(inputs[0])))
        )
    batch = random_batch([5, 6, 4], seed=14)
    model.infer(**batch, criterion=StaticExit(2))
    assert calls == [(0, 3), (1, 3)]
    calls.clear()
    model.infer(**batch, criterion=None)
    assert calls == [(index, 3) for index in range(4)]


def test_rows_that_left_cost_nothing_any_more():
    model = random_model(layers=5, seed=11)
    batch = random_batch([4, 9, 6, 7, 3, 8, 5, 9], seed=12)
    shapes = []
    for layer in model.backbone.encoder.layer:
        layer.register_forward_hook(
            lambda module, inputs, output: shapes.append(tuple(inputs[0].shape[:2]))
        )
    decision = model.infer(**batch, criterion=ThresholdExit(MEASURES.load("entropy"), 0.3))
    lengths = batch["attention_mask"].sum(1)
    for layer, shape in enumerate(shapes, start=1):
        running = decision.exit_layers >= layer
        assert shape == (int(running.sum()), int(lengths[running].max()))
    assert len(shapes) == int(decision.exit_layers.max())


def test_the_exit_hook_sees_every_executed_exit_of_the_running_rows():
    model = random_model(layers=4, seed=15)
    batch = random_batch([5, 8, 3, 6], seed=16)
    logits = trace(model, batch)
    for criterion in (ThresholdExit(MEASURES.load("max-prob"), 0.9), None):
        seen = []
        decision = model.infer(
            **batch,
            criterion=criterion,
            on_exit=lambda layer, rows, z, seen=seen: seen.append((layer, rows.clone(), z.clone())),
        )
        for layer, rows, z in seen:
            running = (decision.exit_layers >= layer).nonzero().squeeze(-1)
            assert torch.equal(rows, running)
            torch.testing.assert_close(z, logits[rows, layer - 1], rtol=0, atol=1e-9)
        assert [layer for layer, *_ in seen] == list(range(1, int(decision.exit_layers.max()) + 1))


# --- construction -------------------------------------------------------------------------------


def test_limits_and_names():
    model = random_model("roberta", classes=3)
    assert (model.num_exits, model.num_classes) == (3, 3)
    assert model.max_tokens == 38  # 40 positions, of which tokens use 2 to 39
    assert random_model("mpnet").max_tokens == 38
    assert random_model("bert").max_tokens == 40


@pytest.mark.parametrize("model_type", ALL)
def test_the_longest_input_runs(model_type):
    model = random_model(model_type)
    assert torch.isfinite(trace(model, random_batch([model.max_tokens, 2]))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "Unknown pooling 'max'"),
        ({"family": "branchynet"}, "Unknown model family 'branchynet'"),
        ({"backbone": {"model_type": "gpt2"}}, "Unknown backbone 'gpt2'"),
    ],
)
def test_impossible_configurations_are_one_clear_line(change, message):
    config = MultiExitConfig(**({"backbone": {"model_type": "bert"}} | change))
    with pytest.raises(UsageError, match=message) as caught:
        MultiExitClassifier(config)
    assert caught.value.hint


def test_a_stored_dtype_of_the_backbone_does_not_decide_the_models():
    config = random_model().config
    config.backbone = config.backbone | {"torch_dtype": "float16", "dtype": "float16"}
    assert {value.dtype for value in MultiExitClassifier(config).parameters()} == {torch.float32}


def test_heads_drop_out_in_training_alone():
    model = random_model(head_dropout=0.5)
    batch = random_batch([6])
    assert torch.equal(trace(model, batch), trace(model, batch))
    model.dropout.train()
    assert not torch.equal(trace(model, batch), trace(model, batch))
