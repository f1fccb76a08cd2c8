"""What ``generation_config.json`` asks for: every obeyed setting against transformers' generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from seq2seq_tiny import V10, balanced_threshold, exiting, sources, tiny_t5
from transformers import T5Config, T5ForConditionalGeneration

from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.errors import EexitError
from eexit_cli.exits.decay import TokenThreshold
from eexit_cli.models.decoding.generation import not_greedy
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.tracing import trace_tokens
from eexit_cli.models.t5.layouts import load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5

IDS = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
OBEYED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "start": {"decoder_start_token_id": 7},
    "start by bos": {"decoder_start_token_id": None, "bos_token_id": 9},
    "ends": {"eos_token_id": [1, 3, 7, 12, 20, 33, 41]},
    "no end": {"eos_token_id": None},
    "forced first": {"forced_bos_token_id": 11},
    "forced last": {"forced_eos_token_id": 1},
    "forced last of several": {"forced_eos_token_id": [1, 5], "eos_token_id": [1, 5]},
    "min length": {"eos_token_id": [1, 3, 7, 12, 20, 33, 41], "min_length": 6},
    "min new tokens": {"eos_token_id": [1, 3, 7, 12, 20, 33, 41], "min_new_tokens": 6},
    "suppressed": {"suppress_tokens": list(range(10, 40))},
    "suppressed at the start": {"begin_suppress_tokens": list(range(30, 50))},
    "suppressed after a forced start": {
        "begin_suppress_tokens": list(range(2, 45)),
        "forced_bos_token_id": 11,
    },
    "pad": {"pad_token_id": 4},
    "all": {
        "decoder_start_token_id": 7,
        "eos_token_id": [1, 3, 7, 12, 20],
        "forced_bos_token_id": 11,
        "forced_eos_token_id": 1,
        "min_new_tokens": 4,
        "suppress_tokens": [13, 14, 15, 44],
    },
}
TOKENS = 9


def save_t5(folder: Path, generation: dict[str, Any] | None, **config: Any) -> Path:
    """transformers' folder of a random T5, with its generation settings as given."""
    model = tiny_t5(3, dtype=torch.float32, classifiers=False, **V10)
    kept = set(T5Config().to_dict()) - {"model_type", "architectures"}
    shape = {name: value for name, value in model.config.to_dict().items() if name in kept}
    plain = T5ForConditionalGeneration(T5Config(**shape))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    written = folder / "generation_config.json"
    written.unlink()
    if generation is not None:
        written.write_text(json.dumps(generation), encoding="utf-8")
    path = folder / "config.json"
    # What transformers 4 wrote into config.json, 5 writes into generation_config.json alone.
    old = IDS if generation is None else {}
    raw = json.loads(path.read_text(encoding="utf-8")) | old | config
    path.write_text(json.dumps(raw), encoding="utf-8")
    return folder


def load(folder: Path) -> MultiExitT5:
    return load_seq2seq(folder, build_classifier=build_classifier)


def generated(folder: Path, **asked: Any) -> list[list[int]]:
    """transformers' outputs, cut after an end."""
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    ids, mask = sources(6, seed=2)
    found = []
    for row, length in zip(ids, mask.sum(dim=1).tolist(), strict=True):
        source = row[None, :length]
        given = {"input_ids": source, "attention_mask": torch.ones_like(source)}
        tokens = model.generate(**given, use_cache=False, **asked)[0, 1:].tolist()
        at = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
        found.append(tokens[:at])
    return found


def ways(model: MultiExitT5, tokens: int = TOKENS) -> dict[str, list[list[int]]]:
    """Outputs of the full model, in all the ways that decode it."""
    ids, mask = sources(6, seed=2)
    never: dict[str, Any] = {"measure": build_measure("softmax"), "rule": TokenThreshold(1.0)}
    parts = [
        {"input_ids": ids[part], "attention_mask": mask[part]}
        for part in (slice(0, 2), slice(2, 6))
    ]
    full = DecodeSettings(max_new_tokens=tokens)
    found = {
        "together": model.decode(ids, mask, full).samples,
        "alone": [
            model.decode(ids[row : row + 1], mask[row : row + 1], full).samples[0]
            for row in range(6)
        ],
        "streamed": model.decode_many(parts, full).samples,
        "never beyond": model.decode(
            ids, mask, DecodeSettings(max_new_tokens=tokens, **never)
        ).samples,
        "streamed, never": model.decode_many(
            parts, DecodeSettings(max_new_tokens=tokens, **never)
        ).samples,
        "free": model.decode(
            ids,
            mask,
            DecodeSettings(max_new_tokens=tokens, shallow_layer=2, collect_pairs=True, **never),
        ).samples,
    }
    return {name: [sample.tokens for sample in samples] for name, samples in found.items()}


