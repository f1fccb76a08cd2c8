"""What a model makes of an attack's texts: each text once per exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eexit_cli.core.types import Examples, TaskInfo
from eexit_cli.pipelines.attack.records import as_examples

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
