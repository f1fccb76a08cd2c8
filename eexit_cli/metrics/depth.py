"""How deep samples go, in the three figures that the papers report under one word, "speedup".

They are kept apart under their own names: ``speedup_layers`` (SAME) = L / E, ``saved_layers``
(PABEE's "Speed Up") = 1 - E / L, ``cost_layers`` (DeeBERT's "expected saving") = E / L, where E is
the mean exit layer. Layers are not seconds; ``metrics.latency`` measures those.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def depth_metrics(exit_layers: ArrayLike, num_layers: int) -> dict[str, float]:
    """Mean exit layer and what follows from it.

    Args:
        exit_layers: layers executed per sample, 1..L. Shape: [samples].
        num_layers: L.

    Returns:
        ``mean_exit_layer``, ``speedup_layers``, ``saved_layers``, ``cost_layers``, ``efficacy``.
    """
    mean = float(np.mean(np.asarray(exit_layers, dtype=np.float64)))
    return {
        "mean_exit_layer": mean,
        "speedup_layers": num_layers / mean,
        "saved_layers": 1 - mean / num_layers,
        "cost_layers": mean / num_layers,
        "efficacy": efficacy(exit_layers, num_layers),
    }


def gain_removed(before: float, after: float, num_layers: int) -> float | None:
    """Share of the saved layers that an attack takes back: (E' - E) / (L - E).

    Args:
        before, after: mean exit layers E and E'.
        num_layers: L.

    Returns:
        1 means that every sample now uses all layers; negative means that the attack made the
        model faster; None where nothing had been saved.
    """
    if before >= num_layers:
        return None
    return (after - before) / (num_layers - before)


def efficacy(exit_layers: ArrayLike, num_layers: int) -> float:
    """WAFFLE's efficacy (arXiv:2310.19152, after Hong et al. 2021), in [0, 1].

    The trapezoid area under (fraction of samples that have left) against (layer / L), from (0, 0)
    to (1, 1): 1 - 1 / (2L) if everybody leaves at layer 1, 1 / (2L) if all use all layers.
    """
    layers = np.asarray(exit_layers, dtype=np.int64)
    # Shape: [L + 1], entry i = fraction that has left after i layers
    left = np.array([np.mean(layers <= layer) for layer in range(num_layers + 1)])
    return float(np.sum((left[1:] + left[:-1]) / 2) / num_layers)


def histogram(exit_layers: ArrayLike, num_layers: int) -> list[int]:
    """Samples per exit layer. Shape: [L]."""
    layers = np.asarray(exit_layers, dtype=np.int64)
    return np.bincount(layers, minlength=num_layers + 1)[1:].tolist()
