"""From one sample to its record: the same whatever came before it, in any process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eexit_cli.attacks import ATTACKS
from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.memory import FreedMemory
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.families.encoder.exits import build_criterion
from eexit_cli.families.encoder.model import EncoderModel, load_model
from eexit_cli.metrics.similarity import cosine, edit_similarity
from eexit_cli.models.decoding.kernels import for_inference

if TYPE_CHECKING:
    import textattack

    from eexit_cli.core.protocols import Progress

Sample = Mapping[str, Any]
"""``id``, ``text``, and where there are any ``text_pair`` and ``label``."""


class Attacker(Protocol):
    """A victim and what attacks it; the pipeline and its workers know no more of a model."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens that the scored texts hold, and tokens computed with padding, so far."""
        ...

    def fit(
        self, name: str, texts: Sequence[str | tuple[str, str]], progress: Progress
    ) -> dict[str, Any]:
        """What a recipe learns once for all samples."""
        ...

    def build(self, name: str) -> Any:
        """The recipe's attack, made on first use."""
        ...

    def attack(self, name: str, sample: Sample) -> dict[str, Any]:
        """Attack one sample with one recipe; its record."""
        ...


class EncoderAttacker:
    """Attacks samples of a multi-exit classifier, with any recipe for classifiers.

    Args:
        config: the settings; the exit options are resolved in ``criterion``.
        loaded: the model.
        criterion: the exit criterion in force.
        learned: what recipes learned before, by name.
    """

    def __init__(
        self,
        config: AttackConfig,
        loaded: EncoderModel,
        criterion: ExitCriterion,
        learned: Mapping[str, Learned] | None = None,
    ) -> None:
        from eexit_cli.attacks.textattack_env import prepare

        prepare()
        from eexit_cli.attacks.encoder_victim import DEFAULT_BATCH_SIZE, EncoderVictim
        from eexit_cli.attacks.meaning import SentenceSimilarity

        loaded.model.requires_grad_(False)
        self.config = config
        self.victim = EncoderVictim(
            loaded.model,
            loaded.batcher(),
            criterion,
            Budget(config.query_budget),
            scorer=for_inference(loaded.model),
            batch_size=config.batch_size or DEFAULT_BATCH_SIZE,
        )
        self._meaning = SentenceSimilarity(self.victim, -1.0)
        self._learned = dict(learned or {})
        self._attacks: dict[str, textattack.Attack] = {}
        self._freed = FreedMemory()

    @property
    def tokens(self) -> tuple[int, int]:
        return self.victim.tokens_held, self.victim.tokens_computed

    def fit(
        self, name: str, texts: Sequence[str | tuple[str, str]], progress: Progress
    ) -> dict[str, Any]:
        """Learn what the recipe uses for all samples, on an account of its own."""
        recipe: Recipe = ATTACKS.load(name)
        assert recipe.fit is not None
        seed = derive_seed(self.config.seed, "fit", name)
        seed_everything(seed)
        self.victim.seed = seed
        self._learned[name] = recipe.fit(self.victim, texts, self.config, progress=progress)
        return dict(self._learned[name])

    def build(self, name: str) -> textattack.Attack:
        """The recipe's attack, made on first use.

        Raises:
            UsageError: the recipe cannot attack this model.
        """
        if name not in self._attacks:
            recipe: Recipe = ATTACKS.load(name)
            self._attacks[name] = recipe.attack(self.victim, self.config, self._learned.get(name))
        return self._attacks[name]

    def attack(self, name: str, sample: Sample) -> dict[str, Any]:
        """Attack one sample.

        Returns:
            Its record, a line of the run's ``records.jsonl``.
        """
        from textattack.attack_results import SkippedAttackResult
        from textattack.goal_function_results import GoalFunctionResultStatus
        from textattack.shared import AttackedText

        from eexit_cli.attacks.words import changed_words

        attack, victim = self.build(name), self.victim
        identifier, label = str(sample["id"]), sample.get("label")
        seed = derive_seed(self.config.seed, "attack", name, identifier)
        seed_everything(seed)
        victim.seed = seed
        columns = OrderedDict(text=sample["text"])
        if sample.get("text_pair") is not None:
            columns["text_pair"] = sample["text_pair"]
        original = AttackedText(columns)
        started = time.perf_counter()
        result = attack.attack(original, -1 if label is None else int(label))
        chosen = result.perturbed_result.attacked_text
        # Both are free where the search has scored them alone already.
        before = victim.confirm(original.tokenizer_input)
        after = victim.confirm(chosen.tokenizer_input)
        assert before is not None
        if after is None:
            chosen, after = original, before
        seconds = time.perf_counter() - started
        skipped = isinstance(result, SkippedAttackResult)
        status = result.perturbed_result.goal_status
        perturbed = chosen.tokenizer_input
        record = {
            "recipe": name,
            "id": identifier,
            **columns,
            "label": label,
            "status": "skipped" if skipped else "attacked",
            "prediction_before": before.prediction,
            "prediction_after": after.prediction,
            "exit_layer_before": before.exit_layer,
            "exit_layer_after": after.exit_layer,
            "perturbed_text": perturbed if isinstance(perturbed, str) else perturbed[0],
            "changed_words": changed_words(original, chosen),
            "num_words": original.num_words,
            "similarity_characters": edit_similarity(original.text, chosen.text),
            "similarity_embedding": self._similarity(original, chosen),
            "goal_reached": bool(status == GoalFunctionResultStatus.SUCCEEDED),
            "queries": victim.budget.queries,
            "gradient_passes": victim.budget.gradient_passes,
            "progress": self._progress(attack, after.exit_layer),
            "seconds": seconds,
        }
        if skipped:
            record["reason"] = getattr(attack.goal_function, "skip_reason", "all layers")
        if not isinstance(perturbed, str):
            record["perturbed_text_pair"] = perturbed[1]
        victim.forget()
        attack.clear_cache()
        self._freed.after_sample()
        return record

    def _similarity(self, original: Any, chosen: Any) -> float:
        """Cosine of the mean input embeddings of the victim's tokens."""
        if original.text == chosen.text:
            return 1.0
        first, second = self._meaning.means([original, chosen]).cpu().numpy()
        return cosine(first, second)

    def _progress(self, attack: textattack.Attack, last: int) -> list[list[int]]:
        """[spent, exit layer] of the best text so far, ending with the one that was chosen."""
        spent = self.victim.budget.spent
        # What a search keeps back for its last check may be left where the check was free.
        steps = [[min(int(at), spent), int(layer)] for at, layer in attack.goal_function.best.steps]
        return steps if steps and steps[-1][1] == last else [*steps, [spent, last]]


