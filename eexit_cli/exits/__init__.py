"""Exit criteria: each is one step function from layer to layer (``core.protocols.ExitCriterion``).

Add one: a file with a :class:`eexit_cli.core.criterion.Criterion`, which also says its options,
grid, scale and words, and a line here. The file imports torch only inside functions: ``--help``
reads the options of all of them.
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
    plugins="eexit.exits",
    needs=("name", "option", "options", "build", "grid", "scale", "words"),
)
