"""A decoder under attack: its sources without their prefix, and what a record says of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks.budget import Budget
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.types import Examples
from eexit_cli.core.victim import Found
from eexit_cli.families.batches import to_device
from eexit_cli.families.decoders.attack_exits import exit_reader
from eexit_cli.families.decoders.exits import full_model
from eexit_cli.metrics.similarity import edit_similarity
from eexit_cli.models.decoding.settings import DecodeSettings

if TYPE_CHECKING:
    from eexit_cli.families.decoders.loaded import LoadedDecoder


def check_rates(config: AttackConfig, examples: Examples, prefix: str) -> None:
    """Letters are changed in inputs of one word, words in others; each has its own rate.

    Raises:
        UsageError: a rate was given that says nothing to any input.
    """
    words = [len(source.removeprefix(prefix).split()) for source in examples.dataset["source"]]
    for name, other, reads, what in (
        ("change_rate", "letter-rate", any(count > 1 for count in words), "inputs of one word"),
        ("letter_rate", "change-rate", any(count < 2 for count in words), "inputs of many words"),
    ):
        if getattr(config, name) != getattr(AttackConfig(), name) and not reads:
            raise UsageError(
                f"--{name.replace('_', '-')} says nothing to {what}", hint=f"Give --{other}"
            )


class AttackedDecoder:
    """See :class:`eexit_cli.core.victim.Attacked`; its texts have no prefix.

    Args:
        loaded: the model.
        settings: how it decodes.
        prefix: stands before every input and is never attacked.
        config: the settings of the attack.
    """

    def __init__(
        self, loaded: LoadedDecoder, settings: DecodeSettings, prefix: str, config: AttackConfig
    ) -> None:
        from eexit_cli.attacks.decoder_victim import DEFAULT_BATCH_SIZE, DecoderVictim

        loaded.model.requires_grad_(False)
        self.loaded = loaded
        self.victim = DecoderVictim(
            loaded.model,
            loaded.batcher(),
            settings,
            exit_reader(loaded, settings, config.score),
            Budget(config.query_budget),
            prefix=prefix,
            batch_size=config.batch_size or DEFAULT_BATCH_SIZE,
        )

    def search(self, attack: Any, sample: Mapping[str, Any]) -> Found:
        text = str(sample["source"]).removeprefix(self.victim.prefix)
        found = attack.attack(text)
        return Found(
            text,
            found.text,
            skipped=self._nothing_to_gain if found.skipped else None,
            reached=attack.goal.is_reached,
            steps=attack.best.steps,
            editor=found.editor,
        )

    @property
    def _nothing_to_gain(self) -> str:
        drafts = self.victim.settings.draft_layer is not None
        return "no draft is accepted" if drafts else "all layers"

    def costs(self, when: str, outcome: Any) -> dict[str, Any]:
        """What drafts were worth; nothing where there are none."""
        if self.victim.settings.draft_layer is None:
            return {}
        return {
            f"verifications_{when}": len(outcome.passes),
            f"drafted_{when}": sum(drafted for drafted, _ in outcome.passes),
            f"accepted_{when}": sum(accepted for _, accepted in outcome.passes),
        }

    def confirm(self, text: str) -> Any:
        return self.victim.confirm(text)

    def columns(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: sample.get(name) for name in ("target", "references")}
        known = {name: value for name, value in given.items() if value is not None}
        return {"text": str(sample["source"]), **known}

    def changes(self, found: Found, chosen: str) -> dict[str, Any]:
        prefix = self.victim.prefix
        return {
            "perturbed_text": prefix + chosen,
            "unit": found.editor.unit,
            "changed_words": found.editor.changes(prefix + found.text, prefix + chosen),
            "num_words": found.editor.count(found.text),
            "similarity_characters": edit_similarity(found.text, chosen),
        }

    def answer(self, text: str, outcome: Any) -> tuple[str, Sequence[int], str]:
        """What all layers make of the text is no query, since nothing is chosen by it."""
        batch = to_device(self.victim.batcher([self.victim.prefix + text]), self.loaded.device)
        full = self.loaded.model.decode(
            batch["input_ids"], batch["attention_mask"], full_model(self.loaded)
        )
        return (
            self._text(outcome.tokens),
            outcome.exit_layers,
            self._text(full.samples[0].tokens),
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.loaded.tokenizer.decode(tokens, skip_special_tokens=True))
