"""What other exits than the attacked one recover, replayed on the attacker's texts.

The attacker did not know of them: what they hold off here, an attack that does know may still take.

- more patience: agreement over more layers than before;
- voting over exits, at the threshold that leaves clean inputs about where they left before;
- the attacked criterion recalibrated on attacked inputs: from the most cautious setting on, the
  last one before early answers are first less like the full model's than they were on clean
  inputs. Nothing beyond the first failure is looked at, so that no eager setting gets in by luck.

Patience and voting count answers of one input, so that only classifiers have them.

The halves that recalibration needs are halves of the attacked samples: the samples of each are
judged by the exit that was chosen on the other, and the row is over both. So two exits stand behind
one row; neither was chosen on the samples that it is judged on (but where a half is empty), and
both were chosen on inputs of this very attack. The choice goes by the share that was measured; it
promises nothing, as ``eexit calibrate`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from eexit_cli.core.seed import stream
from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.metrics.similarity import edit_similarity
from eexit_cli.pipelines.attack.subject import as_examples

if TYPE_CHECKING:
    from eexit_cli.core.answers import Exit
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


Text = str | tuple[str, str]


@dataclass(frozen=True)
class Reply:
    """An output, and the layer of each of its decisions, 1..L."""

    output: Any
    layers: Sequence[int]


class Replies:
    """A model's answers to texts: each text once per exit.

    Args:
        model: the model.
        texts: all that may be asked; one pass over them answers every exit where the model can.
        batch_size: None is 32.
        title: what is shown while it runs.
    """

    def __init__(
        self,
        model: Model,
        texts: Sequence[Text],
        *,
        batch_size: int | None,
        progress: Progress,
        title: str,
    ) -> None:
        self.model = model
        self._texts = list(dict.fromkeys(texts))
        self._batch_size, self._progress, self._title = batch_size, progress, title
        self._known: dict[str, dict[Text, Reply]] = {}

    def of(self, texts: Sequence[Text], exit: Exit) -> list[Reply]:
        """The answer to each text by this exit."""
        known = self._known.setdefault(exit.key, {})
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            inputs = self._pass if self.model.answers_once else self._inputs(missing)
            asked = self._texts if self.model.answers_once else missing
            title = f"{self._title}{_words(exit.described)}"
            answers = self.model.answers(inputs, exit, progress=self._progress, title=title)
            made = map(Reply, answers.outputs, answers.exit_layers)
            known.update(zip(asked, made, strict=True))
        return [known[text] for text in texts]

    def each(self, texts: Sequence[Text], exits: Sequence[Exit]) -> list[Reply]:
        """The answer to each text by its own exit."""
        found = {
            exit: dict(zip(own, self.of(own, exit), strict=True))
            for exit in dict.fromkeys(exits)
            if (own := [text for text, its in zip(texts, exits, strict=True) if its == exit])
        }
        return [found[exit][text] for text, exit in zip(texts, exits, strict=True)]

    def full(self, texts: Sequence[Text]) -> list[Reply]:
        """What all layers make of each text."""
        return self.of(texts, self.model.full())

    @cached_property
    def _pass(self) -> Any:
        return self._inputs(self._texts)

    def _inputs(self, texts: Sequence[Text]) -> Any:
        samples = texts if self.model.label_names is None else _examples(texts)
        return self.model.inputs(
            samples, batch_size=self._batch_size, progress=self._progress, title=self._title
        )


def _examples(texts: Sequence[Text]) -> Examples:
    """Texts, or pairs of texts, as samples; an attack may have left nothing of one."""
    parts = [(text, None) if isinstance(text, str) else text for text in texts]
    records = [{"id": n, "text": text, "text_pair": pair} for n, (text, pair) in enumerate(parts)]
    return as_examples(records, "text", TaskInfo("texts", kind="classification"))


def _words(described: dict[str, Any]) -> str:
    """Which exit it is, for people."""
    if described["criterion"] == "full":
        return ", all layers"
    value = described.get("threshold")
    return "" if value is None else f", threshold {value:g}"


NONE = "none"


@dataclass(frozen=True)
class Inputs:
    """The same samples before and after an attack, and what the model makes of them.

    Attributes:
        replies: the model's.
        ids, before, after: of the samples: their texts as they were and as they became.
    """

    replies: Replies
    ids: Sequence[str]
    before: Sequence[Text]
    after: Sequence[Text]

    def by(self, exits: Sequence[Exit], defence: str) -> Outcome:
        """Each sample by its own exit."""
        settings = {exit.key: exit.described for exit in exits}
        return Outcome(
            defence,
            tuple(exits),
            tuple(settings.values()),
            self.replies.each(self.before, exits),
            self.replies.each(self.after, exits),
        )


@dataclass(frozen=True)
class Outcome:
    """What a way of leaving does with samples.

    Attributes:
        defence: its name in the table; ``none`` is the model's own exit.
        exits: the exit of each sample.
        settings: of each exit that was used: one, or one per half.
        before, after: the answers.
    """

    defence: str
    exits: tuple[Exit, ...]
    settings: tuple[dict[str, Any], ...]
    before: list[Reply]
    after: list[Reply]


def undefended(inputs: Inputs, exit: Exit) -> Outcome:
    """The model's own exit."""
    return _outcome(NONE, inputs, exit)


