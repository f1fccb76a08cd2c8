"""Training: losses over exits, strategies made of stages, and transformers' Trainer running them.

Add a strategy: a :class:`eexit_cli.training.strategies.Strategy` and a line here.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

STRATEGIES = Catalog(
    "training strategy",
    {
        "two-stage": "eexit_cli.training.strategies:TWO_STAGE",
        "joint": "eexit_cli.training.strategies:JOINT",
        "alternating": "eexit_cli.training.strategies:ALTERNATING",
        "weighted-joint": "eexit_cli.training.strategies:WEIGHTED_JOINT",
    },
    aliases={"two_stage": "two-stage", "alternate": "alternating", "weighted": "weighted-joint"},
)

FAMILY_STRATEGIES = {"deebert": "two-stage", "pabee": "weighted-joint"}
"""What each family's paper trains with."""
