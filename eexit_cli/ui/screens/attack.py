"""The attack's screen: what was attacked, three texts before and after, the slowdown table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from eexit_cli.core.labels import run_by
from eexit_cli.core.text import readable
from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.attack_table import (
    PAIRS,
    gain_words,
    interval_words,
    say_attacked,
    say_prefix,
    say_quality,
    say_speed,
    show_recipes,
    show_transfer,
    tables,
    task_metrics,
    transfers,
    unit_of,
)
from eexit_cli.ui.screens.energy import PAIRED, say_energy
from eexit_cli.ui.screens.speed import with_spread
from eexit_cli.ui.screens.words import criterion_words, facts, source_of_data, value_column
from eexit_cli.ui.tables import Column, Sheet, sheet_of

EXAMPLES = 3

_CHANGED = "changes_mean"
_TIMES = ("before", "after")

_SINGLES = (
    *("gain_removed", "goal_success_rate", "last_layer_rate", _CHANGED, "change_rate_max"),
    *("similarity_embedding_mean", "similarity_characters_mean"),
    *("joules_growth", "idle_watts"),
    *("queries_mean", "gradient_passes_mean", "seconds_mean"),
)


def show_attack(output: Output, result: RunResult) -> None:
    """Print an attack's result in the form that the user asked for."""
    document = result.document
    replay = bool(document["config"].get("transfer"))
    several = replay or len(document["rows"]) > 1
    figure = "transfer" if replay else "recipes" if several else "slowdown"
    if output.for_people:
        _head(output, document)
        if not replay:
            _examples(output, _of_one_recipe(result), document["metrics"])
        if several:
            (show_transfer if replay else show_recipes)(output, document)
            _hints(output, result, figure)
            return
    if several and output.rounds and not output.as_json and not output.quiet:
        # What a person reads has the screen's few columns; scripts get all figures.
        output.sheets(*([transfers(document)] if replay else tables(document)))
        return
    table = sheet_of(document["rows"]) if several else slowdown(document)
    if output.result(document, table, str(result.path)):
        say_prefix(output, document["rows"][0])
        output.say(_sureness(document["metrics"]))
        say_speed(output, document["rows"][:1])
        say_energy(output, document)
        say_attacked(output, document["rows"][0])
        say_quality(output, document["rows"][0])
        _hints(output, result, figure)


def _hints(output: Output, result: RunResult, figure: str) -> None:
    output.hint(f"Run:  {result.path}")
    if result.document["metrics"].get("attacked") == 0:
        # No figure shows anything of an attack that found nothing to slow down.
        model = result.document["config"]["model"]
        output.hint(f"Next: eexit evaluate --model {model} --sweep (an exit that saves layers)")
        return
    if result.document["config"].get("self_speculative"):
        # Its exits are the last layer, before and after.
        output.hint(f"Next: eexit report {result.document['run_id']}")
        return
    output.hint(f"Next: eexit plot {figure} --run {result.document['run_id']}")


def _of_one_recipe(result: RunResult) -> list[dict[str, Any]]:
    """Records of the recipe whose figures the run's metrics are."""
    report = result.document.get("report") or {}
    name = report.get("metrics_of")
    return [record for record in result.records() if record.get("recipe", name) == name]


def _sureness(metrics: Mapping[str, Any]) -> str:
    """How many samples, and how far the gain removed would move with others like them."""
    gain = gain_words(metrics)
    if gain == "-":
        return f"[dim]{metrics['samples']} samples[/]"
    level = interval_words(metrics.get("interval_level"))
    return f"[dim]{metrics['samples']} samples: gain removed {escape(gain)}, {level}[/]"


def slowdown(document: Mapping[str, Any]) -> Sheet:
    """One row per figure, before and after the attack."""
    metrics: Mapping[str, Any] = document["metrics"]
    unit = unit_of((document.get("rows") or [{}])[0])
    rows: list[dict[str, Any]] = [
        {
            "metric": name,
            **{when: metrics.get(f"{name}_{when}") for when in _TIMES},
            **{f"{when}_words": with_spread(name, metrics, f"_{when}") for when in _TIMES},
        }
        for name in (*task_metrics(metrics), *PAIRS)
        if f"{name}_before" in metrics
        if name not in PAIRED or metrics[f"{name}_before"] is not None
    ]
    rows += [
        {
            "metric": name,
            "before": None,
            "after": metrics[name],
            "after_words": with_spread(name, metrics),
        }
        for name in _SINGLES
        if metrics.get(name) is not None
    ]
    return Sheet(
        [
            Column("metric", "", text=lambda row: _label(row["metric"], unit)),
            value_column("before", "Before"),
            value_column("after", "After"),
        ],
        rows,
        title="Slowdown",
    )