@pytest.mark.parametrize("name", OBEYED)
def test_the_full_model_is_generate(name: str, tmp_path: Path) -> None:
    folder = save_t5(tmp_path, IDS | OBEYED[name])
    expected = generated(folder, max_new_tokens=TOKENS)
    if name not in ("nothing", "pad", "no end"):
        plain = generated(save_t5(tmp_path / "plain", IDS), max_new_tokens=TOKENS)
        assert expected != plain, "the setting changes nothing here"
    for way, outputs in ways(load(folder)).items():
        assert outputs == expected, way


@pytest.mark.parametrize("name", ["start", "ends", "forced first", "suppressed"])
def test_an_old_config_json_says_the_same(name: str, tmp_path: Path) -> None:
    folder = save_t5(tmp_path, None, **OBEYED[name])
    expected = generated(folder, max_new_tokens=TOKENS)
    assert ways(load(folder))["together"] == expected


def test_the_file_comes_before_config_json(tmp_path: Path) -> None:
    folder = save_t5(tmp_path, IDS, forced_bos_token_id=11, eos_token_id=[1, 3, 7])
    assert ways(load(folder))["together"] == generated(folder, max_new_tokens=TOKENS)
    assert load(folder).config.end_tokens == {1}


def test_a_file_without_an_end_never_ends(tmp_path: Path) -> None:
    folder = save_t5(tmp_path, {"decoder_start_token_id": 0, "pad_token_id": 0})
    expected = generated(folder, max_new_tokens=TOKENS)
    assert {len(tokens) for tokens in expected} == {TOKENS}
    assert ways(load(folder))["together"] == expected


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [({"max_length": 7}, 6), ({"max_new_tokens": 5}, 5), ({"max_length": 20}, None), ({}, None)],
)
def test_lengths(settings: dict[str, Any], tokens: int | None, tmp_path: Path) -> None:
    folder = save_t5(tmp_path, IDS | {"eos_token_id": None} | settings)
    assert load(folder).generation_config.max_new_tokens == tokens
    if tokens is not None:
        assert {len(output) for output in generated(folder)} == {tokens}


def test_saved_and_loaded_again_nothing_is_lost(tmp_path: Path) -> None:
    folder = save_t5(tmp_path / "t5", IDS | OBEYED["all"] | {"num_beams": 4, "max_length": 12})
    expected = generated(folder, max_new_tokens=TOKENS, num_beams=1)
    load(folder).save_pretrained(tmp_path / "own")
    again = load(tmp_path / "own")
    assert ways(again)["together"] == expected
    assert not_greedy(again.generation_config) == {"num_beams": 4}
    assert again.generation_config.max_new_tokens == 11


@pytest.mark.parametrize("measure", ["softmax", "saturation"])
@pytest.mark.parametrize("top_k", [None, 5])
def test_no_layer_chooses_what_is_forbidden(
    measure: str, top_k: int | None, tmp_path: Path
) -> None:
    if top_k and measure != "softmax":
        return
    model = load(save_t5(tmp_path, IDS | OBEYED["all"]))
    ids, mask = sources(6, seed=2)
    threshold = balanced_threshold(model, measure, ids, mask)
    settings = exiting(model, measure, threshold, TOKENS, top_k=top_k)
    parts = [{"input_ids": ids, "attention_mask": mask}] * 2
    layers = set()
    for sample in model.decode_many(parts, settings).samples:
        layers |= set(sample.exit_layers)
        assert sample.tokens[0] == 11
        assert not set(sample.tokens) & {13, 14, 15, 44}
        assert not set(sample.tokens[1:4]) & {1, 3, 7, 12, 20}
        assert len(sample.tokens) < TOKENS or sample.tokens[-1] in {1, 3, 7, 12, 20}
    assert len(layers) > 1


