"""Attacks that make a multi-exit model slow: recipes of TextAttack components.

Add one: a file ``attacks/<author_year>.py`` with a :class:`~eexit_cli.attacks.recipe.Recipe`,
whose ``build(victim, budget, settings)`` returns a ``textattack.Attack``, and a line here. The
file imports TextAttack inside ``build`` only, so that listing recipes stays quick.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

ATTACKS = Catalog(
    "attack recipe",
    {
        "same-token": "eexit_cli.attacks.chen_2023:SAME_TOKEN",
        "same-char": "eexit_cli.attacks.chen_2023:SAME_CHAR",
    },
    aliases={"same": "same-token"},
)