def criterion_of(config: AttackConfig, loaded: EncoderModel) -> ExitCriterion:
    """The exit criterion that is attacked.

    Raises:
        UsageError: a regression model, or one without any exit setting.
    """
    if loaded.num_classes < 2:
        raise UsageError(
            f"Slowdown attacks need classes; '{loaded.ref.name}' has one output (regression)",
            hint="Choose a classification model: eexit models list",
        )
    criterion = build_criterion(
        config, loaded.exit_defaults, num_layers=loaded.num_layers, num_classes=loaded.num_classes
    )
    if criterion is None:
        raise UsageError(
            f"'{loaded.ref.name}' stores no exit setting, so every input uses all layers",
            hint="Give --threshold VALUE or --patience N",
        )
    return criterion


def open_encoder_attacker(
    config: AttackConfig, learned: Mapping[str, Learned] | None = None
) -> EncoderAttacker:
    """A model and its attacker from a configuration alone, as a worker process needs it.

    Args:
        config: with every exit option resolved (no ``calibrated``).
    """
    loaded = load_model(config)
    return EncoderAttacker(config, loaded, criterion_of(config, loaded), learned)


def _open_decoder(config: AttackConfig, learned: Mapping[str, Learned] | None = None) -> Attacker:
    from eexit_cli.pipelines.attack.decoder_attacker import open_decoder_attacker

    return open_decoder_attacker(config, learned)


ATTACKERS: Mapping[str, Callable[..., Attacker]] = {
    "encoder": open_encoder_attacker,
    "decoder": _open_decoder,
}
"""Family of models -> what opens an attacker on one."""
