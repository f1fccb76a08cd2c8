"""Balcony's training: exits of their own learn from a model that stays as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from causal_books import book, write_reader
from causal_tiny import LAYERS, prompts, tiny
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.special import softmax
from scipy.stats import entropy

from eexit_cli.config.evaluate import EvaluateConfig
from eexit_cli.config.train import TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.train import run_training
from eexit_cli.training.balcony import Balcony, self_distillation
from eexit_cli.training.trainer import Objective


@given(seed=st.integers(0, 1000), exits=st.integers(1, 3))
def test_the_loss_is_the_divergence_from_the_full_model(seed: int, exits: int) -> None:
    chance = np.random.default_rng(seed)
    logits = [chance.normal(scale=3, size=(2, 3, 7)) for _ in range(exits)]
    taught = chance.normal(scale=3, size=(2, 3, 7))
    labels = np.where(chance.random((2, 3)) < 0.3, -100, 1)
    labels[0, 0] = 1
    kept = labels != -100
    # Shape: [tokens, 7]; scipy's entropy of two is their divergence.
    wanted = [
        entropy(softmax(taught[kept], axis=-1), softmax(each[kept], axis=-1), axis=-1)
        for each in logits
    ]
    found = self_distillation(
        [torch.tensor(each) for each in logits], torch.tensor(taught), torch.tensor(labels)
    )
    assert float(found) == pytest.approx(np.mean(wanted), rel=1e-5)


def objective_of(model: Any, layers: tuple[int, ...]) -> Objective:
    recipe = Balcony(layers)
    recipe.prepare(model)
    objective = recipe.objective(model, "balcony", 10)
    objective.apply()
    return objective


def batch_of(seed: int = 0) -> dict[str, torch.Tensor]:
    ids, mask = prompts()
    labels = torch.randint(3, 60, (len(ids), 5), generator=torch.Generator().manual_seed(seed))
    labels[0, 3:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "gpt_neox", "opt"])
def test_an_exit_begins_as_the_last_layer(kind: str, tmp_path: Path) -> None:
    """So before the last layer it says what the full model says, and nothing is left to learn."""
    model, _ = tiny(tmp_path, kind)
    if kind == "gemma2":
        # transformers' eager attention takes a float32 softmax of float64's lowest number.
        model = model.float()
    objective = objective_of(model, (2, LAYERS - 1))
    batch = batch_of()
    found, _ = objective.loss(model, batch, 1)
    states = model.layer_states(
        batch["input_ids"], batch["attention_mask"], model.shift_right(batch["labels"])
    ).states
    if kind != "gemma2":  # whose layers see by turns far and near: that before is of another kind
        torch.testing.assert_close(states[LAYERS - 2], states[LAYERS - 1])
    assert found.item() > 1e-6
    found.backward()
    reached = {name for name, each in model.named_parameters() if each.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if name.startswith("exits.")}


def test_what_does_not_train_runs_without_dropout(tmp_path: Path) -> None:
    model, _ = tiny(tmp_path, "gpt2")
    objective = objective_of(model, (2,))
    model.train()
    objective.loss(model, batch_of(), 1)
    assert not model.transformer.h[0].training
    assert model.exits["2"].layer.training
    model.eval()
    objective.loss(model, batch_of(), None)
    assert not model.exits["2"].layer.training


@pytest.mark.parametrize(
    ("asked", "depth_of", "wanted"),
    [((), 4, (1, 2, 3)), ((3, 1, 3), 4, (1, 3)), ((2,), 4, (2,))],
)
def test_where_exits_come(
    asked: tuple[int, ...], depth_of: int, wanted: tuple[int, ...], tmp_path: Path
) -> None:
    model, _ = tiny(tmp_path, "llama")
    Balcony(asked).prepare(model)
    assert model.exit_layers == (*wanted, depth_of)
    Balcony().prepare(model)
    Balcony(wanted).prepare(model)
    assert model.exit_layers == (*wanted, depth_of)
    with pytest.raises(UsageError, match="exits of its own after layers"):
        Balcony((*wanted, 4)).prepare(model)


@pytest.mark.parametrize("layers", [(4,), (2, 9)])
def test_layers_that_cannot_be(layers: tuple[int, ...], tmp_path: Path) -> None:
    model, _ = tiny(tmp_path, "llama")
    with pytest.raises(UsageError, match=r"--exit-layers .* is outside 1\.\.3"):
        Balcony(layers).prepare(model)


# --- a whole training ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("balcony")
    (folder / "book.txt").write_text(book(500), encoding="utf-8")
    (folder / "other.txt").write_text(book(160, seed=4), encoding="utf-8")
    write_reader(folder / "reader", kind="gpt2")
    first = config_of(folder, backbone="reader", output="full", strategy="last-ce")
    run_training(first)
    run_training(config_of(folder, backbone="full", output="mine", exit_layers=(1, 2)))
    return folder


def config_of(folder: Path, **changes: Any) -> TrainConfig:
    changes = {"strategy": "balcony", **changes}
    for name in ("backbone", "output"):
        if changes.get(name) is not None:
            changes[name] = folder / changes[name]
    return TrainConfig(
        model="layerskip",
        data_file=folder / "book.txt",
        max_length=24,
        epochs=3,
        batch_size=4,
        learning_rate=2e-3,
        device="cpu",
        results_dir=folder / "results",
        **{**changes, "backbone": str(changes["backbone"])},
    )


def evaluated(folder: Path, model: str, **options: Any) -> dict[str, Any]:
    config = EvaluateConfig(
        model=str(folder / model),
        data_file=folder / "other.txt",
        dtype="float64",
        device="cpu",
        latency_samples=0,
        results_dir=folder / "results",
    )
    return dict(run_evaluation(replace(config, **options)).metrics)


def test_the_model_itself_stays_as_it_is(place: Path) -> None:
    before, after = (load_file(place / name / "model.safetensors") for name in ("full", "mine"))
    assert {name for name in after if not name.startswith("exits.")} == set(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    full = [evaluated(place, name)["perplexity_full"] for name in ("full", "mine")]
    assert full[0] == full[1]


def test_its_exits_learn(place: Path) -> None:
    """Better than the model cut off there, and closer to the full one."""
    for layer in (1, 2):
        cut = evaluated(place, "full", static_layer=layer)
        own = evaluated(place, "mine", static_layer=layer)
        assert own["perplexity"] < cut["perplexity"]
        assert own["agreement"] > cut["agreement"]
    config = json.loads((place / "mine" / "config.json").read_text(encoding="utf-8"))
    assert set(config["exit_modules"]) == {"1", "2"}
    assert config["training"]["strategy"] == "balcony"


@pytest.mark.parametrize(("model", "layers"), [("mine", (1, 2, 4)), ("full", (1, 2, 3, 4))])
def test_a_training_measures_what_an_evaluation_does(
    place: Path, model: str, layers: tuple[int, ...]
) -> None:
    """Its figures of layers come from one pass, an evaluation's from decoding."""
    config = json.loads((place / model / "config.json").read_text(encoding="utf-8"))
    known = config["training"]["validation"]
    assert [name for name in known if name.startswith("perplexity_exit_")] == [
        f"perplexity_exit_{layer}" for layer in layers
    ]
    # The pieces of the validation are those that the model remembers not to have learned.
    held_out = {"data_file": place / "book.txt", "split": "validation"}
    for layer in layers:
        found = evaluated(place, model, static_layer=layer, **held_out)
        assert found["perplexity"] == pytest.approx(known[f"perplexity_exit_{layer}"], rel=1e-5)
    card = (place / model / "README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| ") and "." in line]
    assert [int(line.split("|")[1]) for line in rows] == list(layers)


def test_it_goes_on(place: Path) -> None:
    run_training(config_of(place, backbone="mine", output="again"))
    tensors = [load_file(place / name / "model.safetensors") for name in ("mine", "again")]
    changed = {name for name in tensors[0] if not torch.equal(*(each[name] for each in tensors))}
    assert changed
    assert all(name.startswith("exits.") for name in changed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "mine", "strategy": "layerskip"}, "has exits of its own .*trains none"),
        ({"backbone": "mine", "strategy": None, "confidence": "linear"}, "has exits of its own"),
        ({"backbone": "mine", "exit_layers": (3,)}, "exits of its own after layers 1, 2"),
        ({"backbone": "full", "exit_layers": (4,)}, "--exit-layers 4 is outside"),
        (
            {"backbone": "full", "strategy": "layerskip", "exit_layers": (1,)},
            "--exit-layers goes with Balcony",
        ),
        (
            {"backbone": "full", "layer_dropout": 0.1},
            "--layer-dropout goes with LayerSkip",
        ),
    ],
)
def test_what_cannot_be(place: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_training(config_of(place, output="never", **changes))
    assert not (place / "never" / "config.json").exists()
