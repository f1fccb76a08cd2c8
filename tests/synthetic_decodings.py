"""Evaluations of a decoder, made through the real store from simulated confidences.

Every token has a difficulty; a layer's confidence grows with depth. It needs NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eexit_cli.store.results import ResultStore, Run

HELPFUL = {"softmax": 1.0, "saturation": 0.6, "linear": 0.8, "transformer_mlp_64": 0.9}


def decoding_run(
    store: ResultStore,
    *,
    model: str = "calm",
    layers: int = 6,
    samples: int = 120,
    longest: int = 14,
    sweep: tuple[str, ...] = (),
    static: bool = False,
    top_k: tuple[int, ...] = (),
    thresholds: tuple[float, ...] = (0.9,),
    metric: str = "phoneme_error_rate",
    seed: int = 0,
    **config: Any,
) -> Run:
    """An evaluation at softmax 0.9; with ``sweep`` rows of these measures, with ``top_k`` a grid.

    Args:
        static: with ``sweep``, also static layers.
        top_k: values of K; 0 is all tokens.
        thresholds: of the grid.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest + 1, samples)
    tokens = int(lengths.sum())
    # Shape: [tokens, layers]
    sure = rng.beta(2, 3, (tokens, 1)) + 0.75 * np.linspace(0, 1, layers) ** 1.5
    sure = np.clip(sure + rng.normal(0, 0.05, (tokens, layers)), 0, 1)

    def exits(measure: str, threshold: float) -> NDArray[np.int64]:
        leaves = sure ** (1 / HELPFUL[measure]) > threshold
        leaves[:, -1] = True
        return leaves.argmax(1) + 1

    def measured(left: NDArray[np.int64], k: int = 0) -> dict[str, Any]:
        mean = float(left.mean())
        error = 0.1 + 0.5 * float(np.mean(1 - sure[np.arange(tokens), left - 1]))
        rate = 9000 * layers / (mean + 1.2)
        return {
            metric: error,
            "exact_match": 1 - error,
            "mean_exit_layer": mean,
            "speedup_layers": layers / mean,
            "saved_layers": 1 - mean / layers,
            "cost_layers": mean / layers,
            "agreement": 0.9,
            "tokens_per_second": rate,
            "tokens_per_second_low": 0.9 * rate,
            "tokens_per_second_high": 1.05 * rate,
            "speedup_throughput": rate * (layers + 1.2) / (9000 * layers),
            "speedup_throughput_low": 0.95 * rate * (layers + 1.2) / (9000 * layers),
            "speedup_throughput_high": 1.1 * rate * (layers + 1.2) / (9000 * layers),
            "throughput_samples": 128,
            "timing_repeats": 5,
            "seconds": tokens / rate,
            "confidence_seconds": 0.1 * tokens / rate,
            **{
                f"confidence_ms_layer_{layer}{end}": scale
                * (0.05 if layer == 1 or not k else 0.004 + 0.0005 * k)
                for layer in range(1, layers)
                for end, scale in (("", 1), ("_low", 0.8), ("_high", 1.3))
            },
            **{f"exited_at_{layer}": int((left == layer).sum()) for layer in range(1, layers + 1)},
        }

    full = measured(np.full(tokens, layers))
    rows: list[dict[str, Any]] = []
    if sweep:
        rows.append({"criterion": "full", **full})
    for measure in sweep:
        for threshold in np.round(np.arange(0.95, 0.01, -0.05), 2):
            setting = {"criterion": "threshold", "confidence": measure, "threshold": threshold}
            rows.append({**setting, "min_layer": 1, **measured(exits(measure, threshold))})
    if static:
        for layer in range(layers - 1, 0, -1):
            setting = {"criterion": "static", "static_layer": layer}
            rows.append({**setting, **measured(np.full(tokens, layer))})
    for k in top_k:
        for threshold in thresholds:
            setting = {"criterion": "threshold", "confidence": "softmax", "threshold": threshold}
            setting |= {"top_k_propagation": k} if k else {}
            rows.append({**setting, **measured(exits("softmax", threshold), k)})
    left = exits("softmax", 0.9)
    own = {"criterion": "threshold", "confidence": "softmax", "threshold": 0.9, "min_layer": 1}
    asked = {"model": model, "task": "pronunciation", "sweep": bool(sweep), "exit": own, **config}
    with store.create("evaluate", asked) as run:
        for row, layers_of in enumerate(np.split(left, np.cumsum(lengths)[:-1])):
            run.append(
                {
                    "id": str(row),
                    "source": "word",
                    "target": "K AE T",
                    "output": "K AE T",
                    "output_full": "K AE T",
                    "exit_layers": layers_of,
                    "mean_exit_layer": layers_of.mean(),
                }
            )
        metrics = {
            **measured(left),
            f"{metric}_full": full[metric],
            "exact_match_full": full["exact_match"],
            "tokens_per_second_full": full["tokens_per_second"],
            "tokens_per_second_low_full": full["tokens_per_second_low"],
            "tokens_per_second_high_full": full["tokens_per_second_high"],
            "latency_samples": 50,
            "num_layers": layers,
            "samples": samples,
            "tokens": tokens,
            "batch_size": 32,
        }
        run.finish(metrics=metrics, rows=rows)
    return run