def _label(name: str, unit: str) -> str:
    return f"{unit.capitalize()} changed per sample" if name == _CHANGED else label(name)


def _head(output: Output, document: Mapping[str, Any]) -> None:
    config, metrics = document["config"], document["metrics"]
    output.say()
    output.say(
        facts(
            {
                "model": config.get("model"),
                **run_by(config),
                "data": source_of_data(config),
                "exit": _exit_words(config),
                "recipe": ", ".join(config.get("recipes", ())) or config.get("recipe"),
                "replay of": ", ".join(config.get("transfer", ())) or None,
            }
        )
    )
    if len(document["rows"]) > 1:
        return
    attacked, skipped = metrics.get("attacked"), metrics.get("skipped")
    if attacked is not None:
        rest = f", {skipped} skipped" if skipped else ""
        output.say(f"[dim]texts[/] {metrics['samples']}: {attacked} attacked{rest}")


def _exit_words(config: Mapping[str, Any]) -> str:
    """The exit that was attacked, or those that a replay's victims leave by."""
    exits = list((config.get("exits") or {}).values()) or [config.get("exit")]
    return "; ".join(dict.fromkeys(map(criterion_words, exits)))


def _examples(
    output: Output, records: Iterable[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> None:
    """The texts that lost most, with what was changed."""
    attacked = [record for record in records if record.get("changed_words")]
    attacked.sort(key=lambda r: (_gain(r), len(r["text"])))
    for record in attacked[:EXAMPLES]:
        output.say()
        output.say(f"[bold]{escape(str(record['id']))}[/]  {_cost_words(record, metrics)}")
        changes = record["changed_words"]
        lines = Table.grid(padding=(0, 1))
        for word, text, key, style in (
            ("  before", whole_text(record, "text"), "from", "bold green"),
            ("  after", whole_text(record, "perturbed_text"), "to", "bold red"),
        ):
            brackets = output.console.color_system is None
            if record.get("unit") == "letters":
                drawn = highlighted_letters(text, changes, key, style, brackets=brackets)
            else:
                marked = [(change["position"], str(change[key])) for change in changes]
                drawn = highlighted(text, marked, style, brackets=brackets)
            output_of = record.get(f"output_{word.strip()}")
            if output_of is not None:
                drawn.append(readable(f"  answer: {output_of}"), style="dim")
            lines.add_row(Text(word, style="dim"), drawn)
        output.console.print(lines)
    output.say()


def _gain(record: Mapping[str, Any]) -> float:
    """What the attack changed; the most negative first."""
    if "verifications_before" in record:
        return float(record["verifications_before"] - record["verifications_after"])
    return float(record["exit_layer_before"] - record["exit_layer_after"])


def _cost_words(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What the input cost, and costs now."""
    if "verifications_before" in record:
        before, after = (
            f"{record[f'accepted_{when}']} of {record[f'drafted_{when}']}"
            for when in ("before", "after")
        )
        return f"accepted [green]{before}[/] drafted tokens, now [red]{after}[/]"
    before, after = (_layer(record[f"exit_layer_{when}"]) for when in ("before", "after"))
    layers = metrics.get("num_layers", "?")
    return f"left at layer [green]{before}[/], now at [red]{after}[/] of {layers}"


def _layer(value: float) -> str:
    """Whole for a classifier; a decoder's is a mean over tokens."""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def whole_text(record: Mapping[str, Any], key: str) -> str:
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
        drawn.append(readable(text[start:at]))
        drawn.append(readable(f"[{word}]" if brackets else word), style=style)
        start = at + len(word)
    drawn.append(readable(text[start:]))
    return drawn


def highlighted_letters(
    text: str,
    changes: Sequence[Mapping[str, Any]],
    key: str,
    style: str,
    *,
    brackets: bool = False,
) -> Text:
    """The text with its changed letters marked.

    Args:
        text: the whole text, before the changes or after them.
        changes: a record's, in the order of the text.
        key: ``from`` for the text before, ``to`` for the one after.
        style: how they are drawn.
        brackets: put them in square brackets too, where there are no colours.
    """
    drawn = Text()
    start = shift = 0
    for change in changes:
        inserted, deleted = not change["from"], not change["to"]
        # An insertion's place is one of the text after it, any other's one of the text before.
        at = change["position"] + (0 if inserted or key == "from" else shift)
        shift += inserted - deleted
        if not change[key]:
            continue
        drawn.append(readable(text[start:at]))
        letter = readable(text[at])
        drawn.append(f"[{letter}]" if brackets else letter, style=style)
        start = at + 1
    drawn.append(readable(text[start:]))
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
