"""How much of a text is left after an attack, without any sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from eexit_cli.core.edits import edit_distance


def edit_similarity(first: Sequence[object], second: Sequence[object]) -> float:
    """1 - edit distance / length of the longer one: 1 for the same, 0 for nothing in common."""
    longer = max(len(first), len(second))
    return 1.0 if not longer else 1 - edit_distance(first, second) / longer


def cosine(first: ArrayLike, second: ArrayLike) -> float:
    """Cosine of two vectors, in [-1, 1]; 1 for two zero vectors, 0 where only one is zero."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if 0.0 in sizes:
        return 1.0 if sizes == (0.0, 0.0) else 0.0
    return float(np.clip(one @ other / (sizes[0] * sizes[1]), -1.0, 1.0))
