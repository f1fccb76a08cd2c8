"""Published layouts, recognised and converted: compared with transformers' own hidden states."""

from __future__ import annotations

import pytest
import torch
from models_tiny import (
    HIDDEN,
    albert_shapes,
    bert_shapes,
    deebert_shapes,
    pabee_shapes,
    published_config,
    random_batch,
    random_tensors,
    write_checkpoint,
)
from transformers import AlbertModel, AutoConfig, BertModel, RobertaModel

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.models.encoder.conversion import load_classifier

LAYERS = 4
ENCODERS = {"bert": BertModel, "roberta": RobertaModel, "albert": AlbertModel}


def hidden_states(prefix, config, tensors, batch):
    """Transformers' own hidden states of the file's encoder, one per layer."""
    encoder = ENCODERS[prefix](
        AutoConfig.for_model(prefix, **{k: v for k, v in config.items() if k != "model_type"}),
        add_pooling_layer=False,
    )
    own = {
        name.removeprefix(f"{prefix}."): value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.") and ".highway." not in name and ".pooler." not in name
    }
    encoder.load_state_dict(own, strict=True)
    encoder.double().eval()
    with torch.no_grad():
        return encoder(**batch, output_hidden_states=True).hidden_states[1:]


def head(tensors, pooler, classifier, hidden):
    """tanh(W h + b) of the first token, then a linear map, from the file's tensors by name."""
    double = {name: tensors[name].double() for name in tensors}
    pooled = torch.tanh(hidden[:, 0] @ double[f"{pooler}.weight"].T + double[f"{pooler}.bias"])
    return pooled @ double[f"{classifier}.weight"].T + double[f"{classifier}.bias"]


def logits_of(folder, batch):
    model = load_classifier(folder, dtype="float64")
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("prefix", ["bert", "roberta"])
def test_deebert_layout(tmp_path, prefix):
    config = published_config(prefix, LAYERS)
    tensors = random_tensors(deebert_shapes(prefix, LAYERS), seed=1)
    folder = write_checkpoint(tmp_path / "model", config, tensors)
    batch = random_batch([9, 4, 6])

    states = hidden_states(prefix, config, tensors, batch)
    ramp = f"{prefix}.encoder.highway"
    expected = [
        head(tensors, f"{ramp}.{index}.pooler.dense", f"{ramp}.{index}.classifier", state)
        for index, state in enumerate(states[:-1])
    ]
    expected.append(head(tensors, f"{prefix}.pooler.dense", "classifier", states[-1]))
    torch.testing.assert_close(
        logits_of(folder, batch), torch.stack(expected, dim=1), rtol=0, atol=1e-9
    )

    model = load_classifier(folder)
    assert model.config.family == "deebert"
    assert model.config.task == "sst2"
    assert model.config.exit_defaults == {
        "criterion": "threshold",
        "confidence": "entropy",
        "threshold": 0.19,
    }
    assert model.config.training == {"converted_from": "deebert"}
    assert not model.training


def test_deeberts_untrained_last_ramp_is_kept_but_never_answers(tmp_path):
    config = published_config("bert", LAYERS)
    tensors = random_tensors(deebert_shapes("bert", LAYERS), seed=2)
    batch = random_batch([7, 3])
    before = logits_of(write_checkpoint(tmp_path / "a", config, tensors), batch)
    last = f"bert.encoder.highway.{LAYERS - 1}"
    changed = {
        name: value + 1.0 if name.startswith(last) else value for name, value in tensors.items()
    }
    folder = write_checkpoint(tmp_path / "b", config, changed)
    assert torch.equal(before, logits_of(folder, batch))

    model = load_classifier(folder)
    assert model.config.untrained_ramp
    assert torch.equal(model.last_ramp.classifier.weight, changed[f"{last}.classifier.weight"])
    assert torch.equal(model.last_ramp.pooler.dense.bias, changed[f"{last}.pooler.dense.bias"])


def test_a_file_without_the_untrained_ramp_is_whole(tmp_path):
    last = f"bert.encoder.highway.{LAYERS - 1}"
    tensors = random_tensors(deebert_shapes("bert", LAYERS))
    tensors = {name: value for name, value in tensors.items() if not name.startswith(last)}
    model = load_classifier(
        write_checkpoint(tmp_path / "model", published_config("bert", LAYERS), tensors)
    )
    assert model.last_ramp is None
    assert not model.config.untrained_ramp


