"""The attack's screen: what was attacked, three texts before and after, the slowdown table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data
from eexit_cli.ui.tables import Column, Row, Sheet

EXAMPLES = 3

_PAIRS = (
    "mean_exit_layer",
    "speedup_layers",
    "saved_layers",
    "cost_layers",
    "efficacy",
    "latency_ms",
    "latency_full_ms",
    "speedup_seconds",
)
_SINGLES = (
    "gain_removed",
    "success_rate",
    "words_changed_mean",
    "queries_mean",
    "gradient_passes_mean",
    "seconds_mean",
)


def show_attack(output: Output, result: RunResult) -> None:
    """Print an attack's result in the form that the user asked for."""
    if output.for_people:
        _head(output, result.document)
        _examples(output, result.records(), result.document["metrics"])
    if output.result(result.document, slowdown(result.document), str(result.path)):
        output.hint(f"Run:  {result.path}")
        output.hint(f"Next: eexit plot slowdown --run {result.document['run_id']}")


def slowdown(document: Mapping[str, Any]) -> Sheet:
    """One row per figure, before and after the attack."""
    metrics: Mapping[str, Any] = document["metrics"]
    of_task = [
        name.removesuffix("_before")
        for name in metrics
        if name.endswith("_before") and name.removesuffix("_before") not in _PAIRS
    ]
    rows: list[dict[str, Any]] = [
        {
            "metric": name,
            "before": metrics.get(f"{name}_before"),
            "after": metrics.get(f"{name}_after"),
        }
        for name in (*of_task, *_PAIRS)
        if f"{name}_before" in metrics
    ]
    rows += [
        {"metric": name, "before": None, "after": metrics[name]}
        for name in _SINGLES
        if name in metrics
    ]
    return Sheet(
        [
            Column("metric", "", text=lambda row: label(row["metric"])),
            _value("before", "Before"),
            _value("after", "After"),
        ],
        rows,
        title="Slowdown",
    )


def _value(key: str, heading: str) -> Column:
    def text(row: Row) -> str:
        return "" if row[key] is None else written(row["metric"], row[key])

    return Column(key, heading, text=text, numeric=True, whole=True)


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                "data": source_of_data(config),
                "exit": criterion_words(config.get("exit")),
                "recipe": config.get("recipe"),
            }
        )
    )
    attacked, skipped = metrics.get("attacked"), metrics.get("skipped")
    if attacked is not None:
        rest = f", {skipped} at the last layer already" if skipped else ""
        output.say(f"[dim]texts[/] {metrics['samples']}: {attacked} attacked{rest}")


def _examples(
    output: Output, records: Iterable[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> None:
    """The texts that lost most, with what was changed."""
    attacked = [record for record in records if record.get("changed_words")]
    attacked.sort(key=lambda r: (r["exit_layer_before"] - r["exit_layer_after"], len(r["text"])))
    for record in attacked[:EXAMPLES]:
        before, after = record["exit_layer_before"], record["exit_layer_after"]
        output.say()
        output.say(
            f"[bold]{escape(str(record['id']))}[/]  left at layer [green]{before}[/], now at "
            f"[red]{after}[/] of {metrics.get('num_layers', '?')}"
        )
        changes = record["changed_words"]
        lines = Table.grid(padding=(0, 1))
        for word, text, key, style in (
            ("  before", _whole_text(record, "text"), "from", "bold green"),
            ("  after", _whole_text(record, "perturbed_text"), "to", "bold red"),
        ):
            marked = [(change["position"], str(change[key])) for change in changes]
            brackets = output.console.color_system is None
            drawn = highlighted(text, marked, style, brackets=brackets)
            lines.add_row(Text(word, style="dim"), drawn)
        output.console.print(lines)
    output.say()


def _whole_text(record: Mapping[str, Any], key: str) -> str:
    """Both texts of a pair; an attack that left the second alone does not repeat it."""
    pair = record.get(f"{key}_pair", record.get("text_pair"))
    return str(record[key]) if pair is None else f"{record[key]} / {pair}"


Change = tuple[int, str]
"""Which word of a text (counted from 0), and what it says there."""


def highlighted(
    text: str, changes: Sequence[Change], style: str, *, brackets: bool = False
) -> Text:
    """The text with its changed words marked.

    Args:
        text: the whole text.
        changes: in the order of the text.
        style: how they are drawn.
        brackets: put them in square brackets too, where there are no colours.
    """
    drawn = Text()
    start = 0
    for at, word in _places(text, changes):
        drawn.append(text[start:at])
        drawn.append(f"[{word}]" if brackets else word, style=style)
        start = at + len(word)
    drawn.append(text[start:])
    return drawn


_WORD = re.compile(r"[\w'*@-]+")


def _places(text: str, changes: Sequence[Change]) -> Iterator[tuple[int, str]]:
    """Where each changed word begins.

    The count of words is the attack library's, whose rules are finer than ours; where the counts
    differ, the next occurrence as a whole word is the one.
    """
    words = list(_WORD.finditer(text))
    start = 0
    for position, word in changes:
        at = -1
        if position < len(words):
            match = words[position]
            offset = match.group().find(word)
            at = match.start() + offset if offset >= 0 else -1
        if at < start:
            whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, start)
            at = whole.start() if whole is not None else -1
        if at >= start and word:
            yield at, word
            start = at + len(word)
