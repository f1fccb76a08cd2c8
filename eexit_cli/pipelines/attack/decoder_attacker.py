"""From one sample of text pairs to its record: what a slowdown does to a decoder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eexit_cli.attacks import DECODER_ATTACKS
from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.recipe import Learned, Recipe
from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.memory import FreedMemory
from eexit_cli.core.seed import derive_seed, seed_everything
from eexit_cli.families.batches import to_device
from eexit_cli.families.seq2seq.attack_exits import attacked_settings, exit_reader
from eexit_cli.families.seq2seq.exits import full_model
from eexit_cli.families.seq2seq.model import Seq2SeqModel, load_decoder
from eexit_cli.metrics.similarity import edit_similarity
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.decoder_report import output_record

if TYPE_CHECKING:
    from eexit_cli.attacks.decoder_search import DecoderAttack
    from eexit_cli.core.protocols import Progress

Sample = Mapping[str, Any]
"""``id``, ``source`` (prefix included), and where there are any ``target`` and ``references``."""

_OF_SAMPLE = ("target", "references")


class DecoderAttacker:
    """Attacks samples of a decoder, with any recipe for decoders.

    Args:
        config: the settings; the exit options are resolved in ``settings``.
        loaded: the model.
        settings: how it decodes.
    """

    def __init__(
        self, config: AttackConfig, loaded: Seq2SeqModel, settings: DecodeSettings
    ) -> None:
        from eexit_cli.attacks.textattack_env import prepare

        prepare()
        from eexit_cli.attacks.decoder_victim import DEFAULT_BATCH_SIZE, DecoderVictim

        loaded.model.requires_grad_(False)
        self.config = config
        self.loaded = loaded
        self.victim = DecoderVictim(
            loaded.model,
            loaded.batcher(),
            settings,
            exit_reader(loaded, settings),
            Budget(config.query_budget),
            prefix=loaded.prefix(None) if config.source_prefix is None else config.source_prefix,
            batch_size=config.batch_size or DEFAULT_BATCH_SIZE,
        )
        self._attacks: dict[str, DecoderAttack] = {}
        self._freed = FreedMemory()

    @property
    def tokens(self) -> tuple[int, int]:
        return self.victim.tokens_held, self.victim.tokens_computed

    def fit(
        self, name: str, texts: Sequence[str | tuple[str, str]], progress: Progress
    ) -> dict[str, Any]:
        """No decoder recipe learns anything beforehand, so the pipeline never asks."""
        raise ValueError(f"recipe {name} for decoders has no fit")

    def build(self, name: str) -> DecoderAttack:
        """The recipe's attack, made on first use."""
        if name not in self._attacks:
            recipe: Recipe = DECODER_ATTACKS.load(name)
            recipe.check_compat(self.config.compat)
            self._attacks[name] = recipe.build(self.victim, self.victim.budget, self.config)
        return self._attacks[name]

    def attack(self, name: str, sample: Sample) -> dict[str, Any]:
        """Attack one sample.

        Returns:
            Its record: as of a classifier, with exit layers that are means over the output's
            tokens, and the outputs themselves.
        """
        attack, victim = self.build(name), self.victim
        identifier, source = str(sample["id"]), str(sample["source"])
        seed = derive_seed(self.config.seed, "attack", name, identifier)
        seed_everything(seed)
        victim.seed = seed
        text = source.removeprefix(victim.prefix)
        started = time.perf_counter()
        found = attack.attack(text)
        # Both were decoded alone already, so that they are free.
        before, after = victim.confirm(text), victim.confirm(found.text)
        assert before is not None
        assert after is not None
        seconds = time.perf_counter() - started
        perturbed = victim.prefix + found.text
        record: dict[str, Any] = {
            "recipe": name,
            "id": identifier,
            "text": source,
            **{key: sample[key] for key in _OF_SAMPLE if sample.get(key) is not None},
            "status": "skipped" if found.skipped else "attacked",
            "perturbed_text": perturbed,
            "unit": found.editor.unit,
            "changed_words": found.editor.changes(source, perturbed),
            "num_words": found.editor.count(text),
            "similarity_characters": edit_similarity(text, found.text),
        }
        for when, read, generation in (("before", source, before), ("after", perturbed, after)):
            output, full = self._text(generation.tokens), self._full_output(read)
            record |= output_record(when, generation.exit_layers, output, full)
        record |= {
            "goal_reached": attack.goal.is_reached(after),
            "queries": victim.budget.queries,
            "gradient_passes": victim.budget.gradient_passes,
            "progress": self._progress(attack, after.layers_per_token),
            "seconds": seconds,
        }
        if found.skipped:
            record["reason"] = "all layers"
        victim.forget()
        self._freed.after_sample()
        return record

    def _full_output(self, source: str) -> str:
        """What all layers make of a source; it is no query, since nothing is chosen by it."""
        batch = to_device(self.victim.batcher([source]), self.loaded.device)
        decoded = self.loaded.model.decode(
            batch["input_ids"], batch["attention_mask"], full_model(self.loaded)
        )
        return self._text(decoded.samples[0].tokens)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.loaded.tokenizer.decode(tokens, skip_special_tokens=True))

    def _progress(self, attack: DecoderAttack, last: float) -> list[list[float]]:
        """[spent, layers per token] of the best input so far, ending with the chosen one."""
        spent = self.victim.budget.spent
        # What a search keeps back for its last check may be left where the check was free.
        steps = [[min(at, spent), layers] for at, layers in attack.best.steps]
        return steps if steps and steps[-1][1] == last else [*steps, [spent, last]]


def open_decoder_attacker(
    config: AttackConfig, learned: Mapping[str, Learned] | None = None
) -> DecoderAttacker:
    """A model and its attacker from a configuration alone, as a worker process needs it.

    Args:
        config: with every exit option resolved (no ``calibrated``).
        learned: nothing; recipes for classifiers have something there.
    """
    loaded = load_decoder(config)
    return DecoderAttacker(config, loaded, attacked_settings(config, loaded))