@pytest.mark.parametrize("prefix", ["bert", "albert"])
def test_pabee_layout(tmp_path, prefix):
    config = published_config(prefix, LAYERS)
    tensors = random_tensors(pabee_shapes(prefix, LAYERS), seed=3)
    folder = write_checkpoint(tmp_path / "model", config, tensors)
    batch = random_batch([5, 8])

    pooler = "albert.pooler" if prefix == "albert" else "bert.pooler.dense"
    expected = [
        head(tensors, pooler, f"classifiers.{index}", state)
        for index, state in enumerate(hidden_states(prefix, config, tensors, batch))
    ]
    torch.testing.assert_close(
        logits_of(folder, batch), torch.stack(expected, dim=1), rtol=0, atol=1e-9
    )
    model = load_classifier(folder)
    assert model.config.family == "pabee"
    assert model.config.exit_defaults == {"criterion": "patience", "patience": 4}
    assert len(model.poolers) == 1


def test_old_files_buffers_are_known(tmp_path):
    tensors = random_tensors(deebert_shapes("bert", LAYERS))
    tensors["bert.embeddings.position_ids"] = torch.arange(40)[None]
    tensors["bert.embeddings.token_type_ids"] = torch.zeros(1, 40, dtype=torch.int64)
    model = load_classifier(
        write_checkpoint(tmp_path / "model", published_config("bert", LAYERS), tensors)
    )
    assert model.num_exits == LAYERS


@pytest.mark.parametrize(
    ("change", "classes"),
    [
        ({"num_labels": None, "id2label": None}, 2),
        ({"num_labels": None, "id2label": None}, 3),
        ({"num_labels": 3, "id2label": None}, 3),
        ({"num_labels": None, "id2label": {"0": "no", "1": "maybe", "2": "yes"}}, 3),
        ({"num_labels": 1, "id2label": {"0": "LABEL_0"}}, 1),
    ],
)
def test_the_number_of_labels_is_found_in_old_configurations(tmp_path, change, classes):
    config = published_config("bert", LAYERS) | change
    config = {key: value for key, value in config.items() if value is not None}
    tensors = random_tensors(deebert_shapes("bert", LAYERS, classes))
    model = load_classifier(write_checkpoint(tmp_path / "model", config, tensors))
    assert model.num_classes == classes
    if classes == 3 and "id2label" in config:
        assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    # An entropy threshold means nothing for one output.
    assert bool(model.config.exit_defaults) == (classes > 1)


def test_a_missing_model_type_is_read_from_the_tensors(tmp_path):
    config = published_config("roberta", LAYERS)
    del config["model_type"]
    tensors = random_tensors(deebert_shapes("roberta", LAYERS))
    model = load_classifier(write_checkpoint(tmp_path / "model", config, tensors))
    assert model.config.backbone["model_type"] == "roberta"


def test_old_robertas_count_positions_from_index_two_whatever_the_configuration(tmp_path):
    tensors = random_tensors(deebert_shapes("roberta", LAYERS), seed=5)
    plain = published_config("roberta", LAYERS)
    batch = random_batch([6, 6])
    expected = logits_of(write_checkpoint(tmp_path / "a", plain, tensors), batch)
    old = write_checkpoint(tmp_path / "b", plain | {"pad_token_id": 0}, tensors)
    assert torch.equal(logits_of(old, batch), expected)
    # New files mean what they say.
    new_config = plain | {"pad_token_id": 0, "transformers_version": "4.2.0"}
    new = write_checkpoint(tmp_path / "c", new_config, tensors)
    assert not torch.allclose(logits_of(new, batch), expected)


# --- strictness ---------------------------------------------------------------------------------


def deebert_files():
    return published_config("bert", LAYERS), random_tensors(deebert_shapes("bert", LAYERS))


def pabee_files():
    return published_config("albert", LAYERS), random_tensors(pabee_shapes("albert", LAYERS))


def load_error(folder):
    with pytest.raises(EexitError) as caught:
        load_classifier(folder)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("files", [deebert_files, pabee_files])