def drafts_run(
    store: ResultStore,
    *,
    model: str = "layerskip",
    layers: int = 8,
    drafts: tuple[int, ...] = (4,),
    exits: tuple[int, ...] | None = None,
    timed: bool = True,
    seed: int = 0,
) -> Run:
    """An evaluation of self-speculation, a row per layer that drafts and per longest draft.

    Args:
        exits: by default all layers but the last; of one layer and one length there are no rows.
        timed: with seconds of each.
    """
    rng = np.random.default_rng(seed)
    asked = exits or tuple(range(1, layers))

    def measured(layer: int, longest: int) -> dict[str, Any]:
        accepted = float(np.clip(layer / layers + rng.normal(0, 0.02), 0, 1))
        tokens = 1 + longest * accepted**1.3
        speed = tokens / (1 + longest * layer / layers)
        seconds = {
            "speedup_seconds": speed,
            "speedup_seconds_low": 0.9 * speed,
            "speedup_seconds_high": 1.1 * speed,
        }
        return {
            "phoneme_error_rate": 0.1,
            "mean_exit_layer": float(layers),
            "acceptance_rate": accepted,
            "tokens_per_verification": tokens,
            "layers_run_per_token": layers * (1 + longest) / tokens,
            **(seconds if timed else {}),
        }

    settings = [
        {"criterion": "self-speculative", "exit_layer": layer, "draft_tokens": longest}
        for longest in drafts
        for layer in asked
    ]
    found = [
        {**setting, **measured(int(setting["exit_layer"]), int(setting["draft_tokens"]))}
        for setting in settings
    ]
    config = {"model": model, "task": "pronunciation", "exit": settings[0]}
    config |= {"self_speculative": True, "sweep": exits is None}
    with store.create("evaluate", config) as run:
        run.append({"id": "0", "exit_layers": [layers, layers], "mean_exit_layer": layers})
        known = measured(asked[0], drafts[0])
        metrics = {**known, "phoneme_error_rate_full": 0.1, "num_layers": layers, "tokens": 2}
        run.finish(metrics=metrics, rows=found if len(found) > 1 else [])
    return run


def decoder_attack_run(
    store: ResultStore,
    *,
    model: str = "calm",
    recipes: tuple[str, ...] = ("same-token",),
    layers: int = 6,
    samples: int = 30,
    seed: int = 0,
    **config: Any,
) -> Run:
    """An attack on a decoder: outputs get deeper and longer, so that tokens and samples differ."""
    rng = np.random.default_rng(seed)
    asked = {"model": model, "recipe": ",".join(recipes), "query_budget": 200, **config}
    befores = [rng.integers(1, layers, rng.integers(2, 9)) for _ in range(samples)]
    with store.create("attack", asked) as run:
        rows = []
        for recipe in recipes:
            afters = []
            for number, before in enumerate(befores):
                after = rng.integers(2, layers + 1, len(before) + number % 7)
                afters.append(after)
                middle = float(before.mean() + after.mean()) / 2
                spent = 20 + 5 * number
                run.append(
                    {
                        "recipe": recipe,
                        "id": str(number),
                        "text": "word",
                        "status": "attacked",
                        "exit_layer_before": before.mean(),
                        "exit_layer_after": after.mean(),
                        "tokens_before": len(before),
                        "tokens_after": len(after),
                        "token_layers_before": before,
                        "token_layers_after": after,
                        "progress": [
                            [1, before.mean()],
                            [spent, middle],
                            [spent + 9, after.mean()],
                        ],
                    }
                )
            means = [float(np.concatenate(found).mean()) for found in (befores, afters)]
            rows.append(
                {
                    "recipe": recipe,
                    "samples": samples,
                    "num_layers": layers,
                    "mean_exit_layer_before": means[0],
                    "mean_exit_layer_after": means[1],
                    "gain_removed": (means[1] - means[0]) / (layers - means[0]),
                }
            )
        figures = {name: value for name, value in rows[0].items() if name != "recipe"}
        run.finish(metrics=figures, rows=rows)
    return run
