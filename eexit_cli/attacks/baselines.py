"""Attacks on accuracy as baselines: TextAttack's own recipes, unchanged, on a multi-exit victim.

Add one: an entry below with what it needs, and a line in the catalog. What a recipe needs
and this machine lacks is said by ``--list-recipes`` and in the table, and nothing is downloaded
behind the user's back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from eexit_cli.attacks import needs
from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.needs import Need
from eexit_cli.attacks.recipe import AttackSettings, Recipe

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.encoder_victim import EncoderVictim


def build(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings, *, recipe: str
) -> textattack.Attack:
    """One of TextAttack's recipes on this victim; its queries and passes count in our budget.

    Args:
        recipe: the name of its class in ``textattack.attack_recipes``.
    """
    import textattack.attack_recipes

    from eexit_cli.attacks.own_goal import with_own_goal
    from eexit_cli.attacks.textattack_env import without_nltk_downloads
    from eexit_cli.attacks.wordnet_env import offer_wordnet

    if recipe == "PWWSRen2019":
        offer_wordnet()
    with without_nltk_downloads():
        attack = getattr(textattack.attack_recipes, recipe).build(victim)
    return with_own_goal(attack, victim)


def _baseline(
    name: str,
    recipe: str,
    description: str,
    source: str,
    *required: Need,
    gradients: bool = False,
) -> Recipe:
    return Recipe(
        name=name,
        description=f"accuracy: {description}",
        source=source,
        build=partial(build, recipe=recipe),
        needs=tuple(need.words for need in required),
        missing=partial(needs.missing, required),
        gradients=gradients,
        goal="misclassification",
    )


TEXTFOOLER = _baseline(
    "textfooler",
    "TextFoolerJin2019",
    "synonyms by word vectors, words ranked by deletion",
    "Jin et al., AAAI 2020",
    needs.EMBEDDINGS,
    needs.TAGGER,
    needs.UNIVERSAL_SENTENCE_ENCODER,
)
PWWS = _baseline(
    "pwws",
    "PWWSRen2019",
    "WordNet synonyms, words ranked by weighted saliency",
    "Ren et al., ACL 2019",
    needs.WORDNET,
)
DEEPWORDBUG = _baseline(
    "deepwordbug",
    "DeepWordBugGao2018",
    "misspellings of the words that matter most",
    "Gao et al., 2018",
)
TEXTBUGGER = _baseline(
    "textbugger",
    "TextBuggerLi2018",
    "misspellings, look-alikes and near words",
    "Li et al., NDSS 2019",
    needs.EMBEDDINGS,
    needs.UNIVERSAL_SENTENCE_ENCODER,
)
BAE = _baseline(
    "bae",
    "BAEGarg2019",
    "words that a masked language model puts there",
    "Garg and Ramakrishnan, EMNLP 2020",
    needs.MASKED_LANGUAGE_MODEL,
    needs.TAGGER,
    needs.UNIVERSAL_SENTENCE_ENCODER,
)
BERT_ATTACK = _baseline(
    "bert-attack",
    "BERTAttackLi2020",
    "word pieces that a masked language model puts there",
    "Li et al., EMNLP 2020",
    needs.MASKED_LANGUAGE_MODEL,
    needs.UNIVERSAL_SENTENCE_ENCODER,
)
A2T = _baseline(
    "a2t",
    "A2TYoo2021",
    "synonyms by word vectors, words ranked by gradient",
    "Yoo and Qi, EMNLP 2021",
    needs.EMBEDDINGS,
    needs.TAGGER,
    needs.SENTENCE_BERT,
    gradients=True,
)
PRUTHI = _baseline(
    "pruthi",
    "Pruthi2019",
    "one misspelling, as a keyboard makes it",
    "Pruthi et al., ACL 2019",
)
