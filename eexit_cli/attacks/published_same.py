"""What SAME's published program does where it differs from the paper; for ``--compat upstream``.

The recipe file lists the differences. The pieces here replace ours one for one: the gradient that
is never zeroed, the two mutations, the constraint, the goal and the search. Since the gradient
adds up over examples, a record depends on the samples that were attacked before it.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import torch
from textattack.constraints import Constraint
from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText
from textattack.shared.utils import has_letter, words_from_text
from textattack.transformations import WordSwap
from torch import Tensor, nn

from eexit_cli.attacks.budget import FINAL_CHECK
from eexit_cli.attacks.constraints import MINIMUM_CHANGES
from eexit_cli.attacks.encoder_victim import EncoderVictim, Outcome
from eexit_cli.attacks.goal import Slowdown, SlowdownResult
from eexit_cli.attacks.letter_mutation import CRITICAL_WORDS, misspellings
from eexit_cli.attacks.recipe import UPSTREAM
from eexit_cli.attacks.slowdown_loss import slowdown_loss
from eexit_cli.attacks.vocabulary import CONTINUES, start_mark
from eexit_cli.attacks.words import word_spans
from eexit_cli.core.seed import derive_seed, stream

INITIAL_SPREAD = 0.02
"""Standard deviation of BERT's initial weights, which DeeBERT's untrained ramp still has."""


class AccumulatedGradient:
    """The gradient of the whole embedding matrix, added up over every text ever differentiated.

    A token's row holds what all of its positions in all texts have brought, so repeated words
    share one gradient. The last exit in the loss is DeeBERT's ramp L, which nobody trained: the
    model's own where its file has one, else one with BERT's initial weights (one fixed draw).

    Args:
        victim: gives each text's own gradient.
        lam: weight of the loss's disagreement term.

    Attributes:
        total: Shape: [vocabulary, embedding].
    """

    def __init__(self, victim: EncoderVictim, lam: float) -> None:
        self.victim = victim
        self.lam = lam
        self.total = torch.zeros_like(victim.embedding)
        self.ramp = untrained_ramp(victim.model)
        self._pooled: Tensor | None = None

    def add(self, text: AttackedText) -> list[int] | None:
        """Add a text's gradient.

        Returns:
            The text's token ids; None where the budget does not reach.
        """
        hook = self.victim.model.poolers[-1].register_forward_pre_hook(self._see)
        try:
            found = self.victim.gradients([text.tokenizer_input], self.loss, reserve=FINAL_CHECK)
        finally:
            hook.remove()
            self._pooled = None
        if not found:
            return None
        self.total.index_add_(0, found[0].input_ids, found[0].gradient)
        return found[0].input_ids.tolist()

    def loss(self, logits: Tensor, exit_layers: Tensor) -> Tensor:
        """SAME's loss as published. Shapes as in :func:`slowdown_loss`."""
        if self.ramp is not None:
            logits = torch.cat([logits[:, :-1], self.ramp(self._pooled)[:, None]], dim=1)
        return slowdown_loss(logits, exit_layers, lam=self.lam, compat=UPSTREAM)

    def _see(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._pooled = given[0]


def untrained_ramp(model: Any) -> nn.Module | None:
    """DeeBERT's ramp L; None for models whose last exit the published program trains too."""
    if model.config.family != "deebert":
        return None
    own: nn.Module | None = model.last_ramp
    if own is not None:
        return own
    ramp = nn.Sequential(copy.deepcopy(model.poolers[-1]), copy.deepcopy(model.classifiers[-1]))
    draw = torch.Generator().manual_seed(derive_seed(0, "untrained ramp"))
    with torch.no_grad():
        for name, weights in ramp.named_parameters():
            initial = torch.zeros(weights.shape)
            if not name.endswith("bias"):
                initial.normal_(0, INITIAL_SPREAD, generator=draw)
            weights.copy_(initial)
    return ramp.requires_grad_(False)


class PublishedSwap(WordSwap):
    """What both published mutations share: words and tokens as that program sees them.

    Args:
        gradient: shared by all texts of the attack, and never zeroed.
        top_n: candidates per text.
    """

    def __init__(self, gradient: AccumulatedGradient, *, top_n: int) -> None:
        super().__init__()
        self.gradient = gradient
        self.top_n = top_n
        self.is_black_box = False
        self.tokenizer = gradient.victim.tokenizer
        self.mark = start_mark(self.tokenizer.get_vocab())

    def ids_of_words(self, text: AttackedText, indices: list[int]) -> list[int]:
        """The one token that each word is taken for; a word of several pieces is the unknown one.

        Case is not folded: "Film" is unknown to an uncased vocabulary.
        """
        spans = word_spans(text)
        pieces = []
        for index in indices:
            # Sentencepiece marks every word; byte BPE only what follows a space.
            marked = self.mark == "▁" or (self.mark is not None and spans[index].spaced)
            pieces.append(f"{self.mark}{text.words[index]}" if marked else text.words[index])
        return [self.tokenizer.convert_tokens_to_ids(piece) for piece in pieces]


class PublishedTokenMutation(PublishedSwap):
    """All positions x vocabulary, sorted; words that the text does not hold as a token tie at 0."""

    def __init__(self, gradient: AccumulatedGradient, *, top_n: int) -> None:
        super().__init__(gradient, top_n=top_n)
        rows = len(gradient.total)
        entries = self.tokenizer.convert_ids_to_tokens(range(min(rows, len(self.tokenizer))))
        self.entries: list[str] = [entry or "" for entry in entries]
        # "[UNK]" and "[unused0]" have letters and are one word, so they pass.
        self.words = [entry.strip(self.mark) if self.mark else entry for entry in self.entries]
        usable = [
            not entry.startswith(CONTINUES) and has_letter(word) and len(words_from_text(word)) == 1
            for entry, word in zip(self.entries, self.words, strict=True)
        ]
        for name in ("pad", "cls", "sep", "mask"):
            special = getattr(self.tokenizer, f"{name}_token_id")
            if special is not None and special < len(usable):
                usable[special] = False
        starts = [self.mark is not None and entry.startswith(self.mark) for entry in self.entries]
        device = gradient.total.device
        # Shape: [vocabulary] each
        self._usable = torch.tensor(usable, device=device)
        self._starts = torch.tensor(starts, device=device)

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        input_ids = self.gradient.add(current_text)
        indices = sorted(indices_to_modify)
        if input_ids is None or not indices:
            return []
        changes = self.estimated_changes(current_text, indices, set(input_ids))
        values, places = changes.flatten().sort(stable=True)
        count = min(self.top_n, int((values < float("inf")).sum()))
        found = []
        for place in places[:count].tolist():
            row, entry = divmod(place, changes.shape[1])
            found.append(current_text.replace_words_at_indices([indices[row]], [self.words[entry]]))
        return found

    def estimated_changes(
        self, text: AttackedText, indices: list[int], present: set[int]
    ) -> Tensor:
        """(E_v - E_word) . gradient of the word's row; infinite for what is never used.

        Returns:
            Shape: [indices, vocabulary].
        """
        table = self.gradient.victim.embedding[: len(self.entries)]
        changes = torch.zeros(len(indices), len(table), device=table.device)
        spans = word_spans(text)
        for row, (index, own) in enumerate(
            zip(indices, self.ids_of_words(text, indices), strict=True)
        ):
            if own in present:
                along = table.mv(self.gradient.total[own])
                changes[row] = along - along[own]
            usable = self._usable
            if self.mark == "▁" or (self.mark is not None and spans[index].spaced):
                usable = usable & self._starts
            elif self.mark is not None:
                usable = usable & ~self._starts
            changes[row].masked_fill_(~usable, float("inf"))
        return changes


class PublishedCharacterMutation(PublishedSwap):
    """Misspells words whose token is among the ten with the largest signed gradient sum.

    The ten are drawn from all tokens of the text, special ones included, and may leave no word. The
    draw of ``top_n`` misspellings is ours: it depends on the sample's seed and the text.
    """

    def _get_transformations(
        self, current_text: AttackedText, indices_to_modify: set[int]
    ) -> list[AttackedText]:
        input_ids = self.gradient.add(current_text)
        indices = sorted(indices_to_modify)
        if input_ids is None or not indices:
            return []
        critical = self.critical_ids(input_ids)
        draw = stream(self.gradient.victim.seed, "character mutation", current_text.text)
        mutants = [
            (index, mutant)
            for index, own in zip(indices, self.ids_of_words(current_text, indices), strict=True)
            if own in critical
            for mutant in published_misspellings(current_text.words[index], draw)
        ]
        return [
            current_text.replace_words_at_indices([index], [mutant])
            for index, mutant in draw.sample(mutants, min(self.top_n, len(mutants)))
        ]

    def critical_ids(self, input_ids: list[int]) -> set[int]:
        """Token ids that may be misspelt."""
        sums = self.gradient.total.sum(dim=1).tolist()
        ranked = sorted(set(input_ids), key=lambda token: (-sums[token], token))
        top = ranked[: min(CRITICAL_WORDS, len(input_ids))]
        return set(top) - set(self.tokenizer.all_special_ids)


def published_misspellings(word: str, draw: random.Random) -> list[str]:
    """Every misspelling, repeated ones too; of one letter only the look-alike."""
    found = misspellings(word, draw)
    if len(word) < 2:
        found = [mutant for mutant in found if len(mutant) == 1]
    return [mutant for mutant in found if mutant != word]


class PublishedChangeLimit(Constraint):
    """At most max(3, ceil(rate * words)) words differ from the input.

    It acts on candidates, so an exhausted text still costs a gradient pass; and the ceiling is
    taken of the product as binary numbers have it, so 0.07 of 100 words is 8.

    Args:
        rate: share of the words that may change.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(compare_against_original=True)
        self.rate = rate

    def _check_constraint(
        self, transformed_text: AttackedText, reference_text: AttackedText
    ) -> bool:
        words = min(transformed_text.num_words, reference_text.num_words)
        limit = max(MINIMUM_CHANGES, math.ceil(words * self.rate))
        return len(transformed_text.all_words_diff(reference_text)) <= limit


class PublishedSlowdown(Slowdown):
    """The score is the exit layer alone; equal ones tie."""

    def _get_score(self, model_output: Outcome, attacked_text: AttackedText) -> float:
        return model_output.exit_layer / self.victim.num_layers


class LastRoundBeam(SearchMethod):
    """Beam search that runs every round and returns the best of the last one.

    It goes on after the last layer is reached, and its answer may leave earlier than the input.
    Candidates of a beam member come in alphabetical order, and the first of equal scores wins. (The
    program's own order of equal scores in the beam is NumPy's unstable one.)

    Args:
        rounds: most rounds.
        beam_width: texts kept per round.
    """

    is_black_box = False

    def __init__(self, *, rounds: int, beam_width: int) -> None:
        self.rounds = rounds
        self.beam_width = beam_width
        self.goal_function: Slowdown

    def perform_search(self, initial_result: SlowdownResult) -> SlowdownResult:
        """The best of the last round that had candidates, scored once more, alone."""
        original = initial_result.attacked_text
        beam, best = [original], initial_result
        for _ in range(self.rounds):
            candidates = []
            for text in beam:
                candidates += self.get_transformations(text, original_text=original)
            self.goal_function.best.restart()
            results, _ = self.goal_function.get_results(candidates, reserve=FINAL_CHECK)
            if not results:
                break
            ranked = sorted(results, key=lambda result: -result.score)
            best = ranked[0]
            if len(results) < len(candidates):
                break
            beam = [result.attacked_text for result in ranked[: self.beam_width]]
        if best is initial_result:
            return initial_result
        return self.goal_function.confirm(best.attacked_text) or initial_result