def defences(inputs: Inputs, exit: Exit, *, seed: int) -> Iterator[Outcome]:
    """Each defence on the same samples.

    Args:
        exit: the one that is defended.
        seed: halves the samples, by their ids.
    """
    model, own = inputs.replies.model, exit.described
    depth = _depth(inputs, exit)

    def distance(other: Exit) -> float:
        return abs(_depth(inputs, other) - depth)

    # From eager to cautious, which is by ascending number; the last one is the full model.
    patient = model.along({"criterion": "patience"})[:0:-1]
    if patient:
        first = int(own["patience"]) if own["criterion"] == "patience" else None
        start = patient.index(min(patient, key=distance)) if first is None else first
        for each in patient[start : start + 2]:
            yield _outcome("patience", inputs, each)
    voting = model.along({"criterion": "voting"})[::-1]
    if voting:
        yield _outcome("voting", inputs, min(voting, key=distance))
    recalibrated = _recalibrated(inputs, exit, seed)
    if recalibrated is not None:
        yield recalibrated


def _recalibrated(inputs: Inputs, exit: Exit, seed: int) -> Outcome | None:
    exits = inputs.replies.model.along(exit.described)
    if not exits:
        return None
    first = halves(inputs.ids, seed)
    tolerated = _unlike(inputs.replies, inputs.before, exit)
    chosen = {}
    for judged in (False, True):
        # Of few samples a half may be empty, and then it is chosen on these.
        half = [row for row, part in enumerate(first) if part != judged] or range(len(first))
        allowed = _mean(tolerated, half)
        at = eagerest(
            # Means of the same numbers in another order differ in the last digits.
            _mean(_unlike(inputs.replies, inputs.after, each), half) <= allowed + 1e-9
            for each in exits
        )
        chosen[judged] = exits[at]
    outcome = inputs.by([chosen[part] for part in first], "recalibrated")
    return replace(outcome, settings=tuple(each.described for each in chosen.values()))


def halves(ids: Sequence[str], seed: int) -> list[bool]:
    """Which samples are of the first half: by their ids alone."""
    return [stream(seed, "half", name).random() < 0.5 for name in ids]


def eagerest(fits: Iterable[bool]) -> int:
    """The last setting before the first that does not fit, of settings from cautious to eager.

    The order of fixed-sequence testing (Angelopoulos et al., 2021, arXiv:2110.01052): what lies
    beyond the first failure is not looked at.

    Returns:
        Its place; 0 where even that one fails: nothing is more cautious.
    """
    return max(0, sum(1 for _ in takewhile(bool, fits)) - 1)


def _outcome(name: str, inputs: Inputs, exit: Exit) -> Outcome:
    return inputs.by([exit] * len(inputs.ids), name)


def _unlike(replies: Replies, texts: Sequence[Text], exit: Exit) -> list[float]:
    """How far each answer is from the full model's: a class is another one, or it is not; of texts
    1 - their likeness in words."""
    pairs = zip(replies.of(texts, exit), replies.full(texts), strict=True)
    return [
        1 - edit_similarity(one.output.split(), full.output.split())
        if isinstance(one.output, str)
        else float(one.output != full.output)
        for one, full in pairs
    ]


def _mean(values: Sequence[float], rows: Sequence[int]) -> float:
    return sum(values[row] for row in rows) / len(rows)


def _depth(inputs: Inputs, exit: Exit) -> float:
    """Mean exit layer of the clean inputs."""
    layers = [layer for reply in inputs.replies.of(inputs.before, exit) for layer in reply.layers]
    return sum(layers) / len(layers)


def described(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row's account of the rule, or of the two that the halves chose: ``<name>_low`` and
    ``_high`` where they differ."""
    found: dict[str, Any] = {}
    for name, value in settings[0].items():
        values = [each[name] for each in settings]
        if isinstance(value, (str, bool)) or len(set(values)) == 1:
            found[name] = value
        else:
            found |= {f"{name}_low": min(values), f"{name}_high": max(values)}
    return found
