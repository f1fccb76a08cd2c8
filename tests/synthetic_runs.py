"""Runs made through the real store from a simulated multi-exit model, for tests of what reads runs.

The simulation: every sample has a difficulty; each exit sees the right class's logit grow with
depth. It needs NumPy only and knows nothing of eexit's own metrics, so that tests can compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.store.results import ResultStore, Run

Array = NDArray[np.float64]


def simulate(
    *, samples: int = 400, layers: int = 6, classes: int = 2, seed: int = 0, lift: float = 1.0
) -> tuple[Array, NDArray[np.int64]]:
    """Probabilities, Shape: [samples, layers, classes], and labels, Shape: [samples]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    difficulty = rng.gamma(2.0, 0.9, samples)
    depth = np.linspace(0.6, 3.2, layers)
    shift = lift * depth[None, :] * (3.4 - difficulty[:, None])
    logits = rng.normal(0.0, 0.5, (samples, layers, classes))
    logits[np.arange(samples), :, labels] += shift
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True), labels


def entropy(probabilities: Array) -> Array:
    return -(probabilities * np.log(probabilities + 1e-12)).sum(-1)


def first_layer(leaves: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First layer, counted from 1, at which a row is True; the last one where none is."""
    last = leaves.shape[1]
    return np.where(leaves.any(1), leaves.argmax(1) + 1, last)


def patience_leaves(predictions: NDArray[np.int64], patience: int) -> NDArray[np.bool_]:
    agree = predictions[:, 1:] == predictions[:, :-1]
    leaves = np.zeros(predictions.shape, dtype=bool)
    for layer in range(patience, predictions.shape[1]):
        leaves[:, layer] = agree[:, layer - patience : layer].all(1)
    return leaves


def evaluate_run(
    store: ResultStore,
    *,
    model: str = "deebert",
    sweep: bool = False,
    layers: int = 6,
    seed: int = 0,
    lift: float = 1.0,
    samples: int = 400,
    metric: str = "accuracy",
    **config: Any,
) -> Run:
    """An evaluation at entropy 0.3, with rows over entropy, margin, patience and static layers."""
    probabilities, labels = simulate(samples=samples, layers=layers, seed=seed, lift=lift)
    predictions = probabilities.argmax(-1)
    rows = np.arange(samples)

    def measured(exits: NDArray[np.int64]) -> dict[str, float]:
        mean = float(exits.mean())
        return {
            metric: float((predictions[rows, exits - 1] == labels).mean()),
            "mean_exit_layer": mean,
            "speedup_layers": layers / mean,
            "saved_layers": 1 - mean / layers,
            "cost_layers": mean / layers,
        }

    ordered = np.sort(probabilities, -1)
    measures: dict[str, Callable[[float], NDArray[np.bool_]]] = {
        "entropy": lambda value: entropy(probabilities) < value,
        "margin": lambda value: ordered[..., -1] - ordered[..., -2] > value,
    }
    settings: list[dict[str, Any]] = []
    if sweep:
        for name, leaves in measures.items():
            top = np.log(2) if name == "entropy" else 1.0
            for value in np.linspace(0, top, 31):
                setting = {"criterion": "threshold", "confidence": name, "threshold": float(value)}
                settings.append({**setting, **measured(first_layer(leaves(value)))})
        for patience in range(layers - 1, 0, -1):
            exits = first_layer(patience_leaves(predictions, patience))
            settings.append({"criterion": "patience", "patience": patience, **measured(exits)})
        for layer in range(layers, 0, -1):
            exits = np.full(samples, layer)
            settings.append({"criterion": "static", "static_layer": layer, **measured(exits)})
    exits = first_layer(entropy(probabilities) < 0.3)
    asked = {"model": model, "task": "movie-reviews", "threshold": None, "sweep": sweep, **config}
    with store.create("evaluate", asked) as run:
        for row in range(samples):
            run.append(
                {
                    "id": str(row),
                    "label": labels[row],
                    "prediction": predictions[row, exits[row] - 1],
                    "exit_layer": exits[row],
                    "exit_predictions": predictions[row],
                    "exit_confidences": entropy(probabilities[row]),
                }
            )
        metrics = {
            **measured(exits),
            **{
                f"{metric}_exit_{i + 1}": (predictions[:, i] == labels).mean()
                for i in range(layers)
            },
            f"{metric}_full": (predictions[:, -1] == labels).mean(),
            "num_layers": layers,
            "samples": samples,
        }
        run.finish(metrics=metrics, rows=settings)
    return run


def attack_run(
    store: ResultStore,
    *,
    model: str = "deebert",
    recipes: tuple[str, ...] = ("same-token",),
    layers: int = 6,
    seed: int = 0,
    samples: int = 100,
    strength: float = 0.8,
    **config: Any,
) -> Run:
    """An attack that brings a share of ``strength`` of the samples some or all of the way to L."""
    probabilities, labels = simulate(samples=samples, layers=layers, seed=seed)
    predictions = probabilities.argmax(-1)
    before = first_layer(entropy(probabilities) < 0.3)
    several = len(recipes) > 1
    asked = {
        "model": model,
        "recipe": "all" if several else recipes[0],
        "threshold": None,
        **config,
    }
    with store.create("attack", asked) as run:
        rows = []
        for number, recipe in enumerate(recipes):
            rng = np.random.default_rng([seed, number])
            pushed = rng.random(samples) < strength / (number + 1)
            reach = np.where(
                rng.random(samples) < 0.7, layers, rng.integers(1, layers + 1, samples)
            )
            after = np.where(pushed, np.maximum(before, reach), before)
            for row in range(samples):
                run.append(
                    {
                        "id": str(row),
                        "text": "a film",
                        "label": labels[row],
                        "status": "skipped" if before[row] == layers else "attacked",
                        "prediction_before": predictions[row, before[row] - 1],
                        "prediction_after": predictions[row, after[row] - 1],
                        "exit_layer_before": before[row],
                        "exit_layer_after": after[row],
                        "progress": [[1, before[row]], [2 + 7 * (row % 60), after[row]]],
                        **({"recipe": recipe} if several else {}),
                    }
                )
            rows.append({"recipe": recipe, **attack_figures(before, after, layers)})
        run.finish(metrics={**attack_figures(before, after, layers)}, rows=rows)
    return run


def transfer_run(
    store: ResultStore,
    *,
    defences: bool = False,
    makers: tuple[str, ...] = ("deebert", "author/pabee-bert-base-sst2"),
    recipes: tuple[str, ...] = ("same-token", "deepwordbug"),
    victims: Mapping[str, dict[str, Any]] | None = None,
    sources: Mapping[str, dict[str, Any]] | None = None,
    family: str = "encoder",
    seed: int = 3,
) -> Run:
    """Two models' inputs on both, with defences or without.

    Args:
        victims: name -> its exit; None is the makers themselves.
        sources: id of an attack run on the first maker -> what it was asked; None is one run per
            maker.
    """
    exits = victims or {name: {"criterion": "patience", "patience": 3} for name in makers}
    asked = {"model": ",".join(exits), "transfer": ["a", "b"], "defences": defences}
    asked |= {"family": family, "exits": exits}
    names = ["none", "patience", "voting", "recalibrated"] if defences else ["none"]
    runs = {f"a-run-of-{maker}": maker for maker in makers}
    if sources is not None:
        runs = dict.fromkeys(sources, makers[0])
    rng = np.random.default_rng(seed)
    with store.create("attack", asked) as run:
        rows = [
            {
                "recipe": recipe,
                "source": source,
                "source_run": source_run,
                "victim": victim,
                "defence": defence,
                **({"patience": 4} if defence == "patience" else {}),
                "gain_removed": float(rng.uniform(-0.2, 1.0)),
            }
            for source_run, source in runs.items()
            for recipe in recipes
            for victim in exits
            for defence in names
        ]
        metrics = {"mean_exit_layer_after": 5.0, "gain_removed": 0.5, "num_layers": 6}
        run.finish(metrics=metrics, rows=rows, report={"sources": sources or {}})
    return run


def attack_figures(
    before: NDArray[np.int64], after: NDArray[np.int64], layers: int
) -> dict[str, float | int | None]:
    saved = layers - before.mean()
    return {
        "samples": len(before),
        "accuracy_before": 0.86,
        "accuracy_after": 0.71,
        "mean_exit_layer_before": before.mean(),
        "mean_exit_layer_after": after.mean(),
        "speedup_layers_before": layers / before.mean(),
        "speedup_layers_after": layers / after.mean(),
        "gain_removed": (after.mean() - before.mean()) / saved if saved else None,
        "queries_mean": 312.5,
        "num_layers": layers,
    }
