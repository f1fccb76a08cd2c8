"""Tiny random T5s whose outputs vary, and a decoder written out from the papers to compare with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.decoding import LayerView
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.results import DecodedSample
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.model import MultiExitT5

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 4,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
V10: dict[str, Any] = {"feed_forward_proj": "relu", "tied_head": True}
V11: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tied_head": False}
MEASURES = ("softmax", "saturation", *CLASSIFIERS)


def tiny_t5(
    seed: int = 0, *, dtype: torch.dtype = torch.float64, classifiers: bool = True, **settings: Any
) -> MultiExitT5:
    """Norm weights, biases and layers are random and large enough that tokens vary."""
    generator = torch.Generator().manual_seed(seed)
    names = list(CLASSIFIERS) if classifiers else []
    config = MultiExitT5Config(**{**SHAPE, **V10, "classifiers": names, **settings})
    model = MultiExitT5(config, {name: build_classifier(name, config.d_model) for name in names})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "decoder.final_layer_norm.weight":
                # of both signs, or a tied head would repeat the token that it was given
                parameter.copy_(noise)
            elif "layer_norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif "relative_attention_bias" in name:
                parameter.copy_(noise)
            elif name.startswith("cm_heads"):
                parameter.copy_(noise * (1.0 / math.sqrt(parameter.shape[-1])))
            elif name == "shared.weight":
                parameter.copy_(noise)
            elif name.startswith("decoder") and name.endswith("DenseReluDense.wo.weight"):
                # strong feed-forwards make the next token a wild function of the last one;
                # ReLU's positive mean, which would drown it, is cancelled
                noise -= noise.mean(dim=1, keepdim=True)
                parameter.copy_(noise * (5 / math.sqrt(parameter.shape[-1])))
            elif "EncDecAttention.o" in name:
                parameter.copy_(noise * (0.6 / math.sqrt(parameter.shape[-1])))
            else:
                parameter.copy_(noise * (1.2 / math.sqrt(parameter.shape[-1])))
    return model.to(dtype).eval()


def sources(
    batch: int, tokens: int = 9, *, seed: int = 0, vocabulary: int = 50
) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask; the first row is the longest."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, vocabulary, (batch, tokens), generator=generator)
    lengths = torch.randint(1, tokens + 1, (batch,), generator=generator)
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    return ids * mask, mask


class Recording:
    """A measure that also keeps every confidence that it gave."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name, self.needs = inner, inner.name, inner.needs
        self.seen: list[float] = []
        self.session_: Any = None

    def session(self, **settings: Any) -> Recording:
        self.session_ = self.inner.session(**settings)
        return self

    def confidence(self, view: LayerView) -> Tensor:
        confidence = self.session_.confidence(view)
        self.seen += confidence.tolist()
        return confidence

    def compact(self, slots: Tensor) -> None:
        self.session_.compact(slots)

    def shift(self, offset: int) -> None:
        self.session_.shift(offset)


