"""Exit criteria: each is one step function from layer to layer (``core.protocols.ExitCriterion``).

Add one: a file with a class that has ``step`` and ``describe``, a line here, and, if it has
settings of its own, a branch in :func:`build_criterion`.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

CRITERIA = Catalog(
    "exit criterion",
    {
        "threshold": "eexit_cli.exits.threshold:ThresholdExit",
        "patience": "eexit_cli.exits.patience:PatienceExit",
        "voting": "eexit_cli.exits.voting:VotingExit",
        "static": "eexit_cli.exits.static:StaticExit",
    },
)
