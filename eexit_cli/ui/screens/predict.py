"""The prediction's screen: every exit's opinion as a bar, and where the text left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.text import Text

from eexit_cli.core.text import readable
from eexit_cli.ui.measures import share
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.predict_decoder import show_decoded
from eexit_cli.ui.screens.words import criterion_words, facts
from eexit_cli.ui.tables import Column, Sheet

BAR = 20
BARS = "█░"


def show_prediction(output: Output, document: Mapping[str, Any]) -> None:
    """Print predictions in the form that the user asked for."""
    if output.as_json:
        output.document(dict(document))
    elif "tokens" in document["results"][0]:
        show_decoded(output, document)
    elif output.quiet and output.format is None:
        output.lines(map(_answer, document["results"]))
    elif output.for_people:
        _draw(output, document)
    else:
        output.sheet(opinions(document))


def opinions(document: Mapping[str, Any]) -> Sheet:
    """One row per text and exit."""
    rows = [
        {"text": result["text"], "left_at": result["exit_layer"], **exit_}
        for result in document["results"]
        for exit_ in result["exits"]
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return Sheet([Column(key) for key in keys], rows)


def _draw(output: Output, document: Mapping[str, Any]) -> None:
    output.say()
    output.say(
        facts({"model": document.get("model"), "exit": criterion_words(document.get("criterion"))})
    )
    # GBK has one of the two.
    signs = BARS if readable(BARS, output.console.encoding) == BARS else "#."
    for result in document["results"]:
        output.say()
        output.say(f'"{escape(result["text"])}"')
        for exit_ in result["exits"]:
            output.console.print(_opinion(exit_, result["exit_layer"], signs))
        output.say(
            f"[bold]{escape(_answer(result))}[/], from layer {result['exit_layer']} "
            f"of {document['num_layers']}"
        )


def _opinion(exit_: Mapping[str, Any], left_at: int, signs: str = BARS) -> Text:
    here = exit_["layer"] == left_at
    style = "bold" if here else "" if exit_["executed"] else "dim"
    line = Text(f"  exit {exit_['layer']:>2}  ", style=style)
    probability = exit_.get("probability")
    name = _name(exit_)
    if probability is not None:
        filled = round(BAR * probability)
        line.append(signs[0] * filled, style="green" if here else "cyan")
        line.append(signs[1] * (BAR - filled) + f" {share(probability):>8}")
    line.append(f"  {readable(name)}")
    if probability is not None and exit_.get("measure"):
        line.append(f"  {exit_['measure']} {exit_['confidence']:.3f}", style="dim")
    if here:
        line.append("  <- leaves here", style="green")
    elif not exit_["executed"]:
        line.append("  not executed")
    return line


def _answer(result: Mapping[str, Any]) -> str:
    return _name(result)


def _name(opinion: Mapping[str, Any]) -> str:
    named = opinion.get("label_name")
    if named is not None:
        return str(named)
    prediction = opinion["prediction"]
    return f"{prediction:.3f}" if isinstance(prediction, float) else str(prediction)