def test_confidence_is_that_of_what_may_be_chosen(tmp_path: Path) -> None:
    """A forced token has no rival: the margin over the allowed tokens is 1."""
    model = load(save_t5(tmp_path, IDS | {"forced_bos_token_id": 11}))
    ids, mask = sources(2, seed=2)
    sample = model.decode(ids, mask, exiting(model, "softmax", 0.99, 3)).samples[0]
    assert sample.tokens[0] == 11
    assert sample.exit_layers[0] == 1
    assert sample.confidences[0] == 1.0


def test_what_layers_would_say_obeys_too(tmp_path: Path) -> None:
    model = load(save_t5(tmp_path, IDS | OBEYED["all"]))
    ids, mask = sources(1, seed=2)
    tokens = model.decode(ids, mask, DecodeSettings(max_new_tokens=TOKENS)).samples[0].tokens
    trace = trace_tokens(model, ids, mask, torch.tensor([tokens]), longest=TOKENS)
    assert trace.tokens[0, :, -1].tolist() == tokens
    assert set(trace.tokens[0, 0].tolist()) == {11}


REFUSED: dict[str, dict[str, Any]] = {
    "num_beams": {"num_beams": 4},
    "do_sample": {"do_sample": True},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.2},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": [[3, 4]]},
    "sequence_bias": {"sequence_bias": [[[3, 4], -2.0]]},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [3, 1.1]},
    "guidance_scale": {"guidance_scale": 1.5},
    "stop_strings": {"stop_strings": ["a"]},
    "max_time": {"max_time": 1.0},
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_decoding_is_named(name: str, tmp_path: Path) -> None:
    model = load(save_t5(tmp_path / "file", IDS | REFUSED[name]))
    assert set(not_greedy(model.generation_config)) == {name}
    old = load(save_t5(tmp_path / "old", None, **REFUSED[name]))
    assert set(not_greedy(old.generation_config)) == {name}


def test_what_says_nothing_is_not_named(tmp_path: Path) -> None:
    """Penalties of beams without beams, temperatures without sampling, neutral values."""
    neutral = {
        "length_penalty": 2.0,
        "early_stopping": True,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "num_beams": 1,
        "do_sample": False,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "renormalize_logits": True,
        "use_cache": True,
    }
    folder = save_t5(tmp_path, IDS | neutral)
    model = load(folder)
    assert not_greedy(model.generation_config) == {}
    assert ways(model)["together"] == generated(folder, max_new_tokens=TOKENS)
    beams = load(save_t5(tmp_path / "beams", IDS | neutral | {"num_beams": 2}))
    assert set(not_greedy(beams.generation_config)) == {
        "num_beams",
        "length_penalty",
        "early_stopping",
    }


def test_settings_of_tasks_are_not_applied(tmp_path: Path) -> None:
    """google-t5's configuration holds beams for summarisation; generate leaves them alone."""
    tasks = {"summarization": {"num_beams": 4, "length_penalty": 2.0, "max_length": 200}}
    folder = save_t5(tmp_path, None, task_specific_params=tasks)
    model = load(folder)
    assert not_greedy(model.generation_config) == {}
    assert ways(model)["together"] == generated(folder, max_new_tokens=TOKENS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decoder_start_token_id": 50}, "'decoder_start_token_id' is 50"),
        ({"decoder_start_token_id": [1, 2]}, "not one token"),
        ({"eos_token_id": [1, "x"]}, "'eos_token_id' is 'x'"),
        ({"suppress_tokens": [-1]}, "'suppress_tokens' is -1"),
        ({"max_length": "long"}, "'max_length' is 'long'"),
        ({"min_length": -2}, "'min_length' is -2"),
    ],
)
def test_values_that_cannot_be(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = save_t5(tmp_path, IDS | settings)
    with pytest.raises(EexitError) as caught:
        load(folder)
    assert said in caught.value.message
    assert "generation_config.json" in caught.value.message
    assert caught.value.hint


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = save_t5(tmp_path, IDS)
    (folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(EexitError, match=r"generation_config\.json is not valid JSON"):
        load(folder)
