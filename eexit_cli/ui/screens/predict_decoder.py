"""A decoded text's screen: its tokens side by side, each layer's opinion below, exits marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.text import Text

from eexit_cli.core.text import readable
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.words import criterion_words, facts
from eexit_cli.ui.tables import Column, Sheet

if TYPE_CHECKING:
    from rich.table import Table

NARROWEST = 5
"""Characters of a token's column, the space after it included."""


def show_decoded(output: Output, document: Mapping[str, Any]) -> None:
    """Print decoded texts in the form that the user asked for; JSON is the caller's."""
    if output.quiet and output.format is None:
        output.lines(result["output"] for result in document["results"])
    elif output.for_people:
        _draw(output, document)
    else:
        output.sheet(tokens(document))


def tokens(document: Mapping[str, Any]) -> Sheet:
    """One row per text and token."""
    rows = [
        {
            "text": result["text"],
            "position": position,
            **{key: token[key] for key in ("token", "exit_layer", "confidence")},
            **{f"layer_{number}": name for number, name in enumerate(token["layers"], start=1)},
        }
        for result in document["results"]
        for position, token in enumerate(result["tokens"])
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return Sheet([Column(key) for key in keys], rows)


def _draw(output: Output, document: Mapping[str, Any]) -> None:
    output.say()
    output.say(
        facts({"model": document.get("model"), "exit": criterion_words(document.get("criterion"))})
    )
    layers = document["num_layers"]
    for result in document["results"]:
        output.say()
        output.say(f'"{escape(result["text"])}"')
        found = [_shown(token, output.console.encoding) for token in result["tokens"]]
        for part in _parts(found, layers, output.console.width):
            output.console.print(_table(part, layers))
        output.say(
            f"[bold]{escape(result['output'])}[/], mean layer {result['mean_exit_layer']:.2f} "
            f"of {layers}"
        )
        if result["output_full"] != result["output"]:
            output.say(f"[dim]{escape(result['output_full'])}, the full model[/]")


def _shown(token: Mapping[str, Any], encoding: str) -> dict[str, Any]:
    """Its names as they are printed, so that their widths are known."""
    names = [readable(name, encoding) for name in token["layers"]]
    return {**token, "token": readable(token["token"], encoding), "layers": names}


def _parts(
    found: Sequence[Mapping[str, Any]], layers: int, width: int
) -> list[list[Mapping[str, Any]]]:
    """The tokens in lines that fit the terminal."""
    parts: list[list[Mapping[str, Any]]] = []
    room = 0
    for token in found:
        needed = 1 + max(
            NARROWEST - 1, len(token["token"]), *(len(name) for name in token["layers"])
        )
        if not parts or room < needed:
            parts.append([])
            room = width - len(f"  layer {layers} ") - 1
        parts[-1].append(token)
        room -= needed
    return parts


def _table(part: Sequence[Mapping[str, Any]], layers: int) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    for _ in part:
        table.add_column(no_wrap=True, min_width=NARROWEST - 1)
    for layer in range(1, layers + 1):
        cells = [Text(f"  layer {layer}", style="dim")]
        for token in part:
            left = token["exit_layer"]
            style = "bold green" if layer == left else "dim" if layer > left else ""
            # What was emitted stands where it left; after copied states it may differ from what
            # the layer would have said.
            name = token["token"] if layer == left else token["layers"][layer - 1]
            cells.append(Text(name, style=style))
        table.add_row(*cells)
    table.add_row(
        Text("  left at", style="dim"), *(Text(str(token["exit_layer"])) for token in part)
    )
    return table
