"""A classifier under attack: which of its exits can be slowed down, and what a record says."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks.budget import Budget
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.answers import Exit
from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.victim import Found
from eexit_cli.families.encoder.exits import build_criterion
from eexit_cli.metrics.similarity import cosine, edit_similarity
from eexit_cli.models.decoding.kernels import for_inference
from eexit_cli.models.encoder.model import MultiExitClassifier

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


def has_gradients(model: Any) -> bool:
    """Torch's have, a file's in ONNX Runtime have not."""
    return isinstance(model, MultiExitClassifier)


def twin_of(loaded: LoadedModel, config: AttackConfig) -> Any:
    """Whose gradients an attack takes: the model's own, or those of ``--surrogate``; the model
    itself where it has none and there is no surrogate.

    Raises:
        UsageError: the surrogate has other exits, classes or tokens, or the model needs none.
        MissingArtifactError, EexitError: as ``families.opening.open_model``.
    """
    if config.surrogate is None:
        return loaded.model
    if has_gradients(loaded.model):
        raise UsageError(
            f"'{loaded.name}' has gradients of its own",
            hint="Leave --surrogate out: it is for exported models",
        )
    # Only here: opening a model needs every family.
    from eexit_cli.families.opening import open_model

    options = dataclasses.replace(config, model=config.surrogate, runtime=None, surrogate=None)
    twin: Any = open_model(options)
    if not has_gradients(getattr(twin, "model", None)):
        raise UsageError(
            f"'{config.surrogate}' is no classifier in torch's weights",
            hint="Name the model that was exported",
        )
    mine, its = (
        (each.num_layers, each.num_classes, each.tokenizer.get_vocab()) for each in (loaded, twin)
    )
    if mine != its or not _same_table(loaded.model, twin.model):
        raise UsageError(
            f"'{config.surrogate}' is no twin of '{loaded.name}': it has other layers, classes, "
            "tokens or embeddings",
            hint="Name the model that was exported",
        )
    return twin.model


def _same_table(file: Any, model: Any) -> bool:
    """Word embeddings alike, but for what 8 bits round."""
    mine, its = (each.word_embeddings.weight.detach() for each in (file, model))
    return mine.shape == its.shape and bool((mine - its).abs().max() <= its.abs().max() / 100)


class AttackedEncoder:
    """See :class:`eexit_cli.core.victim.Attacked`; its texts are TextAttack's.

    Args:
        loaded: the model.
        exit: in force.
        config: the settings; its exit options are resolved in ``exit``.

    Raises:
        UsageError: a surrogate that is no twin of the model.
    """

    def __init__(self, loaded: LoadedModel, exit: Exit, config: AttackConfig) -> None:
        from eexit_cli.attacks.encoder_victim import DEFAULT_BATCH_SIZE, EncoderVictim
        from eexit_cli.attacks.meaning import SentenceSimilarity

        live, twin = loaded.running(exit), twin_of(loaded, config)
        if has_gradients(twin):
            twin.requires_grad_(False)
        self.victim = EncoderVictim(
            twin,
            loaded.batcher(),
            exit.rule,
            Budget(config.query_budget),
            live=live,
            scorer=for_inference(live) if has_gradients(live) else live,
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
