"""A classifier under attack: which of its exits can be slowed down, and what a record says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks.budget import Budget
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.victim import Found
from eexit_cli.families.encoder.exits import build_criterion
from eexit_cli.metrics.similarity import cosine, edit_similarity
from eexit_cli.models.decoding.kernels import for_inference

if TYPE_CHECKING:
    from textattack.shared import AttackedText

    from eexit_cli.families.encoder.loaded import LoadedModel


def criterion_by_input(options: Any, loaded: LoadedModel) -> ExitCriterion:
    """The exit criterion that is attacked, or that attacks' inputs are replayed on.

    Raises:
        UsageError: a regression model, or one without any exit setting.
    """
    if loaded.num_classes < 2:
        raise UsageError(
            f"Slowdown attacks need classes; '{loaded.name}' has one output (regression)",
            hint="Choose a classification model: eexit models list",
        )
    criterion = build_criterion(
        options, loaded.exit_defaults, num_layers=loaded.num_layers, num_classes=loaded.num_classes
    )
    if criterion is None:
        raise UsageError(
            f"'{loaded.name}' stores no exit setting, so every input uses all layers",
            hint="Give --threshold VALUE or --patience N",
        )
    return criterion


class AttackedEncoder:
    """See :class:`eexit_cli.core.victim.Attacked`; its texts are TextAttack's.

    Args:
        loaded: the model.
        criterion: the exit criterion in force.
        config: the settings; its exit options are resolved in ``criterion``.
    """

    def __init__(self, loaded: LoadedModel, criterion: ExitCriterion, config: AttackConfig) -> None:
        from eexit_cli.attacks.encoder_victim import DEFAULT_BATCH_SIZE, EncoderVictim
        from eexit_cli.attacks.meaning import SentenceSimilarity

        loaded.model.requires_grad_(False)
        self.victim = EncoderVictim(
            loaded.model,
            loaded.batcher(),
            criterion,
            Budget(config.query_budget),
            scorer=for_inference(loaded.model),
            batch_size=config.batch_size or DEFAULT_BATCH_SIZE,
        )
        self._meaning = SentenceSimilarity(self.victim, -1.0)

    def search(self, attack: Any, sample: Mapping[str, Any]) -> Found:
        from textattack.attack_results import SkippedAttackResult
        from textattack.goal_function_results import GoalFunctionResultStatus
        from textattack.shared import AttackedText

        label = sample.get("label")
        names = ("text", "text_pair")
        original = AttackedText(
            OrderedDict((name, sample[name]) for name in names if sample.get(name) is not None)
        )
        result = attack.attack(original, -1 if label is None else int(label))
        attack.clear_cache()
        goal = attack.goal_function
        skipped = isinstance(result, SkippedAttackResult)
        reached = result.perturbed_result.goal_status == GoalFunctionResultStatus.SUCCEEDED
        return Found(
            original,
            result.perturbed_result.attacked_text,
            skipped=getattr(goal, "skip_reason", "all layers") if skipped else None,
            reached=lambda outcome: bool(reached),
            steps=[[int(at), int(layer)] for at, layer in goal.best.steps],
        )

    def costs(self, when: str, outcome: Any) -> dict[str, Any]:
        """Nothing beside the exit."""
        return {}

    def confirm(self, text: AttackedText) -> Any:
        return self.victim.confirm(text.tokenizer_input)

    def columns(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        pair = sample.get("text_pair")
        texts = {"text": sample["text"]} | ({} if pair is None else {"text_pair": pair})
        return {**texts, "label": sample.get("label")}

    def changes(self, found: Found, chosen: AttackedText) -> dict[str, Any]:
        from eexit_cli.attacks.words import changed_words, columns_of

        original: AttackedText = found.text
        names = ("perturbed_text", "perturbed_text_pair")
        return {
            **dict(zip(names, columns_of(chosen), strict=False)),
            "changed_words": changed_words(original, chosen),
            "num_words": original.num_words,
            "similarity_characters": edit_similarity(original.text, chosen.text),
            "similarity_embedding": self._similarity(original, chosen),
        }

    def answer(self, text: AttackedText, outcome: Any) -> tuple[int, Sequence[int], None]:
        return outcome.prediction, [outcome.exit_layer], None

    def _similarity(self, original: AttackedText, chosen: AttackedText) -> float:
        """Cosine of the mean input embeddings of the victim's tokens."""
        if original.text == chosen.text:
            return 1.0
        first, second = self._meaning.means([original, chosen]).cpu().numpy()
        return cosine(first, second)
