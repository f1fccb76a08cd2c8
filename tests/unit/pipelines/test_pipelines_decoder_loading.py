"""From a folder to a decoder ready to run, and what its options mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_decoders import WORDS, save_decoder, save_plain_t5

from eexit_cli.confidence import CLASSIFIERS
from eexit_cli.config import EvaluateConfig, PredictConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.exits.adaptive import AdaptiveThreshold
from eexit_cli.families.decoders.decoding import decode_examples, prepare_sources
from eexit_cli.families.decoders.exits import (
    decoder_settings,
    describe_settings,
    full_model,
    resolve_settings,
    settings_from,
)
from eexit_cli.families.decoders.loading import check_weights
from eexit_cli.families.encoder.model import load_model
from eexit_cli.families.listing import summarise
from eexit_cli.families.opening import family_of
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.models.decoding.int8 import largest_weight


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("models") / "tiny")


def config_for(folder: Path, **options) -> PredictConfig:
    return PredictConfig(model=str(folder), device="cpu", **options)


@pytest.fixture(scope="module")
def loaded(folder):
    return load_decoder(config_for(folder))


def test_everything_is_there(folder, loaded) -> None:
    assert (loaded.ref.kind, loaded.folder) == ("folder", folder)
    assert not loaded.model.training
    assert loaded.tokenizer.is_fast
    assert (loaded.num_layers, loaded.max_length, loaded.max_new_tokens) == (3, 24, 12)
    assert (loaded.trained_on, loaded.source_prefix) == ("pronunciation", "")
    assert loaded.exit_defaults["confidence"] == "softmax"
    assert family_of(str(folder)).name == "seq2seq"


def test_lengths_can_be_chosen(folder) -> None:
    chosen = load_decoder(config_for(folder, max_length=40, max_new_tokens=5, dtype="float64"))
    assert (chosen.max_length, chosen.max_new_tokens) == (40, 5)
    assert chosen.model.shared.weight.dtype == torch.float64
    for option, value in (("max_length", 1), ("max_new_tokens", 0)):
        with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value}"):
            load_decoder(config_for(folder, **{option: value}))


def test_int8_weights(folder) -> None:
    loaded = load_decoder(config_for(folder, weights="int8"))
    assert (loaded.model.weights, loaded.dtype) == ("int8", torch.float32)
    # 8 bits of each output, however small the map is.
    matrix = loaded.model.stack().decoder[0].out.matrix.t()
    whole = matrix / (matrix.abs().amax(dim=1, keepdim=True) / largest_weight())
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
    said = loaded.conditions("")
    assert (said["weights"], said["weight_width"]) == ("int8", largest_weight())
    plain = load_decoder(config_for(folder))
    assert plain.model.weights == plain.conditions("")["weights"] == "float"
    assert "weight_width" not in plain.conditions("")


def test_what_layers_would_say_is_said_by_int8_weights(folder, monkeypatch) -> None:
    """Not by transformers' layers, whose weights are float."""
    config = config_for(folder, weights="int8", static_layer=3, texts=("queue", "a"))
    model = load_decoder(config)
    monkeypatch.setattr("eexit_cli.families.decoders.predictions.trace_tokens", None)
    said = model.opinions(config, model.exit(config), SilentProgress())
    for one in said:
        assert [token["layers"][-1] for token in one["tokens"]] == [
            token["token"] for token in one["tokens"]
        ]
        assert {len(token["layers"]) for token in one["tokens"]} == {3}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_int8_weights_beside_float32_alone(folder, dtype) -> None:
    with pytest.raises(UsageError, match=f"computes in float32 .*, not in {dtype}") as refused:
        load_decoder(config_for(folder, weights="int8", dtype=dtype))
    assert refused.value.hint == "Leave --dtype or --weights int8 out"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_int8_weights_on_the_cpu_alone(device) -> None:
    with pytest.raises(UsageError, match=r"on the CPU alone, not on (cuda|mps)") as refused:
        check_weights("int8", torch.device(device), torch.float32)
    assert "--device cpu" in refused.value.hint
    check_weights("float", torch.device(device), torch.float16)


def test_unknown_weights(folder) -> None:
    with pytest.raises(UsageError, match="Unknown weights 'int4'") as refused:
        load_decoder(config_for(folder, weights="int4"))
    assert refused.value.hint == "Available: float, int8"


