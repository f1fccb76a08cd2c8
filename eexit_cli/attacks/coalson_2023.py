"""WAFFLE (Coalson, Ritter, Bobba and Hong, NeurIPS 2023, arXiv:2310.19152).

*BERT Lost Patience Won't Be Robust to Adversarial Slowdown.*
Greedy word swaps in the order of the gradient's importance (their A2T variant), until the mean
uncertainty of all exits exceeds ``alpha``. Published settings: query budget 1000, no word twice,
no stop-words, at most max(4, 10 %) words, 20 substitutes per word, sentence similarity 0.9.

What the published code does otherwise, and this does not:

- it normalises the score by K - 1, right for two classes only; here by the largest distance,
  2 (K - 1) / K. ``compat="upstream"`` has theirs;
- it skips an input whose score is above ``alpha`` already, though it may leave early, and returns
  the last text even where that leaves earlier than the input; here only inputs that use all layers
  are skipped, one above ``alpha`` is attacked until it does, and a text that leaves earlier is not
  an attack. ``compat="upstream"`` has theirs;
- substitutes, and the similarity of words and sentences, come from models that must be downloaded
  (counter-fitted vectors, a sentence encoder, a part-of-speech tagger); here from the victim's own
  input embeddings, or from WordNet, and parts of speech are not compared;
- it changes one column of a pair, chosen per task; here both;
- its gradient of a DeeBERT reads ramp L, which nobody trained, its score the final classifier; here
  both read the latter, in either mode: only the order of the words depends on it;
- its efficacy is ours times L / (L + 1), its mean exit layer one too high, and its accuracy after
  the attack is read at the exit of the clean input; here by what the model answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import UPSTREAM, AttackSettings, Recipe

if TYPE_CHECKING:
    import textattack

    from eexit_cli.attacks.encoder_victim import EncoderVictim

SUBSTITUTES_PER_WORD = 20
MINIMUM_CHANGES = 4


def build_waffle(
    victim: EncoderVictim, budget: Budget, settings: AttackSettings
) -> textattack.Attack:
    """Greedy word swaps towards unsure exits."""
    import textattack
    from textattack.constraints.pre_transformation import RepeatModification

    from eexit_cli.attacks import SUBSTITUTES
    from eexit_cli.attacks.constraints import ChangeLimit, NoStopWords
    from eexit_cli.attacks.greedy import GreedyByImportance
    from eexit_cli.attacks.meaning import SentenceSimilarity
    from eexit_cli.attacks.uncertainty import Uncertain, certainty_loss
    from eexit_cli.attacks.word_mutation import SubstituteSwap

    source = SUBSTITUTES.load(settings.substitutes)(victim)
    return textattack.Attack(
        Uncertain(victim, settings.alpha, compat=settings.compat),
        [
            RepeatModification(),
            NoStopWords(),
            ChangeLimit(settings.change_rate, MINIMUM_CHANGES),
            SentenceSimilarity(victim, settings.similarity),
        ],
        SubstituteSwap(source, count=SUBSTITUTES_PER_WORD),
        GreedyByImportance(victim, certainty_loss, keep_gains_only=settings.compat != UPSTREAM),
    )


WAFFLE = Recipe(
    name="waffle",
    description="word swaps that make every exit unsure, white-box, with a floor under similarity",
    source="Coalson et al., NeurIPS 2023 (WAFFLE)",
    build=build_waffle,
    reads=("alpha", "change_rate", "similarity", "substitutes", "compat"),
    compat=(UPSTREAM,),
    default_budget=1000,
    gradients=True,
)
