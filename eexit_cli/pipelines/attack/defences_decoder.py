"""What another threshold of a decoder recovers, on the attacker's texts.

As for classifiers (``attack_defences``) the threshold is recalibrated on attacked inputs: from the
most cautious one on, the last before outputs are first less like the full model's than they were on
clean inputs at the decoder's own threshold. The halves are halves of the attacked samples, the
samples of each are judged by the threshold that was chosen on the other, and nothing is promised.
Patience and voting have no counterpart: they count answers of one input, which a decoder gives
token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eexit_cli.families.seq2seq.decoding import decode_examples
from eexit_cli.families.seq2seq.exits import SWEEP, describe_settings, full_model, settings_from
from eexit_cli.metrics.similarity import edit_similarity
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.pipelines.attack.defences import NONE, eagerest, halves, other_half

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.families.seq2seq.model import Seq2SeqModel

CAUTIOUS_TO_EAGER = (1.0, *SWEEP)


@dataclass(frozen=True)
class Written:
    """An output: its text, and the layer that emitted each token, 1..L."""

    output: str
    exit_layers: list[int]


class Decodings:
    """What a decoder makes of texts: each text once per way of leaving.

    Args:
        loaded: the decoder.
        batch_size: None is 32.
        title: what is shown while it decodes.
    """

    def __init__(
        self, loaded: Seq2SeqModel, *, batch_size: int | None, progress: Progress, title: str
    ) -> None:
        self.loaded = loaded
        self._batch_size = batch_size
        self._progress = progress
        self._title = title
        self._known: dict[str, dict[str, Written]] = {}

    def of(self, texts: Sequence[str], settings: DecodeSettings, words: str = "") -> list[Written]:
        """The output for each text; ``words`` say to people which way of leaving it is."""
        known = self._known.setdefault(str(describe_settings(settings)), {})
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            decoded = decode_examples(
                self.loaded,
                missing,
                settings,
                batch_size=self._batch_size,
                progress=self._progress,
                title=f"{self._title}{words}",
            )
            made = map(Written, decoded.outputs, decoded.exit_layers)
            known.update(zip(missing, made, strict=True))
        return [known[text] for text in texts]

    def full(self, texts: Sequence[str]) -> list[Written]:
        """What all layers make of each text."""
        return self.of(texts, full_model(self.loaded), ", all layers")


@dataclass(frozen=True)
class DecoderOutcome:
    """What a way of leaving does with samples; see ``attack_defences.Outcome``."""

    defence: str
    rules: tuple[DecodeSettings, ...]
    settings: tuple[dict[str, Any], ...]
    before: list[Written]
    after: list[Written]


def undefended(
    decodings: Decodings, before: Sequence[str], after: Sequence[str], settings: DecodeSettings
) -> DecoderOutcome:
    """The decoder's own exit."""
    return DecoderOutcome(
        NONE,
        (settings,) * len(before),
        (describe_settings(settings),),
        decodings.of(before, settings),
        decodings.of(after, settings),
    )


def recalibrated(
    decodings: Decodings,
    ids: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    settings: DecodeSettings,
    *,
    seed: int,
) -> DecoderOutcome | None:
    """Its own measure at the threshold that each half of the samples chooses for the other.

    Args:
        ids, before, after: of the samples: their sources before the attack and after it.
        settings: the exit that is defended.
        seed: halves the samples, by their ids.

    Returns:
        None for an exit without a threshold.
    """
    described = describe_settings(settings)
    if "threshold" not in described:
        return None
    rules = [
        settings_from({**described, "threshold": threshold}, decodings.loaded)
        for threshold in CAUTIOUS_TO_EAGER
    ]
    first = halves(ids, seed)
    tolerated = _unlike(decodings, before, settings)
    found: list[tuple[list[Written], list[Written]]] = []
    chosen = []
    for judged in (~first, first):
        half = other_half(judged)
        allowed = float(tolerated[half].mean())
        at = eagerest(
            # Means of the same numbers in another order differ in the last digits.
            float(_unlike(decodings, after, rule)[half].mean()) <= allowed + 1e-9
            for rule in rules
        )
        chosen.append(rules[at])
        words = f", threshold {CAUTIOUS_TO_EAGER[at]:g}"
        found.append((decodings.of(before, rules[at], words), decodings.of(after, rules[at])))
    parts = [int(part) for part in first]
    return DecoderOutcome(
        "recalibrated",
        tuple(chosen[part] for part in parts),
        tuple(describe_settings(rule) for rule in chosen),
        [found[part][0][row] for row, part in enumerate(parts)],
        [found[part][1][row] for row, part in enumerate(parts)],
    )


def _unlike(decodings: Decodings, texts: Sequence[str], settings: DecodeSettings) -> Tensor:
    """1 - likeness of each output to the full model's on the same text. Shape: [samples]."""
    threshold = describe_settings(settings).get("threshold")
    pairs = zip(
        decodings.of(texts, settings, f", threshold {threshold:g}"),
        decodings.full(texts),
        strict=True,
    )
    return torch.tensor(
        [1 - edit_similarity(one.output.split(), full.output.split()) for one, full in pairs],
        dtype=torch.float64,
    )
