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

DECODER_STRATEGIES = Catalog(
    "training strategy of decoders",
    {
        "weighted-ce": "eexit_cli.training.decoder_strategies:WEIGHTED",
        "last-ce": "eexit_cli.training.decoder_strategies:LAST",
        "free": "eexit_cli.training.decoder_strategies:FREE",
        "layerskip": "eexit_cli.training.layerskip:STRATEGY",
        "balcony": "eexit_cli.training.balcony:STRATEGY",
    },
    aliases={"weighted_ce": "weighted-ce", "shallowdeep_kd_dyna": "free"},
)

EVERY_STRATEGY = Catalog(
    "training strategy",
    {
        **{name: STRATEGIES[name] for name in STRATEGIES},
        **{name: DECODER_STRATEGIES[name] for name in DECODER_STRATEGIES},
    },
    aliases={
        "two_stage": "two-stage",
        "alternate": "alternating",
        "weighted": "weighted-joint",
        "weighted_ce": "weighted-ce",
        "shallowdeep_kd_dyna": "free",
    },
)
"""What ``--strategy`` takes before the family is known."""

FAMILY_STRATEGIES = {"deebert": "two-stage", "pabee": "weighted-joint"}
"""What each family's paper trains with."""