def test_every_single_missing_tensor_is_an_error_that_names_it(tmp_path, files):
    config, tensors = files()
    for name in tensors:
        rest = {key: value for key, value in tensors.items() if key != name}
        message = load_error(write_checkpoint(tmp_path / "model", config, rest))
        assert "1 missing" in message
        assert name in message


@pytest.mark.parametrize("files", [deebert_files, pabee_files])
def test_every_single_mis_shaped_tensor_is_an_error_that_names_it(tmp_path, files):
    config, tensors = files()
    # The classifiers' rows would be taken for the number of labels if config.json were silent.
    for name, value in tensors.items():
        longer = torch.cat([value, value[:1]])
        folder = write_checkpoint(tmp_path / "model", config, tensors | {name: longer})
        message = load_error(folder)
        assert "1 mis-shaped" in message
        assert f"{name} {list(longer.shape)}, expected {list(value.shape)}" in message


@pytest.mark.parametrize(
    "extra",
    [
        "bert.encoder.layer.9.output.dense.weight",
        "bert.encoder.highway.9.classifier.bias",
        "lm_head.weight",
        "classifier.dense.weight",
        "embeddings.position_idx",
    ],
)
def test_an_unexpected_tensor_is_an_error_that_names_it(tmp_path, extra):
    config, tensors = deebert_files()
    folder = write_checkpoint(tmp_path / "model", config, tensors | {extra: torch.zeros(2, HIDDEN)})
    message = load_error(folder)
    assert "1 unexpected" in message
    assert extra in message


def test_many_problems_are_counted_and_the_first_named(tmp_path):
    config, tensors = deebert_files()
    message = load_error(
        write_checkpoint(tmp_path / "model", config | {"num_hidden_layers": LAYERS + 1}, tensors)
    )
    assert "bert.encoder.layer.4.attention.self.query.weight" in message
    assert "more" in message


def test_integer_weights_are_refused(tmp_path):
    config, tensors = deebert_files()
    tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.int8)
    message = load_error(write_checkpoint(tmp_path / "model", config, tensors))
    assert "1 not floating point: classifier.weight (torch.int8)" in message


def test_labels_that_contradict_the_file_are_an_error(tmp_path):
    config, tensors = deebert_files()
    folder = write_checkpoint(tmp_path / "model", config | {"num_labels": 3}, tensors)
    assert "classifier.weight [2, 16], expected [3, 16]" in load_error(folder)


def test_an_architecture_that_contradicts_the_tensors_is_an_error(tmp_path):
    _, tensors = deebert_files()
    folder = write_checkpoint(tmp_path / "model", published_config("roberta", LAYERS), tensors)
    assert "'roberta'" in (message := load_error(folder))
    assert "'bert.*'" in message


@pytest.mark.parametrize("shapes", [bert_shapes("bert", LAYERS), albert_shapes()])
def test_a_model_without_exits_is_told_how_to_get_some(tmp_path, shapes):
    prefix = next(iter(shapes)).partition(".")[0]
    folder = write_checkpoint(
        tmp_path / "model", published_config(prefix, LAYERS), random_tensors(shapes)
    )
    with pytest.raises(EexitError, match="without early exits") as caught:
        load_classifier(folder)
    assert "eexit train" in caught.value.hint


def test_an_unsupported_backbone_lists_the_supported_ones(tmp_path):
    config, tensors = deebert_files()
    renamed = {name.replace("bert.", "deberta.", 1): value for name, value in tensors.items()}
    folder = write_checkpoint(tmp_path / "model", config | {"model_type": "deberta"}, renamed)
    with pytest.raises(UsageError, match="Unknown backbone 'deberta'") as caught:
        load_classifier(folder)
    assert "roberta" in caught.value.hint


def test_relative_positions_are_refused_not_ignored(tmp_path):
    config, tensors = deebert_files()
    config["position_embedding_type"] = "relative_key"
    with pytest.raises(UsageError, match="relative_key"):
        load_classifier(write_checkpoint(tmp_path / "model", config, tensors))


def test_loading_draws_no_random_numbers(tmp_path):
    folder = write_checkpoint(tmp_path / "model", *deebert_files())
    state = torch.random.get_rng_state()
    load_classifier(folder)
    assert torch.equal(state, torch.random.get_rng_state())
