"""Every family of models, with a tiny model: whatever reads a model may rely on this."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from golden.golden_models import SPELT, WORDS, write_causal, write_decoder, write_encoder

import eexit_cli as eexit
from eexit_cli.confidence import CLASSIFIERS, EVERY_MEASURE
from eexit_cli.config import CalibrateConfig, EvaluateConfig, PredictConfig
from eexit_cli.config.field import FAMILIES as IN_WORDS
from eexit_cli.core.answers import Exit
from eexit_cli.core.errors import UsageError
from eexit_cli.core.family import Model
from eexit_cli.families import FAMILIES
from eexit_cli.families.opening import family_of

WRITERS: Mapping[str, Callable[[Path], None]] = {
    "encoder": write_encoder,
    "seq2seq": write_decoder,
    "causal": write_causal,
}
TEXTS: Mapping[str, tuple[str, ...]] = {
    "encoder": tuple(" ".join(WORDS[at : at + 2 + at % 5]) for at in range(0, 30, 2)),
    "seq2seq": SPELT,
    "causal": SPELT,
}
NAMES = list(FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family."""
    root = tmp_path_factory.mktemp("families")
    for name, write in WRITERS.items():
        write(root / name)
    return {name: root / name for name in WRITERS}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, folders: dict[str, Path]) -> Model:
    return eexit.load(str(folders[name]), device="cpu", dtype="float32")


def some_exits(model: Model) -> list[Exit]:
    """The full model, its own exit, and a few of every measure's sweep."""
    grid = model.grid([], EvaluateConfig(model=model.name))
    assert grid
    return [model.full(), model.default_exit(), *grid[:: max(len(grid) // 8, 1)]]


def test_every_family_has_a_tiny_model_and_words() -> None:
    """Add a writer and texts above: the contracts below are then tested on it."""
    assert set(WRITERS) == set(TEXTS) == set(FAMILIES) == set(IN_WORDS)


def test_a_folder_is_recognised_by_its_own_family_before_all_others(
    name: str, folders: dict[str, Path]
) -> None:
    config = json.loads((folders[name] / "config.json").read_text(encoding="utf-8"))
    claims = [other for other in FAMILIES if FAMILIES.load(other).recognises(config)]
    assert claims[-1] == name  # the more particular come later
    assert FAMILIES.load(name).name == family_of(str(folders[name])).name == name


def test_it_says_of_itself_what_every_use_needs(name: str, model: Model) -> None:
    assert model.family == name
    assert model.num_layers > 1
    assert model.max_length > 1
    # Texts have no class names; classes have one each, and numbers none.
    answer = model.answers(TEXTS[name][:1]).outputs[0]
    assert isinstance(answer, str) == (model.label_names is None)
    if model.label_names:
        assert model.label_names[answer]


def test_an_exit_is_a_line_of_json_and_reads_back(name: str, model: Model) -> None:
    exits = some_exits(model)
    assert len(set(exits)) > 2
    for exit in exits:
        assert json.loads(exit.key) == exit.described
        again = model.exit_from(json.loads(json.dumps(exit.described)))
        assert again.described == exit.described
        assert again == exit
        assert hash(again) == hash(exit)
        first, second = (model.answers(TEXTS[name][:4], each) for each in (exit, again))
        assert (first.outputs, first.exit_layers) == (second.outputs, second.exit_layers)


def test_the_full_model_leaves_at_its_last_layer(name: str, model: Model) -> None:
    layers = model.answers(TEXTS[name], model.full()).exit_layers
    assert {layer for decisions in layers for layer in decisions} == {model.num_layers}


def test_a_batch_is_its_texts_one_by_one_and_ready_inputs_are_texts(
    name: str, model: Model
) -> None:
    texts = TEXTS[name]
    left: set[int] = set()
    for exit in some_exits(model):
        together = model.answers(texts, exit)
        assert together.exit == exit
        assert len(together) == len(together.exit_layers) == len(texts)
        for at, text in enumerate(texts):
            alone = model.answers([text], exit)
            assert list(alone.outputs) == [together.outputs[at]], (exit.key, text)
            assert list(alone.exit_layers) == [together.exit_layers[at]], (exit.key, text)
        left.update(layer for decisions in together.exit_layers for layer in decisions)
    assert min(left) >= 1
    assert max(left) == model.num_layers
    assert len(left) > 2


def test_a_knob_begins_at_the_full_model_and_holds_exits_as_they_are_described(
    name: str, model: Model
) -> None:
    (knob,) = model.knobs(CalibrateConfig(model=model.name))
    assert len(knob.values) == len(knob.settings) > 2
    assert len(set(knob.values)) == len(knob.values)
    assert knob.values in (tuple(sorted(knob.values)), tuple(sorted(knob.values, reverse=True)))
    assert json.loads(json.dumps(knob.settings)) == list(knob.settings)
    cautious, *_, eager = (
        model.answers(TEXTS[name], model.exit_from(settings)).exit_layers
        for settings in (knob.settings[0], knob.settings[-1])
    )
    assert {layer for decisions in cautious for layer in decisions} == {model.num_layers}
    assert min(layer for decisions in eager for layer in decisions) < model.num_layers


REFUSED: tuple[dict[str, Any], ...] = (
    {"threshold": -0.5},
    {"threshold": float("nan")},
    {"static_layer": 99},
    {"confidence": "nobody"},
    {"threshold": 0.5, "static_layer": 1},
)


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_an_exit_that_means_nothing_is_refused_with_a_hint(
    options: dict[str, Any], name: str, model: Model
) -> None:
    with pytest.raises(UsageError) as refused:
        model.exit(PredictConfig(model=model.name, **options))
    assert refused.value.hint


@pytest.mark.parametrize("measure", EVERY_MEASURE)
def test_a_measure_is_this_familys_or_refused(measure: str, name: str, model: Model) -> None:
    config = EvaluateConfig(model=model.name)
    try:
        known = model.measure(measure)
    except UsageError as error:
        refusal: UsageError | None = error
    else:
        refusal = None
        assert model.measure(known) == known
    swept = {exit.described.get("confidence") for exit in model.grid([], config)}
    if refusal is not None:
        assert measure in refusal.message
        assert refusal.hint
        assert measure not in swept
    elif known in swept:  # a model may lack a classifier
        grid = model.grid([measure], config)
        assert {exit.described.get("confidence", known) for exit in grid} == {known}
    else:
        assert known in CLASSIFIERS
