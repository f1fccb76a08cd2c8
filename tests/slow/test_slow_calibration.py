"""The guarantee by long simulation: many distributions, procedures, sizes and tolerances."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from eexit_cli.calibration import PROCEDURES
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.calibration.testing import last_rejected

pytestmark = pytest.mark.slow

SETS = 4000
RISKS = np.linspace(0.0, 0.5, 40)


def draw(rng: np.random.Generator, kind: str, n: int, sets: int) -> np.ndarray:
    """Losses with means RISKS. Shape: [n, sets, thresholds].

    The samples are independent; thresholds share each sample's luck, or not at all.
    """
    shared = rng.random((n, sets, 1))
    if kind == "bernoulli-shared":
        return (shared < RISKS).astype(float)
    if kind == "bernoulli-independent":
        return (rng.random((n, sets, len(RISKS))) < RISKS).astype(float)
    if kind == "graded":
        return RISKS * (0.5 + shared)
    if kind == "half-or-nothing":
        return np.where(shared < np.minimum(1.0, 2 * RISKS), np.minimum(0.5, 1.0), 0.0)
    if kind == "beta":
        shape = (n, sets, len(RISKS))
        inner = np.clip(RISKS, 1e-3, 1 - 1e-3)
        return rng.beta(0.5 * inner, 0.5 * (1 - inner), shape)
    raise AssertionError(kind)


BINARY = ("bernoulli-shared", "bernoulli-independent")
KINDS = (*BINARY, "graded", "half-or-nothing", "beta")
VALID = [name for name in P_VALUES if P_VALUES.load(name).valid]


@pytest.mark.parametrize(("n", "delta", "epsilon"), [(100, 0.1, 0.1), (50, 0.3, 0.05)])
@pytest.mark.parametrize(
    ("kind", "p_name"),
    [
        (kind, name)
        for kind, name in product(KINDS, VALID)
        if kind in BINARY or not P_VALUES.load(name).binary_only
    ],
)
def test_violations_stay_within_epsilon(kind, p_name, n, delta, epsilon):
    rng = np.random.default_rng([KINDS.index(kind), n])
    broken = dict.fromkeys(PROCEDURES, 0)
    for _ in range(SETS // 200):
        p = P_VALUES.load(p_name).columns(draw(rng, kind, n, 200), delta)
        for procedure in PROCEDURES:
            for row in p:
                chosen = last_rejected(PROCEDURES.load(procedure).reject(row, epsilon, starts=4))
                broken[procedure] += chosen is not None and RISKS[chosen] > delta + 1e-12
    allowed = epsilon + 3 * math.sqrt(epsilon * (1 - epsilon) / SETS)
    for procedure, count in broken.items():
        assert count / SETS <= allowed, procedure


@pytest.mark.parametrize("name", VALID)
def test_super_uniform_over_a_million_draws(name):
    rng = np.random.default_rng(0)
    for n, delta in ((10, 0.5), (30, 0.05), (200, 0.2)):
        below = dict.fromkeys((0.01, 0.05, 0.1, 0.2, 0.5), 0)
        draws = 0
        for _ in range(20):
            losses = (rng.random((n, 17_000)) < delta).astype(float)
            p = P_VALUES.load(name).columns(losses, delta)
            draws += len(p)
            for u in below:
                below[u] += int((p <= u).sum())
        for u, count in below.items():
            assert count / draws <= u + 4 * math.sqrt(u * (1 - u) / draws), (name, n, delta, u)
