"""Given outputs are judged by the exits that the tokens leave by, at any batch size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_exits_tiny import KINDS, made
from causal_tiny import VOCABULARY, prompts, tiny
from torch.nn import functional as F

from eexit_cli.confidence.decoder import build_measure
from eexit_cli.core.errors import UsageError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.settings import DecodeSettings

EXACT = {"gpt2": 1e-9, "llama": 1e-6, "gemma2": 1e-6}
"""Relative; transformers' RMS norms are in float32 whatever the weights are."""

NAMES = tuple(EXACT)
LENGTHS = (9, 9, 7, 12, 3)
SPLIT = ((0, 2), (2, 5))


def outputs() -> list[list[int]]:
    """Of different lengths, with end tokens inside."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(1, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    return [row[:length] for row, length in zip(drawn.tolist(), LENGTHS, strict=True)]


def eager(measure: str = "softmax", threshold: float = 0.02, **more: Any) -> DecodeSettings:
    return DecodeSettings(measure=build_measure(measure), rule=TokenThreshold(threshold), **more)


def likelihoods(decoded: Any) -> list[float]:
    return [value for sample in decoded.samples for value in sample.log_likelihoods]


def of_logits(model: Any, layer: int, ids: Any, mask: Any, given: list[list[int]]) -> list[float]:
    """The same from one pass over prompts and outputs at once."""
    found = []
    for row, length, output in zip(ids, mask.sum(dim=1).tolist(), given, strict=True):
        labels = torch.tensor([output])
        with torch.no_grad():
            states = model.layer_states(row[None, :length], None, model.shift_right(labels)).states
            logits = model.layer_logits(states[layer - 1], layer)
        found += logits.log_softmax(-1)[0].gather(1, labels[0].unsqueeze(1)).squeeze(1).tolist()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_full_model_gives_transformers_cross_entropy(tmp_path: Path, name: str) -> None:
    ours, theirs = tiny(tmp_path, name)
    ids, mask = prompts()
    given = outputs()
    decoded = ours.decode(ids, mask, given=given)
    total = 0.0
    for row, length, output in zip(ids, mask.sum(dim=1).tolist(), given, strict=True):
        text = torch.cat((row[:length], torch.tensor(output)))[None]
        with torch.no_grad():
            # Its loss by hand, which transformers takes in float32.
            logits = theirs(text).logits[0, length - 1 : -1]
            total += float(F.cross_entropy(logits, torch.tensor(output), reduction="sum"))
    assert -sum(likelihoods(decoded)) == pytest.approx(total, rel=EXACT[name])
    assert [len(sample.tokens) for sample in decoded.samples] == list(LENGTHS)
    assert decoded.counts.tokens == sum(LENGTHS)


@pytest.mark.parametrize("name", NAMES)
def test_a_static_layer_gives_norm_and_head_on_its_states(tmp_path: Path, name: str) -> None:
    ours, _ = tiny(tmp_path, name)
    ids, mask = prompts()
    for layer in range(1, 5):
        decoded = ours.decode(ids, mask, DecodeSettings(static_layer=layer), given=outputs())
        wanted = of_logits(ours, layer, ids, mask, outputs())
        assert likelihoods(decoded) == pytest.approx(wanted, rel=EXACT[name])


@pytest.mark.parametrize("measure", ["softmax", "saturation"])
@pytest.mark.parametrize("name", NAMES)
def test_a_threshold_says_the_same_at_any_batch_size(
    tmp_path: Path, name: str, measure: str
) -> None:
    ours, _ = tiny(tmp_path, name)
    ids, mask = prompts()
    given = outputs()
    settings = eager(measure, {"softmax": 0.02, "saturation": 0.8}[measure])
    whole = ours.decode(ids, mask, settings, given=given)
    layers = [sample.exit_layers for sample in whole.samples]
    assert len({layer for each in layers for layer in each}) > 1
    batches = [
        {"input_ids": ids[a:b], "attention_mask": mask[a:b], "given": given[a:b]} for a, b in SPLIT
    ]
    streamed = ours.decode_many(batches, settings)
    for number, length in enumerate(mask.sum(dim=1).tolist()):
        alone = ours.decode(
            ids[number : number + 1, :length], None, settings, given=[given[number]]
        )
        for other in (whole.samples[number], streamed.samples[number]):
            assert other.tokens == alone.samples[0].tokens
            assert other.exit_layers == alone.samples[0].exit_layers
            assert other.log_likelihoods == pytest.approx(alone.samples[0].log_likelihoods)


@pytest.mark.parametrize("measure", ["softmax", "saturation"])
def test_own_outputs_given_back_change_nothing(tmp_path: Path, measure: str) -> None:
    """What is judged is what is run, the copied states of skipped layers included."""
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    settings = eager(measure, {"softmax": 0.02, "saturation": 0.8}[measure], max_new_tokens=10)
    free = ours.decode(ids, mask, settings)
    forced = ours.decode(ids, mask, settings, given=[sample.tokens for sample in free.samples])
    for one, other in zip(free.samples, forced.samples, strict=True):
        assert (one.tokens, one.exit_layers) == (other.tokens, other.exit_layers)
        assert not one.log_likelihoods
        # Nothing is more probable than what greedy decoding chooses.
        assert min(other.log_likelihoods) >= -math.log(VOCABULARY)
    assert free.counts == forced.counts


def test_a_threshold_of_one_is_the_full_model(tmp_path: Path) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    full = ours.decode(ids, mask, given=outputs())
    cautious = ours.decode(ids, mask, eager(threshold=1.0), given=outputs())
    assert likelihoods(cautious) == pytest.approx(likelihoods(full), rel=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_exits_of_their_own_are_judged_by_their_own_heads(tmp_path: Path, name: str) -> None:
    ours, _ = made(tmp_path, name)
    ids, mask = prompts()
    for layer in KINDS[name].layers:
        decoded = ours.decode(ids, mask, DecodeSettings(static_layer=layer), given=outputs())
        wanted = of_logits(ours, layer, ids, mask, outputs())
        assert likelihoods(decoded) == pytest.approx(wanted, rel=1e-6)
    for measure in ("softmax", "saturation"):
        decoded = ours.decode(ids, mask, eager(measure, 0.03), given=outputs())
        alone = ours.decode(ids[:1], mask[:1], eager(measure, 0.03), given=outputs()[:1])
        assert list(map(len, (s.log_likelihoods for s in decoded.samples))) == list(LENGTHS)
        assert likelihoods(alone) == pytest.approx(decoded.samples[0].log_likelihoods)


def test_tokens_that_may_not_be_chosen_may_stand_there(tmp_path: Path) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    free = ours.decode(ids, mask, given=outputs())
    ours.generation_config.suppress_tokens = [outputs()[0][0]]
    ours.generation_config.min_new_tokens = 5
    assert likelihoods(ours.decode(ids, mask, given=outputs())) == likelihoods(free)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (DecodeSettings(draft_layer=2), "Self-speculation"),
        (eager(top_k=5), "Top-k propagation"),
    ],
)
def test_what_has_no_probabilities_is_refused(
    tmp_path: Path, settings: DecodeSettings, said: str
) -> None:
    ours, _ = tiny(tmp_path, "llama")
    ids, mask = prompts()
    with pytest.raises(UsageError, match=said):
        ours.decode(ids, mask, settings, given=outputs())
