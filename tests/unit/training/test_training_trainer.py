"""Stages on transformers' Trainer: what moves, at which step, and again after an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from training_tiny import reviews, write_backbone
from transformers import AutoTokenizer

from eexit_cli.core.errors import UsageError
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.encoder.pretrained import initialise_from_backbone
from eexit_cli.training import STRATEGIES, callbacks, trainer
from eexit_cli.training.batches import Tokenized
from eexit_cli.training.checkpoints import newest_checkpoint
from eexit_cli.training.settings import TrainingSettings
from eexit_cli.training.strategies import ExitsObjective, Stage, exit_accuracy


@dataclass
class Watch:
    """A display that counts steps, and may stop the training by raising at one of them."""

    stop_at: int | None = None
    bars: list[tuple[str, int | None]] = field(default_factory=list)
    open_bars: int = 0
    steps: int = 0

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Any]:
        self.bars.append((title, total))
        self.open_bars += 1
        try:
            yield Ticker(self, counts=title == "steps")
        finally:
            self.open_bars -= 1

    def message(self, text: str) -> None:
        return None


@dataclass
class Ticker:
    watch: Watch
    counts: bool

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        if self.counts:
            self.watch.steps += steps
            if self.watch.steps == self.watch.stop_at:
                raise KeyboardInterrupt

    def update(self, *, total: int | None = None, note: str | None = None) -> None:
        return None


@dataclass
class Setup:
    model: MultiExitClassifier
    tokenizer: Any
    training: Tokenized
    validation: Tokenized

    def run(self, stage: Stage, settings: TrainingSettings, folder: Path, **others: Any) -> list:
        """Train; returns the validations."""
        seen: list[dict[str, float]] = []
        watch = others.pop("progress", Watch())
        shared = self.model.config.shared_pooler
        trainer.run_stage(
            self.model,
            self.tokenizer,
            ExitsObjective(stage, self.model, shared_pooler=shared, **others),
            self.training,
            self.validation,
            settings,
            folder=folder,
            title="steps",
            progress=watch,
            evaluated=seen.append,
        )
        assert watch.open_bars == 0
        return seen


MakeSetup = Callable[..., Setup]


@pytest.fixture
def make(tmp_path: Path) -> MakeSetup:
    folder = write_backbone(tmp_path / "backbone")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def data(count: int, seed: int) -> Tokenized:
        rows = reviews(count, seed=seed)
        labels = [int(label == "positive") for _, label in rows]
        return Tokenized.of_texts(
            tokenizer, [text for text, _ in rows], None, labels, max_length=24
        )

    def build(family: str = "deebert", samples: int = 44, dropout: float = 0.1) -> Setup:
        source = tmp_path / f"backbone-{dropout}"
        if not source.exists():
            write_backbone(source, dropout=dropout)
        model = initialise_from_backbone(
            str(source), family=family, pooling="mean", num_labels=2, seed=3
        )
        return Setup(model, tokenizer, data(samples, 0), data(21, 1))

    return build


def _weights(model: MultiExitClassifier) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _moved(before: dict[str, torch.Tensor], model: MultiExitClassifier) -> set[str]:
    return {
        name for name, value in model.named_parameters() if not torch.equal(before[name], value)
    }


SETTINGS = TrainingSettings(epochs=2, learning_rate=2e-3, batch_size=8, evaluations_per_epoch=2)


@pytest.mark.parametrize("family", ["deebert", "pabee"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_exactly_the_stages_parameters_move(
    make: MakeSetup, tmp_path: Path, family: str, strategy: str
) -> None:
    setup = make(family)
    for stage in STRATEGIES.load(strategy).stages:
        before = _weights(setup.model)
        setup.run(stage, SETTINGS, tmp_path / stage.name)
        layout = {"num_exits": 3, "shared_pooler": setup.model.config.shared_pooler}
        expected = {name for name in before if stage.trains(name, **layout)}
        # A constant added to every key changes no attention: gradients of 0 but for rounding.
        keys = {name for name in before if name.endswith("attention.self.key.bias")}
        assert _moved(before, setup.model) - keys == expected - keys


def test_ramps_poolers_start_pretrained_and_rest_in_the_first_stage(
    make: MakeSetup, tmp_path: Path
) -> None:
    setup = make("deebert")
    start = _weights(setup.model)
    setup.run(STRATEGIES.load("two-stage").stages[0], SETTINGS, tmp_path / "first")
    for index in range(2):
        name = f"poolers.{index}.dense.weight"
        assert torch.equal(setup.model.get_parameter(name), start[name])
    assert "poolers.2.dense.weight" in _moved(start, setup.model)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_alternation_counts_optimisation_steps(
    make: MakeSetup, tmp_path: Path, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ramps move after even optimisation steps only, whatever the micro-batches."""
    setup = make("deebert")
    history: list[dict[str, torch.Tensor]] = [_weights(setup.model)]
    watch = Watch()
    advance = Ticker.advance

    def record(self: Ticker, steps: int = 1, note: str | None = None) -> None:
        if self.counts:
            history.append(_weights(setup.model))
        advance(self, steps, note)

    monkeypatch.setattr(Ticker, "advance", record)
    settings = TrainingSettings(
        epochs=2,
        learning_rate=2e-3,
        batch_size=8,
        gradient_accumulation=accumulation,
        warmup_ratio=0.0,
    )
    setup.run(STRATEGIES.load("alternating").stages[0], settings, tmp_path / "a", progress=watch)
    per_epoch = -(-6 // accumulation)
    assert len(history) == 2 * per_epoch + 1
    for step in range(1, len(history)):
        old, new = history[step - 1], history[step]
        changed = {
            name.removesuffix(".weight") for name in old if not torch.equal(old[name], new[name])
        }
        assert "classifiers.2" in changed
        ramps = {"classifiers.0", "classifiers.1", "poolers.0.dense", "poolers.1.dense"}
        assert ramps & changed == (ramps if step % 2 == 0 else set())


@pytest.mark.parametrize("strategy", ["alternating", "weighted-joint"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop_at", [2, 5, 7, 11])
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(
    make: MakeSetup, tmp_path: Path, strategy: str, accumulation: int, stop_at: int
) -> None:
    """Checkpoints fall inside and at the end of epochs; dropout is on; all in one process."""
    stage = STRATEGIES.load(strategy).stages[0]
    settings = TrainingSettings(
        epochs=4 if accumulation == 2 else 2,
        learning_rate=2e-3,
        batch_size=8,
        gradient_accumulation=accumulation,
        evaluations_per_epoch=3,
    )
    unbroken = make()
    expected = unbroken.run(stage, settings, tmp_path / "unbroken")

    broken = make()
    with pytest.raises(KeyboardInterrupt):
        broken.run(stage, settings, tmp_path / "broken", progress=Watch(stop_at=stop_at))
    checkpoint = newest_checkpoint(tmp_path / "broken")
    torch.manual_seed(stop_at)  # whatever happened meanwhile must not matter
    resumed = make()
    after = resumed.run(stage, settings, tmp_path / "broken")
    done = 0 if checkpoint is None else int(checkpoint.name.split("-")[1])
    assert after == [values for values in expected if values["step"] > done]
    for name, value in unbroken.model.named_parameters():
        assert torch.equal(value, resumed.model.get_parameter(name)), name


def test_the_torso_of_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for steps, whole in ((3, True), (12, True), (20, False)):
        folder = tmp_path / f"checkpoint-{steps}"
        folder.mkdir()
        if whole:
            (folder / "complete").touch()
    (tmp_path / "checkpoint-x").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert newest_checkpoint(tmp_path / "missing") is None


def test_same_seed_same_weights_other_seed_others(make: MakeSetup, tmp_path: Path) -> None:
    stage = STRATEGIES.load("joint").stages[0]
    models = []
    for number, seed in enumerate((1, 1, 2)):
        setup = make()
        settings = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=8, seed=seed)
        setup.run(stage, settings, tmp_path / str(number))
        models.append(setup.model.state_dict())
    name = "classifiers.0.weight"
    assert torch.equal(models[0][name], models[1][name])
    assert not torch.equal(models[0][name], models[2][name])


def test_it_learns_and_validation_is_each_exits_accuracy(make: MakeSetup, tmp_path: Path) -> None:
    setup = make(samples=200)
    settings = TrainingSettings(epochs=6, learning_rate=5e-3, batch_size=16)
    seen = setup.run(STRATEGIES.load("joint").stages[0], settings, tmp_path / "joint")
    last = seen[-1]
    assert [values["epoch"] for values in seen] == [1, 2, 3, 4, 5, 6]
    assert last["accuracy_exit_3"] > 0.9
    model = setup.model.eval()
    batch = ExitsObjective.collator(setup.tokenizer)([setup.validation[i] for i in range(21)])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
    for layer in (1, 2, 3):
        expected = accuracy_score(labels.numpy(), logits[:, layer - 1].argmax(-1).numpy())
        assert last[f"accuracy_exit_{layer}"] == pytest.approx(expected)
    assert last["loss"] == pytest.approx(float(_sum_of_losses(logits, labels)), rel=1e-3)


def _sum_of_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    picked = torch.log_softmax(logits.double(), dim=-1)[torch.arange(len(labels)), :, labels]
    return -picked.mean(dim=0).sum()


def test_a_steps_gradient_is_that_of_the_papers_loss_over_all_micro_batches(
    make: MakeSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make("pabee", samples=16, dropout=0.0)
    setup.model.dropout.p = 0.0
    reference = copy.deepcopy(setup.model).double()
    taken: dict[str, torch.Tensor] = {}

    def take(self: Any, *args: Any, model: torch.nn.Module, **others: Any) -> None:
        taken.update({name: value.grad.clone() for name, value in model.named_parameters()})

    monkeypatch.setattr(callbacks.RestCallback, "on_pre_optimizer_step", take)
    settings = TrainingSettings(
        epochs=1, learning_rate=1e-3, batch_size=8, gradient_accumulation=2, dtype="float64"
    )
    setup.run(STRATEGIES.load("weighted-joint").stages[0], settings, tmp_path / "step")
    batch = ExitsObjective.collator(setup.tokenizer)([setup.training[i] for i in range(16)])
    labels = batch.pop("labels")
    logits = reference(**batch).logits
    picked = torch.log_softmax(logits, dim=-1)[torch.arange(16), :, labels]
    (-(picked.mean(dim=0) * torch.tensor([1.0, 2.0, 3.0])).sum() / 6).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    assert len(taken) == len(list(reference.parameters()))
    for name, value in reference.named_parameters():
        torch.testing.assert_close(taken[name], value.grad, rtol=1e-8, atol=1e-14)


def test_batches_are_padded_on_the_right_whatever_the_tokenizer_says(
    make: MakeSetup, tmp_path: Path
) -> None:
    stage = STRATEGIES.load("joint").stages[0]
    setups = {side: make() for side in ("right", "left")}
    for side, setup in setups.items():
        setup.tokenizer.padding_side = side
        setup.run(stage, SETTINGS, tmp_path / side)
        assert setup.tokenizer.padding_side == side
    right, left = (setup.model.state_dict() for setup in setups.values())
    assert all(torch.equal(right[name], left[name]) for name in right)


def test_frozen_embeddings_stay(make: MakeSetup, tmp_path: Path) -> None:
    setup = make()
    before = _weights(setup.model)
    frozen = tuple(setup.model.word_embeddings.parameters())
    setup.run(STRATEGIES.load("joint").stages[0], SETTINGS, tmp_path / "frozen", freeze=frozen)
    moved = _moved(before, setup.model)
    assert "backbone.embeddings.word_embeddings.weight" not in moved
    assert "backbone.embeddings.position_embeddings.weight" in moved


def test_bfloat16_trains_float32_weights(make: MakeSetup, tmp_path: Path) -> None:
    setup = make(samples=200)
    settings = TrainingSettings(epochs=6, learning_rate=5e-3, batch_size=16, dtype="bfloat16")
    seen = setup.run(STRATEGIES.load("joint").stages[0], settings, tmp_path / "half")
    assert {value.dtype for value in setup.model.parameters()} == {torch.float32}
    assert seen[-1]["accuracy_exit_3"] > 0.9


def test_float16_needs_a_gpu(make: MakeSetup, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float16"):
        make().run(
            STRATEGIES.load("joint").stages[0],
            TrainingSettings(dtype="float16"),
            tmp_path / "half",
        )


def test_regression_reports_squared_errors() -> None:
    logits = np.array([[[1.0], [2.0]], [[0.0], [1.0]]])
    assert exit_accuracy(logits, np.array([1.0, 2.0])) == {
        "mse_exit_1": pytest.approx(2.0),
        "mse_exit_2": pytest.approx(1.0),
    }


def test_nothing_is_printed(
    make: MakeSetup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    setup = make()
    capsys.readouterr()  # what making the backbone printed is not ours
    setup.run(STRATEGIES.load("joint").stages[0], SETTINGS, tmp_path / "quiet", progress=watch)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert watch.bars[0] == ("steps", 12)
    assert watch.bars.count(("Validation", 3)) == 4
