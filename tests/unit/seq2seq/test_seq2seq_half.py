"""T5 in float16 as transformers computes it: wo in float32, infinities replaced before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from seq2seq_tiny import V10, V11, balanced_threshold, exiting, sources, tiny_t5
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.products import HalfProduct
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5
from eexit_cli.models.t5.stack import stack_of

TOKENS = 10
END = 1
SCALED: dict[str, dict[str, float]] = {
    "as they are": {},
    # feed-forward outputs beyond 65,504, as in t5-base and larger
    "wo": {"wo.weight": 3e4, "wi.weight": 30.0, "wi_1.weight": 30.0},
    # and the stream before the first feed-forward, where it is float16 in transformers too
    "encoder start": {"encoder.block.0.layer.0.SelfAttention.o.weight": 6e4},
    "decoder start": {"decoder.block.0.layer.0.SelfAttention.o.weight": 6e4},
    "decoder cross": {"decoder.block.0.layer.1.EncDecAttention.o.weight": 2e5},
}


def save(folder: Path, seed: int, factors: dict[str, float], **settings: Any) -> Path:
    """A plain T5 in float32 with some of its weights multiplied."""
    model = tiny_t5(seed, dtype=torch.float32, classifiers=False, **settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for end, factor in factors.items():
                if name.endswith(end):
                    weight.mul_(factor)
    kept = set(T5Config().to_dict()) - {"model_type", "architectures"}
    shape = {name: value for name, value in model.config.to_dict().items() if name in kept}
    plain = T5ForConditionalGeneration(
        T5Config(
            **shape | {"tie_word_embeddings": model.config.tied_head, "decoder_start_token_id": 0}
        )
    )
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    return folder


def load(folder: Path, dtype: str = "float16") -> MultiExitT5:
    return load_seq2seq(folder, build_classifier=build_classifier, dtype=dtype)


class Theirs:
    """transformers' own model in float16, one source at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float16).eval()

    def outputs(self, ids: Tensor, mask: Tensor) -> list[list[int]]:
        """Greedy tokens up to the end token."""
        return [self._output(source) for source in rows(ids, mask)]

    def _output(self, source: Tensor) -> list[int]:
        out: list[int] = self.model.generate(
            input_ids=source[None],
            max_new_tokens=TOKENS,
            do_sample=False,
            num_beams=1,
            use_cache=False,
        )[0, 1:].tolist()
        return out[: out.index(END) + 1] if END in out else out

    @torch.no_grad()
    def logits(self, source: Tensor, before: list[int]) -> Tensor:
        """Of the token after these. Shape: [vocabulary]."""
        given = torch.tensor([[0, *before]])
        return self.model(input_ids=source[None], decoder_input_ids=given).logits[0, -1].float()


def rows(ids: Tensor, mask: Tensor) -> Iterator[Tensor]:
    for row, length in zip(ids, mask.sum(dim=1).tolist(), strict=True):
        yield row[:length]


def assert_same(theirs: Theirs, source: Tensor, wanted: list[int], given: list[int]) -> None:
    """Equal tokens; where rounding decides, both were as good to transformers' own model."""
    for at, (one, other) in enumerate(zip(wanted, given, strict=False)):
        if one != other:
            logits = theirs.logits(source, wanted[:at])
            spread = float(logits.max() - logits.min())
            assert float(logits[one] - logits[other]) < 0.01 * spread
            return
    assert wanted == given


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("variant", [V10, V11], ids=["v1.0", "v1.1"])
def test_outputs_are_those_of_transformers(
    variant: dict[str, Any], name: str, tmp_path: Path
) -> None:
    folder = save(tmp_path, 5, SCALED[name], **variant)
    ids, mask = sources(6, seed=5)
    theirs, model = Theirs(folder), load(folder)
    expected = theirs.outputs(ids, mask)
    halves = [
        {"input_ids": ids[part], "attention_mask": mask[part]}
        for part in (slice(0, 2), slice(2, 6))
    ]
    full = DecodeSettings(max_new_tokens=TOKENS)
    never = {"measure": build_measure("softmax"), "rule": TokenThreshold(1.0)}
    free = DecodeSettings(max_new_tokens=TOKENS, shallow_layer=2, **never)
    ways = {
        "together": model.decode(ids, mask, full).samples,
        "alone": [
            model.decode(ids[row : row + 1], mask[row : row + 1], full).samples[0]
            for row in range(len(ids))
        ],
        "streamed": model.decode_many(halves, full).samples,
        "shallow and deep": model.decode(ids, mask, free).samples,
    }
    same = 0
    for samples in ways.values():
        for source, wanted, sample in zip(rows(ids, mask), expected, samples, strict=True):
            assert_same(theirs, source, wanted, sample.tokens)
            same += wanted == sample.tokens
    assert 2 * same > len(ways) * len(ids)