def test_a_folder_is_listed_with_its_classifiers(folder) -> None:
    summary = summarise("tiny", "folder", folder)
    assert summary is not None
    assert (summary.family, summary.backbone, summary.layers) == ("calm", "t5", 3)
    assert summary.classifiers == tuple(CLASSIFIERS)
    assert (summary.labels, summary.task) == ((), "pronunciation")
    assert summary.default_exit["threshold"] == 0.5


def test_a_plain_t5_loads_and_says_what_it_is(tmp_path) -> None:
    from eexit_cli.core.progress import SilentProgress

    said: list[str] = []

    class Messages(SilentProgress):
        def message(self, text: str) -> None:
            said.append(text)

    folder = save_plain_t5(tmp_path / "plain")
    plain = load_decoder(config_for(folder), progress=Messages())
    assert plain.exit_defaults == {}
    assert (plain.trained_on, plain.source_prefix, plain.max_new_tokens) == (None, None, 128)
    assert plain.max_length == 64  # the tokenizer's own limit
    assert "eexit train --model calm --backbone" in said[0]
    assert summarise("plain", "folder", folder) is None
    assert describe_settings(decoder_settings(config_for(folder), plain)) == {"criterion": "full"}


def test_the_seeds_checkpoint_loads_with_its_exit(folder, tmp_path) -> None:
    published = tmp_path / "seed"
    save_plain_t5(published)
    tensors = load_file(published / "model.safetensors")
    own = load_file(folder / "model.safetensors")
    tensors |= {
        name.replace("cm_heads.mlp.", "cm_head."): value
        for name, value in own.items()
        if name.startswith("cm_heads.mlp.")
    }
    save_file(tensors, published / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((published / "config.json").read_text())
    settings |= {"exit_conf_type": "MLP", "exit_conf_threshold": 0.7, "exit_min_layer": 2}
    settings |= {"exit_position_temp": 3.0}
    (published / "config.json").write_text(json.dumps(settings))
    loaded = load_decoder(config_for(published))
    assert list(loaded.model.cm_heads) == ["mlp"]
    described = describe_settings(decoder_settings(config_for(published), loaded))
    assert described == {
        "criterion": "threshold",
        "confidence": "mlp",
        "threshold": 0.7,
        "decay": "code",
        "decay_temperature": 3.0,
        "decay_length": 128,
        "min_layer": 2,
    }
    summary = summarise("seed", "folder", published)
    assert summary is not None
    assert summary.family == "calm"


def test_encoder_and_decoder_are_not_mistaken_for_each_other(folder) -> None:
    with pytest.raises(UsageError, match="writes text") as caught:
        load_model(config_for(folder))
    assert "eexit evaluate --model" in str(caught.value.hint)
    with pytest.raises(UsageError, match="'deebert' has no decoder"):
        load_decoder(PredictConfig(model="deebert", device="cpu"))
    assert family_of("deebert").name == "encoder"


def test_folders_that_do_not_work(folder, tmp_path) -> None:
    with pytest.raises(UsageError, match="Unknown model"):
        family_of("no-such-model")
    with pytest.raises(MissingArtifactError, match="No model folder"):
        family_of("./nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(MissingArtifactError, match="has no tokenizer"):
        load_decoder(config_for(broken))
    small = save_decoder(tmp_path / "small", vocab_size=40)
    with pytest.raises(EexitError, match="69 tokens, the model only 40"):
        load_decoder(config_for(small))


# --- options -------------------------------------------------------------------------------------

DEFAULTS = {"confidence": "softmax", "threshold": 0.9, "min_layer": 2}


def resolved(defaults=DEFAULTS, **options):
    return resolve_settings(PredictConfig(**options), defaults)


def test_the_models_own_exit_unless_told_otherwise() -> None:
    own = {"criterion": "threshold", "confidence": "softmax", "threshold": 0.9, "min_layer": 2}
    assert resolved() == own
    assert resolved(threshold=0.4) == {**own, "threshold": 0.4}
    assert resolved(min_layer=1) == {**own, "min_layer": 1}
    assert resolved(confidence="softmax_response") == own
    assert resolved(confidence="margin") == own  # the classifiers' name of the same measure
    assert resolved(static_layer=3) == {"criterion": "static", "static_layer": 3}
    assert resolved({}) == {"criterion": "full"}
    changed = resolved(confidence="saturation", threshold=0.3)
    assert changed == {**own, "confidence": "saturation", "threshold": 0.3}


def test_what_is_stored_for_one_measure_does_not_hold_for_another() -> None:
    stored = {**DEFAULTS, "top_k_propagation": 10, "decay": "paper", "temperature": 2.0}
    assert resolved(stored, threshold=0.5)["top_k_propagation"] == 10
    assert resolved(stored)["temperature"] == 2.0
    other = resolved(stored, confidence="linear", threshold=0.5)
    assert not {"top_k_propagation", "decay", "temperature"} & set(other)
    assert "top_k_propagation" not in resolved(stored, top_k_propagation=0)
    assert "decay" not in resolved(stored, decay="none")
    assert resolved(stored, temperature=5.0)["temperature"] == 5.0


def test_decay_without_a_temperature_is_the_papers() -> None:
    settings = resolved(decay="code")
    assert (settings["decay"], settings["temperature"]) == ("code", 4.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": "saturation"}, "stores no threshold for 'saturation'"),
        ({"confidence": "entropy", "threshold": 0.5}, "'entropy' is for classifiers"),
        ({"static_layer": 2, "threshold": 0.5}, "--threshold and --static-layer exclude"),
        ({"static_layer": 2, "min_layer": 2}, "--min-layer and --static-layer exclude"),
        ({"temperature": 2.0}, "--temperature says nothing"),
        ({"decay": "none", "temperature": 2.0}, "--temperature says nothing"),
        ({"adaptive_threshold": True}, "says nothing without --shallow-layer"),
        ({"threshold": "calibratd"}, "is no number"),
    ],
)
def test_options_that_say_nothing_or_contradict(options, words) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        resolved(**options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": "saturation", "threshold": 0.5, "top_k_propagation": 5}, "softmax"),
        ({"top_k_propagation": 1}, r"outside 2\.\.69"),
        ({"top_k_propagation": 70}, r"outside 2\.\.69"),
        ({"static_layer": 4}, r"outside 1\.\.3"),
        ({"min_layer": 4}, r"outside 1\.\.3"),
        ({"shallow_layer": 3}, r"outside 1\.\.2"),
        ({"shallow_layer": 1, "min_layer": 2}, "one early exit"),
        ({"shallow_layer": 1, "top_k_propagation": 5}, "nothing to propagate"),
        ({"threshold": 1.5}, r"outside \[0, 1\]"),
        (
            {"shallow_layer": 1, "adaptive_threshold": True, "decay": "paper"},
            "--adaptive-threshold and --decay",
        ),
    ],
)
def test_settings_that_do_not_fit_the_model(loaded, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        decoder_settings(PredictConfig(**options), loaded)


def test_a_classifier_that_is_not_there_names_the_command_that_adds_it(tmp_path) -> None:
    folder = save_decoder(tmp_path / "some", classifiers=("linear",))
    loaded = load_decoder(config_for(folder))
    with pytest.raises(
        UsageError, match=r"no classifier 'transformer_mlp_64' \(it has linear\)"
    ) as e:
        decoder_settings(PredictConfig(confidence="transformer_MLP_64", threshold=0.5), loaded)
    assert "eexit train --confidence transformer_mlp_64 --model" in str(e.value.hint)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"static_layer": 2},
        {"confidence": "transformer_linear_64", "threshold": 0.4, "min_layer": 2},
        {"top_k_propagation": 7, "decay": "paper", "temperature": 2.0},
        {"shallow_layer": 2, "threshold": 0.6},
        {"shallow_layer": 2, "threshold": 0.6, "adaptive_threshold": True},
    ],
)
def test_a_description_leads_back_to_the_same_settings(loaded, options) -> None:
    settings = decoder_settings(PredictConfig(**options), loaded)
    described = describe_settings(settings)
    json.dumps(described)
    again = settings_from(described, loaded)
    assert describe_settings(again) == described
    assert (again.min_layer, again.top_k, again.shallow_layer) == (
        settings.min_layer,
        settings.top_k,
        settings.shallow_layer,
    )