def balanced_threshold(
    model: MultiExitT5, measure: str, ids: Tensor, mask: Tensor | None, **settings: Any
) -> float:
    """In the widest gap between middling confidences, so that rounding decides nothing."""
    recording = Recording(build_measure(measure, model.cm_heads))
    full = DecodeSettings(
        max_new_tokens=12, measure=recording, rule=TokenThreshold(1.0), **settings
    )
    model.decode(ids, mask, full)
    seen = sorted(value for value in recording.seen if 0 < value < 1)
    middle = seen[len(seen) * 5 // 10 : max(len(seen) * 8 // 10, len(seen) * 5 // 10 + 2)]
    _, low, high = max((b - a, a, b) for a, b in itertools.pairwise(middle))
    return (low + high) / 2


def exiting(
    model: MultiExitT5, measure: str, threshold: float, tokens: int = 12, **settings: Any
) -> DecodeSettings:
    return DecodeSettings(
        max_new_tokens=tokens,
        measure=build_measure(measure, model.cm_heads),
        rule=TokenThreshold(threshold),
        **settings,
    )


def plain(samples: list[DecodedSample]) -> list[tuple[list[int], list[int]]]:
    """Tokens and exit layers, which compare exactly."""
    return [(sample.tokens, sample.exit_layers) for sample in samples]


@dataclass
class Reference:
    """One output decoded from the definitions: no caches, no folding, states copied at once.

    Attributes:
        threshold: of the token at a position, from 0.
        layer_outputs: per layer, the state of every token so far, copied where it was skipped.
    """

    model: MultiExitT5
    measure: str
    threshold: Callable[[int], float]
    min_layer: int = 1
    top_k: int | None = None
    static_layer: int | None = None
    tokens: list[int] = field(default_factory=list)
    exit_layers: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)

    @torch.no_grad()
    def run(self, source: Tensor, max_new_tokens: int) -> Reference:
        """``source``: one row without padding. Shape: [tokens]."""
        model = self.model
        encoded = model.encoder(input_ids=source[None]).last_hidden_state
        depth = model.depth
        inputs: list[list[Tensor]] = [[] for _ in range(depth)]
        outputs: list[list[Tensor]] = [[] for _ in range(depth)]
        last = int(model.config.decoder_start_token_id)
        for position in range(max_new_tokens):
            state = model.shared.weight[last]
            kept: Tensor | None = None
            for index in range(depth):
                inputs[index].append(state)
                previous, state = state, self._block(index, inputs[index], encoded)
                outputs[index].append(state)
                layer = index + 1
                logits = model.exit_logits(model.decoder.final_layer_norm(state))
                if layer == depth or layer == self.static_layer:
                    confidence = math.nan
                    break
                if self.static_layer is not None or layer < self.min_layer:
                    continue
                if self.top_k is not None:
                    if kept is None:
                        kept = logits.topk(self.top_k).indices
                    logits = torch.full_like(logits, -math.inf).scatter(0, kept, logits[kept])
                confidence = self._confidence(layer, logits, previous, state, outputs[index])
                if confidence > self.threshold(position):
                    break
            for deeper in range(layer, depth):
                inputs[deeper].append(state)
                outputs[deeper].append(state)
            last = int(logits.argmax())
            self.tokens.append(last)
            self.exit_layers.append(layer)
            self.confidences.append(confidence)
            if last in model.config.end_tokens:
                break
        return self

    def _block(self, index: int, inputs: list[Tensor], encoded: Tensor) -> Tensor:
        """One decoder layer for the newest token. Shape: [d]."""
        block = self.model.decoder.block[index]
        own = block.layer[0].SelfAttention
        # Shape: [positions, d]
        x = torch.stack(inputs)
        normed = block.layer[0].layer_norm(x)
        first = self.model.decoder.block[0].layer[0].SelfAttention
        bias = first.compute_bias(len(inputs), len(inputs))[0, :, -1]
        hidden = x[-1] + self._attention(own, normed[-1], normed, bias)
        cross = block.layer[1].EncDecAttention
        query = block.layer[1].layer_norm(hidden)
        hidden = hidden + self._attention(cross, query, encoded[0], 0.0)
        return block.layer[2](hidden[None, None])[0, 0]

    def _attention(self, maps: Any, query: Tensor, keys: Tensor, bias: Tensor | float) -> Tensor:
        """Shapes: [d], [keys, d], [heads, keys] -> [d]."""
        heads, size = self.model.config.num_heads, self.model.config.d_kv
        q = maps.q(query).view(heads, size)
        k, v = (part(keys).view(-1, heads, size) for part in (maps.k, maps.v))
        weights = torch.softmax(torch.einsum("hs,phs->hp", q, k) + bias, dim=-1)
        return maps.o(torch.einsum("hp,phs->hs", weights, v).reshape(-1))

    def _confidence(
        self, layer: int, logits: Tensor, previous: Tensor, state: Tensor, seen: list[Tensor]
    ) -> float:
        if self.measure == "softmax":
            top = torch.softmax(logits, dim=-1).sort(descending=True).values
            return float(top[0] - top[1])
        if self.measure == "saturation":
            if layer == 1:
                return 0.0
            cosine = previous @ state / (previous.norm() * state.norm())
            return max(0.0, min(1.0, float(cosine)))
        classifier = self.model.cm_heads[self.measure]
        # Shape: [1, tokens, d]
        states = self.model.decoder.final_layer_norm(torch.stack(seen))[None]
        return float(torch.softmax(classifier(states)[0, -1], dim=-1)[1])
