"""Folders: ours there and back, plain T5, DL2-CALM's and FREE's, and everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from seq2seq_tiny import SHAPE, V10, V11, exiting, plain, sources, tiny_t5
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.confidence.decoder import build_classifier, build_measure
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.layouts import is_seq2seq, load_seq2seq
from eexit_cli.models.t5.model import MultiExitT5


def load(folder: Path, **settings: Any) -> MultiExitT5:
    return load_seq2seq(folder, build_classifier=build_classifier, **settings)


def outputs(model: MultiExitT5) -> list[tuple[list[int], list[int]]]:
    ids, mask = sources(3)
    return plain(model.decode(ids, mask, DecodeSettings(max_new_tokens=8)).samples)


@pytest.mark.parametrize("variant", [V10, V11], ids=["tied", "untied"])
def test_there_and_back(variant: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_t5(1, dtype=torch.float32, task="pronunciation", source_prefix="say: ", **variant)
    model.config.exit_defaults = {"confidence": "mlp", "threshold": 0.7}
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert not loaded.training
    assert outputs(loaded) == outputs(model)
    assert loaded.config.exit_defaults == {"confidence": "mlp", "threshold": 0.7}
    assert (loaded.config.task, loaded.config.source_prefix) == ("pronunciation", "say: ")
    assert set(loaded.cm_heads) == set(CLASSIFIERS)
    theirs, ours = model.state_dict(), loaded.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert (loaded.lm_head.weight is loaded.shared.weight) == variant["tied_head"]
    assert loaded.encoder.embed_tokens.weight is loaded.shared.weight
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_each_tensor_is_stored_once(tmp_path: Path) -> None:
    tiny_t5(1, classifiers=False).save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "shared.weight" in names
    assert not {"lm_head.weight", "encoder.embed_tokens.weight"} & names


def test_from_pretrained_is_the_strict_loader(tmp_path: Path) -> None:
    model = tiny_t5(1, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    again = MultiExitT5.from_pretrained(tmp_path, build_classifier=build_classifier)
    assert outputs(again) == outputs(model)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["shared.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EexitError, match=r"missing: shared\.weight"):
        MultiExitT5.from_pretrained(tmp_path, build_classifier=build_classifier)


def test_dtype_is_the_callers(tmp_path: Path) -> None:
    tiny_t5(1, dtype=torch.float32).save_pretrained(tmp_path)
    assert load(tmp_path, dtype="float64").shared.weight.dtype == torch.float64
    with pytest.raises(UsageError, match="Unknown dtype"):
        load(tmp_path, dtype="float8")


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    tiny_t5(1).save_pretrained(tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_adding_a_classifier_and_saving_both(tmp_path: Path) -> None:
    model = tiny_t5(2, classifiers=False, dtype=torch.float32)
    model.add_classifier("linear", build_classifier("linear", 32))
    model.add_classifier("transformer_mlp_64", build_classifier("transformer_mlp_64", 32))
    model.add_classifier("linear", build_classifier("linear", 32))
    assert model.config.classifiers == ["linear", "transformer_mlp_64"]
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    ids, mask = sources(3)
    for name in ("linear", "transformer_mlp_64"):
        settings = exiting(model, name, 0.5)
        again = exiting(loaded, name, 0.5)
        assert plain(model.decode(ids, mask, settings).samples) == plain(
            loaded.decode(ids, mask, again).samples
        )


def test_classifiers_must_match_the_configuration() -> None:
    config = MultiExitT5Config(**SHAPE, classifiers=["mlp"])
    with pytest.raises(ValueError, match="mlp"):
        MultiExitT5(config, {})


def published(
    folder: Path,
    *,
    tensors: dict[str, Tensor] | None = None,
    drop: tuple[str, ...] = (),
    pickled: bool = False,
    config: dict[str, Any] | None = None,
    **shape: Any,
) -> T5ForConditionalGeneration:
    """A folder as transformers writes it, with what DL2-CALM or FREE adds."""
    torch.manual_seed(5)
    settings = {**SHAPE, "decoder_start_token_id": 0, **shape}
    model = T5ForConditionalGeneration(T5Config(**settings)).eval()
    if settings.get("tie_word_embeddings", True) is False:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state |= tensors or {}
    for name in drop:
        del state[name]
    folder.mkdir(parents=True, exist_ok=True)
    raw = {**T5Config(**settings).to_dict(), "model_type": "t5", **settings, **(config or {})}
    (folder / "config.json").write_text(json.dumps(raw, default=str))
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file({name: value.contiguous() for name, value in state.items()},
                  folder / "model.safetensors")  # fmt: skip
    return model


def cm_head(name: str, *, bias: bool = True) -> dict[str, Tensor]:
    torch.manual_seed(6)
    state = build_classifier(name, 32).state_dict()
    return {f"cm_head.{key}": v for key, v in state.items() if bias or not key.endswith("bias")}


@pytest.mark.parametrize("prefix", [None, "", "summarize: "])
def test_a_published_prefix_is_read_and_a_missing_one_is_none(
    prefix: str | None, tmp_path: Path
) -> None:
    published(tmp_path, config={} if prefix is None else {"source_prefix": prefix})
    assert load(tmp_path).config.source_prefix == (prefix or "")


@pytest.mark.parametrize("pickled", [False, True])
def test_a_plain_t5_loads(pickled: bool, tmp_path: Path) -> None:
    copies = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight":
              torch.zeros(8, 4)}  # fmt: skip
    reference = published(tmp_path, pickled=pickled, tensors=copies)
    model = load(tmp_path)
    ids, mask = sources(3)
    expected = reference.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=False
    )[:, 1:].tolist()
    for sample, row in zip(
        model.decode(ids, mask, DecodeSettings(max_new_tokens=8)).samples, expected, strict=True
    ):
        assert sample.tokens == row[: len(sample.tokens)]
    assert model.config.classifiers == []
    assert model.config.training == {"converted_from": "t5"}
    assert model.config.exit_defaults == {}


def test_an_untied_t5_keeps_its_head(tmp_path: Path) -> None:
    reference = published(tmp_path, tie_word_embeddings=False, feed_forward_proj="gated-gelu")
    model = load(tmp_path)
    assert torch.equal(model.lm_head.weight, reference.lm_head.weight)
    assert not model.config.tied_head
    ids, mask = sources(2)
    with torch.no_grad():
        start = torch.zeros(2, 1, dtype=torch.long)
        encoded = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = model.decoder(
            input_ids=start, encoder_hidden_states=encoded, encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state  # fmt: skip
        expected = (hidden[:, -1] @ reference.lm_head.weight.T).argmax(-1).tolist()
    out = model.decode(ids, mask, DecodeSettings(max_new_tokens=1))
    assert [sample.tokens[0] for sample in out.samples] == expected


def test_transformers_5_files_say_whether_to_scale(tmp_path: Path) -> None:
    """It writes tie_word_embeddings true for v1.1 too, and the truth under another key."""
    published(
        tmp_path,
        tie_word_embeddings=False,
        config={"tie_word_embeddings": True, "scale_decoder_outputs": False},
    )
    assert not load(tmp_path).config.tied_head


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("vanilla_classifier", "linear"),
        ("MLP", "mlp"),
        ("transformer_linear_64", "transformer_linear_64"),
        ("transformer_linear_512", "transformer_linear_512"),
        ("transformer_MLP_64", "transformer_mlp_64"),
        ("transformer_MLP_512", "transformer_mlp_512"),
    ],
)
def test_the_seeds_checkpoints(spelling: str, name: str, tmp_path: Path) -> None:
    head = cm_head(name)
    published(
        tmp_path,
        tensors=head,
        config={
            "exit_conf_type": spelling,
            "exit_conf_threshold": 0.8,
            "exit_min_layer": 2,
            "exit_position_temp": 4.0,
            "use_early_exit": True,
            "output_hidden_states_decoder": True,
        },
    )
    model = load(tmp_path)
    assert model.config.classifiers == [name]
    held = model.cm_heads[name].state_dict()
    assert held.keys() == {key.removeprefix("cm_head.") for key in head}
    assert all(torch.equal(value, head[f"cm_head.{key}"]) for key, value in held.items())
    assert model.config.training == {"converted_from": "calm"}
    assert model.config.exit_defaults == {
        "confidence": name,
        "threshold": 0.8,
        "min_layer": 2,
        "decay_temperature": 4.0,
        "decay": "code",
    }
    assert not hasattr(model.config, "exit_conf_type")
    assert build_measure(spelling, model.cm_heads).name == name
    # and it becomes one of our folders
    model.save_pretrained(tmp_path / "ours")
    assert outputs(load(tmp_path / "ours")) == outputs(model)


def test_the_seeds_softmax_and_static_models(tmp_path: Path) -> None:
    published(tmp_path / "a", config={"exit_conf_type": "softmax", "top_propagation": 10})
    assert load(tmp_path / "a").config.exit_defaults == {
        "confidence": "softmax",
        "threshold": 1.0,
        "top_k_propagation": 10,
    }
    published(tmp_path / "b", config={"static_exit_layer": 3})
    assert load(tmp_path / "b").config.exit_defaults == {"static_layer": 3}


@pytest.mark.parametrize("bias", [True, False])
def test_frees_checkpoints(bias: bool, tmp_path: Path) -> None:
    """FREE trained its classifier without biases, and named a copy of the head."""
    embedding = torch.randn(50, 32)
    published(
        tmp_path,
        tensors={
            **cm_head("mlp", bias=bias),
            "shared.weight": embedding,
            "encoder.embed_tokens.weight": embedding.clone(),
            "decoder.embed_tokens.weight": embedding.clone(),
            "lm_head.weight": embedding.clone(),
            "decoder.lm_head.weight": embedding.clone(),
            "layer_transformation.weight": torch.randn(32, 32),
            "layer_transformation.bias": torch.randn(32),
        },
        config={
            "use_shallow_deep": True,
            "shallow_exit_layer": 2,
            "shallow2deep_conf_type": "meta",
            "shallow2deep_conf_threshold": 0.9,
            "use_adapt_threshold": True,
        },
    )
    model = load(tmp_path)
    assert model.config.classifiers == ["mlp"]
    assert (model.cm_heads["mlp"][0].bias == 0).all() == (not bias)
    assert model.config.training == {"converted_from": "free"}
    assert model.config.exit_defaults == {
        "confidence": "mlp",
        "threshold": 0.9,
        "shallow_layer": 2,
        "adaptive_threshold": True,
    }


WO = "decoder.block.1.layer.2.DenseReluDense.wo.weight"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": (WO,)}, rf"1 missing: {WO}"),
        ({"tensors": {"decoder.extra": torch.ones(2)}}, "1 unexpected: decoder.extra"),
        ({"tensors": {WO: torch.ones(3, 3)}}, rf"1 mis-shaped: {WO} \[3, 3\], expected \[32, 48\]"),
        ({"tensors": {WO: torch.ones(32, 48).int()}}, "1 not floating point"),
        ({"tensors": {"lm_head.weight": torch.ones(50, 32)}}, "differs from shared.weight"),
        ({"tensors": {"encoder.embed_tokens.weight": torch.ones(50, 32)}}, "differs from"),
        ({"config": {"exit_conf_type": "MLP"}}, "names the classifier 'mlp', but no"),
        (
            {"config": {"exit_conf_type": "MLP"}, "tensors": cm_head("linear")},
            "names the classifier 'mlp', but cm_head.* is 'linear'",
        ),
        ({"tensors": {"cm_head.query_proj.weight": torch.ones(7, 32)}}, "no known width"),
        ({"tensors": {"decoder.lora_A.weight": torch.ones(2, 2)}}, "LoRA"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    published(tmp_path, **changes)
    with pytest.raises(EexitError, match=said) as caught:
        load(tmp_path)
    assert caught.value.hint


def test_our_own_folder_is_read_as_strictly(tmp_path: Path) -> None:
    tiny_t5(1).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = "cm_heads.mlp.0.weight"
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EexitError, match=f"1 missing: {lost}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "longt5"}, "LongT5"),
        ({"model_type": "bert"}, r"no encoder-decoder .*\(bert\)"),
        ({}, "unknown type"),
    ],
)
def test_other_architectures(config: dict[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not is_seq2seq(config)
    with pytest.raises(EexitError, match=said):
        load(tmp_path)


def test_an_adapter_and_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(EexitError, match="adapter"):
        load(tmp_path)
    with pytest.raises(MissingArtifactError):
        load(tmp_path / "nowhere")


def test_a_state_dict_may_be_given_to_save(tmp_path: Path) -> None:
    """As transformers' Trainer does."""
    model = tiny_t5(3, dtype=torch.float32)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state, safe_serialization=True)
    assert torch.equal(load(tmp_path).shared.weight, model.shared.weight + 1)