# --- decoding a set ------------------------------------------------------------------------------


def test_full_depth_is_transformers_generate(loaded) -> None:
    decoded = decode_examples(loaded, list(WORDS), full_model(loaded), batch_size=4)
    batch = loaded.batcher()(list(WORDS))
    expected = loaded.model.generate(
        **batch, max_new_tokens=loaded.max_new_tokens, do_sample=False, num_beams=1
    )
    texts = loaded.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert decoded.outputs == texts
    assert len(set(texts)) > 5
    assert set(decoded.token_layers) == {3}
    assert decoded.counts.tokens == len(decoded.token_layers) == sum(map(len, decoded.tokens))
    assert decoded.source_lengths == [len(word) + 1 for word in WORDS]
    assert decoded.seconds > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"static_layer": 1},
        {"confidence": "transformer_mlp_64", "threshold": 0.5},
        {"top_k_propagation": 5},
        {"shallow_layer": 1},
    ],
)
def test_any_batch_size_gives_the_same_in_the_given_order(folder, options) -> None:
    exact = load_decoder(config_for(folder, dtype="float64"))
    settings = decoder_settings(PredictConfig(**options), exact)
    sets = [
        decode_examples(exact, list(WORDS), settings, batch_size=size) for size in (1, 3, 32, None)
    ]
    for other in sets[1:]:
        assert other.tokens == sets[0].tokens
        assert other.exit_layers == sets[0].exit_layers
    alone = decode_examples(exact, [WORDS[3]], settings)
    assert alone.outputs == [sets[0].outputs[3]]


