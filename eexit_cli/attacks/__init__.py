"""Attacks that make a multi-exit model slow: recipes of TextAttack components.

Add one: a file ``attacks/<author_year>.py`` with a :class:`~eexit_cli.attacks.recipe.Recipe`,
whose ``build(victim, budget, settings)`` returns a ``textattack.Attack``, and a line here. The
file imports TextAttack inside ``build`` only, so that listing recipes stays quick. What is learned
once for all inputs is the recipe's ``fit``; where published code does something else than its
paper, ``compat`` names the mode that does the same.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

ATTACKS = Catalog(
    "attack recipe",
    {
        "same-token": "eexit_cli.attacks.chen_2023:SAME_TOKEN",
        "same-char": "eexit_cli.attacks.chen_2023:SAME_CHAR",
        "waffle": "eexit_cli.attacks.coalson_2023:WAFFLE",
        "universal": "eexit_cli.attacks.wallace_2019:UNIVERSAL",
        "textfooler": "eexit_cli.attacks.baselines:TEXTFOOLER",
        "pwws": "eexit_cli.attacks.baselines:PWWS",
        "deepwordbug": "eexit_cli.attacks.baselines:DEEPWORDBUG",
        "textbugger": "eexit_cli.attacks.baselines:TEXTBUGGER",
        "bae": "eexit_cli.attacks.baselines:BAE",
        "bert-attack": "eexit_cli.attacks.baselines:BERT_ATTACK",
        "a2t": "eexit_cli.attacks.baselines:A2T",
        "pruthi": "eexit_cli.attacks.baselines:PRUTHI",
        "random": "eexit_cli.attacks.chen_2023:RANDOM",
    },
    aliases={"same": "same-token"},
    plugins="eexit.attacks",
    needs=("build", "description", "source", "needs", "missing"),
)

DECODER_ATTACKS = Catalog(
    "attack recipe for decoders",
    {
        "same-token": "eexit_cli.attacks.chen_2023:DECODER_SAME_TOKEN",
        "random": "eexit_cli.attacks.chen_2023:DECODER_RANDOM",
    },
    aliases={"same": "same-token"},
)
"""Under names of :data:`ATTACKS`; ``build`` returns a ``decoder_search.DecoderAttack``."""


def catalog_of(family: str) -> Catalog:
    """The recipes for a family of models: ``encoder`` or ``decoder``."""
    return {"encoder": ATTACKS, "decoder": DECODER_ATTACKS}[family]


SUBSTITUTES = Catalog(
    "source of substitutes",
    {
        "embeddings": "eexit_cli.attacks.substitutes:EmbeddingNeighbours",
        "wordnet": "eexit_cli.attacks.substitutes:WordNetSynonyms",
    },
)