def test_the_weights_overflow_what_was_computed_before(tmp_path: Path) -> None:
    """The scaled models say something: in float16 throughout, their streams are infinite."""
    ids, mask = sources(8, seed=5)
    for name, infinite in (("as they are", False), ("wo", True)):
        folder = save(tmp_path / name, 5, SCALED[name], **V10)
        states = load(folder).layer_states(ids, mask, torch.zeros(8, 1, dtype=torch.int64))
        assert all(bool(state.isfinite().all()) for state in states.states)
        assert any(bool((one.abs() > 65504).any()) for one in states.residuals) is infinite


@pytest.mark.parametrize("variant", [V10, V11], ids=["v1.0", "v1.1"])
def test_the_module_itself_computes_what_transformers_does(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    """Training, attacks and ``predict`` read the layers from here."""
    folder = save(tmp_path, 7, SCALED["wo"], **variant)
    ids, mask = sources(4, seed=7)
    targets = torch.randint(2, 50, (4, 6), generator=torch.Generator().manual_seed(7))
    theirs, model = Theirs(folder).model, load(folder)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).logits
        ours = model.exit_logits(model.layer_states(ids, mask, targets).states[-1])
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("measure", ["softmax", "saturation"])
def test_early_exit_is_that_of_float32(measure: str, tmp_path: Path) -> None:
    """Beyond float16's range the streams' cosine is a number, and copied states are right."""
    folder = save(tmp_path, 8, SCALED["wo"], **V10)
    ids, mask = sources(8, seed=8)
    wide, half = load(folder, "float32"), load(folder)
    threshold = balanced_threshold(wide, measure, ids, mask)
    settings = exiting(wide, measure, threshold, TOKENS)
    expected = wide.decode(ids, mask, settings).samples
    found = half.decode(ids, mask, settings).samples
    layers = {layer for sample in found for layer in sample.exit_layers}
    assert len(layers) > 1
    same = sum(
        (one.tokens, one.exit_layers) == (other.tokens, other.exit_layers)
        for one, other in zip(expected, found, strict=True)
    )
    assert same >= 6  # float16 rounds otherwise, once in a while


def test_only_the_last_map_of_a_feed_forward_stays_wide(tmp_path: Path) -> None:
    folder = save(tmp_path, 0, {}, **V11)
    wide = {name for name, value in load(folder).named_parameters() if value.dtype == torch.float32}
    assert wide == {name for name, _ in load(folder).named_parameters() if ".wo." in name}
    assert wide
    narrow = {value.dtype for value in load(folder, "bfloat16").parameters()}
    assert narrow == {torch.bfloat16}


def test_small_entries_beside_an_outlier_keep_their_digits(tmp_path: Path) -> None:
    """T5's states have single entries of tens of thousands; the others carry what is said."""
    model = load(save(tmp_path, 9, SCALED["as they are"], **V10))
    state = torch.linspace(0.1, 0.9, 32)[None].clone()
    state[0, 3] = 6e4
    weights = stack_of(model)
    normed = weights.unit(state) * weights.final_scale
    torch.testing.assert_close(
        normed, model.decoder.final_layer_norm(state), rtol=2e-3, atol=0, check_dtype=True
    )


def test_infinities_are_replaced_while_the_stream_is_float16() -> None:
    half, wide = torch.eye(3).half(), torch.eye(3)
    given = torch.tensor([[6e4, -6e4, 1.0]])
    narrow = HalfProduct(half).add(given.half(), given.half())
    assert narrow.tolist() == [[64512.0, -64512.0, 2.0]]  # 64,504 in float16's steps of 32
    broken = HalfProduct(half).add(torch.tensor([[float("nan"), 0.0, 0.0]]).half(), given.half())
    assert broken[0, 0].isnan()
    stream = HalfProduct(wide).add(given.half(), given.half())
    assert stream.dtype == torch.float32
    assert stream.tolist() == [[120000.0, -120000.0, 2.0]]
