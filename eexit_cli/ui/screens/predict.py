"""The prediction's screen: every exit's opinion as a bar, and where the text left.

Of a model that writes: its tokens side by side, each layer's opinion below, exits marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from eexit_cli.core.labels import run_by
from eexit_cli.core.text import readable
from eexit_cli.ui.measures import share
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.words import criterion_words, facts
from eexit_cli.ui.tables import Sheet, sheet_of

if TYPE_CHECKING:
    from rich.table import Table

BAR = 20
BARS = "█░"
NARROWEST = 5
"""Characters of a token's column, the space after it included."""


def show_prediction(output: Output, document: Mapping[str, Any]) -> None:
    """Print predictions in the form that the user asked for."""
    results: Sequence[Mapping[str, Any]] = document["results"]
    decoded = "tokens" in results[0]
    if output.as_json:
        output.document(dict(document))
    elif output.quiet and output.format is None:
        output.lines(result["output"] if decoded else _name(result) for result in results)
    elif not output.for_people:
        output.sheet(tokens(results) if decoded else opinions(results))
    else:
        output.say()
        exit_ = criterion_words(document.get("criterion"))
        output.say(facts({"model": document.get("model"), **run_by(document), "exit": exit_}))
        for result in results:
            output.say()
            output.say(f'"{escape(result["text"])}"')
            (_draw_tokens if decoded else _draw_opinions)(output, result, document["num_layers"])


def opinions(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row per text and exit."""
    return sheet_of(
        [
            {"text": result["text"], "left_at": result["exit_layer"], **exit_}
            for result in results
            for exit_ in result["exits"]
        ],
        align=False,
    )


def tokens(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row per text and token."""
    return sheet_of(
        [
            {
                "text": result["text"],
                "position": position,
                **{
                    key: token[key]
                    for key in ("token", "from", "exit_layer", "confidence")
                    if key in token
                },
                **{f"layer_{number}": name for number, name in enumerate(token["layers"], start=1)},
            }
            for result in results
            for position, token in enumerate(result["tokens"])
        ],
        align=False,
    )


def _draw_opinions(output: Output, result: Mapping[str, Any], layers: int) -> None:
    # GBK has one of the two.
    signs = BARS if readable(BARS, output.console.encoding) == BARS else "#."
    width = max(cell_len(readable(_name(exit_))) for exit_ in result["exits"])
    for exit_ in result["exits"]:
        output.console.print(_opinion(exit_, result["exit_layer"], width, signs))
    output.say(f"[bold]{escape(_name(result))}[/], from layer {result['exit_layer']} of {layers}")


def _opinion(exit_: Mapping[str, Any], left_at: int, width: int, signs: str = BARS) -> Text:
    """One line; answers take as many columns as the longest of them."""
    here = exit_["layer"] == left_at
    style = "bold" if here else "" if exit_["executed"] else "dim"
    line = Text(f"  exit {exit_['layer']:>2}  ", style=style)
    probability = exit_.get("probability")
    name = readable(_name(exit_))
    if probability is not None:
        filled = round(BAR * probability)
        line.append(signs[0] * filled, style="green" if here else "cyan")
        line.append(signs[1] * (BAR - filled) + f" {share(probability):>8}")
    line.append(f"  {name}{' ' * (width - cell_len(name))}")
    if probability is not None and exit_.get("measure"):
        line.append(f"  {exit_['measure']} {exit_['confidence']:.3f}", style="dim")
    if here:
        line.append("  <- leaves here", style="green")
    elif not exit_["executed"]:
        line.append("  not executed")
    return line


def _name(opinion: Mapping[str, Any]) -> str:
    named = opinion.get("label_name")
    if named is not None:
        return str(named)
    prediction = opinion["prediction"]
    return f"{prediction:.3f}" if isinstance(prediction, float) else str(prediction)


def _draw_tokens(output: Output, result: Mapping[str, Any], layers: int) -> None:
    found = [_shown(token, output.console.encoding) for token in result["tokens"]]
    for part in _parts(found, layers, output.console.width):
        output.console.print(_table(part, layers))
    if "passes" in result:
        drafted, accepted = (
            sum(each[name] for each in result["passes"]) for name in ("drafted", "accepted")
        )
        output.say(
            f"[bold]{escape(result['output'])}[/], {accepted} of {drafted} drafted tokens accepted "
            f"in {len(result['passes'])} verifications"
        )
        return
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
    if "from" in part[0]:
        words = {"prompt": "-", "draft": "yes", "verification": "no"}
        cells = [Text("  drafted", style="dim"), *(Text(words[token["from"]]) for token in part)]
        table.add_row(*cells)
        return table
    table.add_row(
        Text("  left at", style="dim"), *(Text(str(token["exit_layer"])) for token in part)
    )
    return table