def test_timings_and_counts_add_up_over_batches(loaded) -> None:
    settings = decoder_settings(PredictConfig(), loaded, timings=True)
    decoded = decode_examples(loaded, list(WORDS), settings, batch_size=3)
    assert decoded.timings is not None
    timed = decoded.timings.as_dict()
    parts = [value for name, value in timed.items() if not name.endswith("_by_layer")]
    assert sum(parts) <= decoded.seconds  # type: ignore[arg-type]
    assert len(decoded.timings.layers) == 3
    assert decoded.counts.layer_tokens == sum(decoded.token_layers)
    assert set(decoded.token_layers) == {1, 2, 3}


def test_an_adaptive_threshold_learns_and_starts_anew(loaded) -> None:
    options = {"shallow_layer": 1, "threshold": 1.0, "adaptive_threshold": True}
    settings = decoder_settings(PredictConfig(**options), loaded)
    first = decode_examples(loaded, list(WORDS), settings, batch_size=1)
    again = decode_examples(loaded, list(WORDS), settings, batch_size=1)
    assert isinstance(settings.rule, AdaptiveThreshold)
    assert settings.rule.refits == 0
    assert first.exit_layers == again.exit_layers
    assert first.threshold is not None
    assert len(first.pairs) >= sum(layer == 3 for layer in first.token_layers)
    # The first batch still has the threshold that it started from, the full model's.
    longest = max(range(len(WORDS)), key=lambda row: len(WORDS[row]))
    assert set(first.exit_layers[longest]) == {3}


def test_cut_sources_are_counted(folder) -> None:
    short = load_decoder(config_for(folder, max_length=5))
    sources = prepare_sources(short, list(WORDS))
    assert sources.truncated == sum(len(word) > 4 for word in WORDS) > 0
    decoded = decode_examples(short, sources, full_model(short))
    assert decoded.truncated == sources.truncated
    assert max(decoded.source_lengths) == 5


def test_an_empty_source_is_named(loaded) -> None:
    with pytest.raises(UsageError, match="Text 2 has an empty source"):
        decode_examples(loaded, ["queue", "  "], full_model(loaded))
    with pytest.raises(UsageError, match="no source"):
        decode_examples(loaded, [], full_model(loaded))


def test_evaluate_and_predict_read_the_same_options() -> None:
    common = {"confidence": "softmax", "threshold": 0.3, "min_layer": 2, "top_k_propagation": 4}
    assert resolve_settings(EvaluateConfig(**common), DEFAULTS) == resolve_settings(  # type: ignore[arg-type]
        PredictConfig(**common), DEFAULTS
    )
    assert replace(PredictConfig(), **common).threshold == 0.3
