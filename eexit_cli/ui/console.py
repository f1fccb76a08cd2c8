"""Where screens are drawn: text is shown as it is, and is neither markup nor a command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Span, Text

from eexit_cli.core.text import readable


class Screen(Console):
    """A console for words of other people.

    Control sequences, and characters that the stream's encoding lacks, are written out; codes of
    emoji stay codes. Markup is read in :meth:`Output.say` alone, where data are escaped.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(readable(text, self.encoding), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        if isinstance(renderable, Text):
            renderable = _shown(renderable, self.encoding)
        for segment in super().render(renderable, options):
            # Cutting a line to its width, rich puts a sign of its own there, of one cell.
            lacks = "…" in segment.text and readable("…", self.encoding) != "…"
            yield segment._replace(text=segment.text.replace("…", ".")) if lacks else segment


def _shown(text: Text, encoding: str) -> Text:
    """The text as the encoding has it, its styles where they were."""
    plain = text.plain
    if readable(plain, encoding) == plain:
        return text
    pieces = [readable(character, encoding) for character in plain]
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    shown = text.blank_copy("".join(pieces))
    shown.spans = [Span(ends[span.start], ends[span.end], span.style) for span in text.spans]
    return shown
