"""A decoder under attack: its gradients, its scores, its accounts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attacks_tiny_decoder import SENTENCES, THRESHOLDS, decoder_victim, word_tokenizer
from tiny_decoders import WORDS
from transformers.models.t5.modeling_t5 import T5LayerNorm

from eexit_cli.attacks import DECODER_ATTACKS
from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.decoder_victim import DecoderVictim
from eexit_cli.attacks.slowdown_loss import exits_loss
from eexit_cli.attacks.victim import Loss
from eexit_cli.config import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.models.batching import TextBatcher

LAM = 0.7


def loss_of(victim: DecoderVictim, lam: float = LAM) -> Loss:
    reader = victim.reader
    return partial(
        exits_loss,
        asked=reader.layers,
        num_layers=victim.num_layers,
        lam=lam if reader.width > 1 else None,
    )


def weight(layer: int, left_at: int) -> float:
    """SAME's."""
    return 0.1 if layer < left_at else 1.2 ** (layer - left_at)


def by_hand(victim: DecoderVictim, confidence: str, text: str, embedded: torch.Tensor) -> float:
    """The loss of one input from the formulas, exit by exit and token by token."""
    model = victim.model
    (generation,) = victim.score([text])
    inputs = torch.tensor([[model.config.decoder_start_token_id, *generation.tokens[:-1]]])
    with torch.no_grad():
        states = model.layer_states(None, None, inputs, inputs_embeds=embedded)
    asked = range(2 if confidence == "saturation" else 1, victim.num_layers)
    total = 0.0
    for position, left_at in enumerate(generation.exit_layers):
        terms = []
        for layer in asked:
            state = states.states[layer - 1][0, position]
            if confidence == "softmax":
                p = torch.softmax(state * model.config.d_model**-0.5 @ model.shared.weight.T, -1)
                second = p.sort(descending=True).values[1]
                term = -LAM * second.log() - (1 - LAM) * p.log().mean()
            else:
                if confidence == "saturation":
                    one, two = (states.residuals[at][0, position] for at in (layer - 2, layer - 1))
                    sure = (one @ two / (one.norm() * two.norm())).clamp(0, 1)
                else:
                    head = model.cm_heads[confidence](states.states[layer - 1][:, : position + 1])
                    sure = torch.softmax(head[0, -1], -1)[1]
                term = -(1 - sure).log()
            terms.append(weight(layer, left_at) * float(term))
        total += sum(terms) / len(terms)
    return total


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' T5 takes norms and softmax in single precision whatever its dtype is."""

    def norm(self: T5LayerNorm, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    monkeypatch.setattr(T5LayerNorm, "forward", norm)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("confidence", list(THRESHOLDS))
def test_gradients_match_finite_differences(confidence: str) -> None:
    victim = decoder_victim(confidence, dtype=torch.float64)
    text = "zephyr"
    # Beside a longer input, so that padding plays no part.
    victim.score([text, "thoroughly"])
    found, _ = victim.gradients([text, "thoroughly"], loss_of(victim))
    embedded = victim.model.word_embeddings(found.input_ids)[None]
    assert found.loss == pytest.approx(by_hand(victim, confidence, text, embedded), rel=1e-9)
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        direction = torch.randn(embedded.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        up = by_hand(victim, confidence, text, embedded + step * direction)
        down = by_hand(victim, confidence, text, embedded - step * direction)
        slope = float((found.gradient * direction[0]).sum())
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("confidence", list(THRESHOLDS))
def test_candidates_together_leave_where_each_alone_does(confidence: str) -> None:
    victim = decoder_victim(confidence)
    together = victim.score(WORDS)
    assert victim.budget.queries == len(WORDS)
    layers = {layer for one in together for layer in one.exit_layers}
    assert len(layers) > 1
    for word, generation in zip(WORDS, together, strict=True):
        alone = victim.confirm(word)
        assert alone is not None
        assert alone.tokens == generation.tokens
        assert alone.exit_layers == generation.exit_layers
        assert alone.confidence == pytest.approx(generation.confidence, abs=1e-5)
        batch = victim.batcher([word])
        decoded = victim.model.decode(batch["input_ids"], settings=victim.settings).samples[0]
        assert list(alone.exit_layers) == decoded.exit_layers
        assert alone.layers_per_token == pytest.approx(decoded.mean_exit_layer)
        assert alone.total_layers == sum(decoded.exit_layers)


@pytest.mark.usefixtures("exact")
def test_gradients_do_not_depend_on_the_batch() -> None:
    victim = decoder_victim(dtype=torch.float64)
    victim.score(WORDS)
    together = victim.gradients(WORDS, loss_of(victim))
    victim.forget()
    for word, found in zip(WORDS, together, strict=True):
        victim.score([word])
        (alone,) = victim.gradients([word], loss_of(victim))
        assert torch.allclose(alone.gradient, found.gradient, atol=1e-10)
        assert alone.loss == pytest.approx(found.loss)


def test_accounts() -> None:
    victim = decoder_victim(budget=8)
    assert len(victim.score(WORDS[:3])) == 3
    assert len(victim.score(WORDS[:3])) == 3  # known
    assert victim.budget.spent == 3
    assert len(victim.gradients(WORDS[:3], loss_of(victim), reserve=3)) == 2
    loss = loss_of(victim)
    assert len(victim.gradients(WORDS[:1], loss)) == 1
    assert len(victim.gradients(WORDS[:1], loss)) == 1
    assert victim.budget.spent == 6
    assert len(victim.score(WORDS[:6], reserve=1)) == 4
    assert victim.confirm(WORDS[0]) is not None
    assert victim.confirm(WORDS[0]) is not None
    assert victim.confirm(WORDS[1]) is None
    assert victim.budget.spent == 8
    # Three words in a batch, three gradients, one word more; each with its check.
    assert [victim.paid(text) for text in WORDS[:4]] == [2, 3, 4, 8]
    victim.begin()
    assert victim.budget.spent == 0


def test_the_prefix_is_read_and_never_differentiated_as_text() -> None:
    victim = decoder_victim(words=True, prefix="say the ")
    plain = decoder_victim(words=True)
    text = SENTENCES[0]
    assert victim.score([text]) == plain.score(["say the " + text])
    (found,) = victim.gradients([text], loss_of(victim))
    assert len(found.input_ids) == 2 + len(text.split()) + 1
    assert found.columns == [None, None, *[0] * len(text.split()), None]
    spans = [found.offsets[place] for place, column in enumerate(found.columns) if column == 0]
    assert [text[start:end] for start, end in spans] == text.split()


def test_exits_that_are_never_asked_are_refused() -> None:
    with pytest.raises(UsageError, match="no token leaves before layer 3") as raised:
        decoder_victim(min_layer=3)
    assert "--min-layer" in str(raised.value.hint)
    assert decoder_victim("saturation").reader.layers == (2,)
    assert decoder_victim(min_layer=2).reader.layers == (2,)
    assert decoder_victim(shallow_layer=1).reader.layers == (1,)


class Bag(torch.nn.Module):
    """No T5: as many tokens as the input has, and leaving late where its mean embedding says so."""

    depth = 4

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.word_embeddings = torch.nn.Embedding(vocabulary, 6)
        self.ramps = torch.nn.Linear(6, 1)

    def doubts(self, embedded: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1)
        mean = (embedded * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.sigmoid(4 * self.ramps(mean)[:, 0])

    def decode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, settings: Any
    ) -> SimpleNamespace:
        doubts = self.doubts(self.word_embeddings(input_ids), attention_mask).tolist()
        counts = attention_mask.sum(dim=1).tolist()
        return SimpleNamespace(
            samples=[
                SimpleNamespace(
                    tokens=[1] * count,
                    exit_layers=[1 + int(doubt * self.depth)] * count,
                    confidences=[1 - doubt] * count,
                )
                for doubt, count in zip(doubts, counts, strict=True)
            ]
        )


@dataclass(frozen=True)
class BagReader:
    model: Bag
    layers: tuple[int, ...] = (1, 2, 3)
    width: int = 1

    def __call__(
        self, embedded: torch.Tensor, attention_mask: torch.Tensor, outputs: torch.Tensor
    ) -> torch.Tensor:
        sure = 1 - self.model.doubts(embedded, attention_mask)
        return sure[:, None, None].expand(*outputs.shape, len(self.layers))


def test_whatever_decodes_can_be_attacked() -> None:
    tokenizer = word_tokenizer()
    model = Bag(len(tokenizer)).requires_grad_(False)
    victim = DecoderVictim(
        model,
        TextBatcher(tokenizer, 24),
        SimpleNamespace(max_new_tokens=24),
        BagReader(model),
        Budget(120),
    )
    attack = DECODER_ATTACKS.load("same-token").attack(
        victim, AttackConfig(top_n=8, beam_width=2, per_size=3)
    )
    gained = 0
    for text in SENTENCES:
        found = attack.attack(text)
        before, after = victim.confirm(text), victim.confirm(found.text)
        assert before is not None
        assert after is not None
        assert victim.budget.spent <= 120
        assert found.skipped == (before.layers_per_token == model.depth)
        gained += after.total_layers - before.total_layers
    assert gained > 0
