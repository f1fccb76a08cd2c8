"""The tables of attacks: a row per recipe, or per victim of a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from eexit_cli.core.labels import maker_labels, run_of, victim_labels
from eexit_cli.ui.measures import label, significance, written
from eexit_cli.ui.output import Output
from eexit_cli.ui.screens.energy import PAIRED, has_energy, say_energy
from eexit_cli.ui.screens.speed import is_none, speed_words, with_spread
from eexit_cli.ui.tables import Column, Row, Sheet

PAIRS = (
    *("mean_exit_layer", "speedup_layers", "saved_layers", "cost_layers", "efficacy"),
    *("latency_ms", "latency_full_ms", "speedup_seconds"),
    *PAIRED,
)
"""Figures before and after; what else comes in pairs is quality."""

OF_OUTPUTS = (
    *("total_layers_mean", "tokens_mean", "agreement", "output_similarity"),
    *("tokens_per_verification", "acceptance_rate", "verifications_mean"),
    "verifications_per_token",
)
"""Figures before and after of a decoder's outputs, whatever its task."""

_NO_ATTACK = "(no attack)"


def task_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the task's own metrics, the leading one first, and of a decoder's outputs."""
    names = [name.removesuffix("_before") for name in metrics if name.endswith("_before")]
    return [name for name in names if name not in PAIRS and not name.endswith(("_low", "_high"))]


def leading_metric(metrics: Mapping[str, Any]) -> str | None:
    """The name of the task's leading metric; None where the samples have no labels."""
    names = (name for name in task_metrics(metrics) if name not in OF_OUTPUTS)
    return next(names, None)


def show_recipes(output: Output, document: Mapping[str, Any]) -> None:
    """For people: what each recipe did, what it cost, and who beats whom."""
    output.sheets(*tables(document))
    _say_left_out(output, document)
    rows = done(document)
    for row in rows:
        say_prefix(output, row)
        say_attacked(output, row)
    say_speed(output, rows)
    say_energy(output, document)
    say_quality(output, rows[0])
    samples, level = rows[0]["samples"], rows[0].get("interval_level")
    best = escape(str(document["report"]["metrics_of"]))
    budget = document["config"].get("query_budget")
    what = "verifications per token" if has_drafts(rows[0]) else "layers"
    bound = "" if budget is None else f", at most {budget:,} queries and gradients for each"
    output.say(
        f"[dim]{samples} samples, the same for every recipe{bound}; {interval_words(level)}. "
        f"Against {best}: {what} more or less than it per sample, on the same samples, and p "
        "(paired permutation test of them, Holm over all pairs).[/]"
    )


def tables(document: Mapping[str, Any]) -> tuple[Sheet, Sheet]:
    """What recipes did, and what they cost."""
    return effects(document), costs(document)


def say_attacked(output: Output, row: Row) -> None:
    """The gain over the samples that a recipe attacked, where that is another figure."""
    over_all, own = row.get("gain_removed"), row.get("gain_removed_attacked")
    if over_all is None or own is None:
        return
    first, second = (written("gain_removed", value) for value in (over_all, own))
    if first != second:
        output.say(
            f"[cyan]{escape(str(row['recipe']))}[/] [dim]removed {first} over all "
            f"{row['samples']}, {second} over the {row['attacked']} that it attacked[/]"
        )


def say_speed(output: Output, rows: Sequence[Row]) -> None:
    """What the intervals of the speedups are, and where the model is no faster than with all its
    layers.

    Args:
        rows: timed alike; of several, their figures after the attack are shown.
    """
    if len(rows) > 1:
        alike = [
            " on ".join(str(row[key]) for key in ("recipe", "victim") if key in row)
            for row in rows
            if is_none("speedup_seconds", row, "_after")
        ]
    else:
        alike = [
            f"{when} the attack"
            for when in ("before", "after")
            if is_none("speedup_seconds", rows[0], f"_{when}")
        ]
    if words := speed_words(rows[0], alike, names=("speedup_seconds",)):
        output.say(f"[dim]{escape(words)}[/]")


def say_quality(output: Output, row: Row) -> None:
    """What a decoder's quality is of."""
    if "output_similarity_after" not in row:
        return
    lines = ["Full model, output similarity: against all layers' output on the same input."]
    if has_drafts(row):
        lines.append("Gain removed: of the verifications that drafts spare.")
    quality = leading_metric(row)
    if quality is not None and f"{quality}_after" not in row:
        before = written(quality, row[f"{quality}_before"])
        lines.append(
            f"{label(quality)} {before} without an attack; "
            "nobody knows the right output of a word with other letters."
        )
    elif quality is not None and row.get("quality_samples", row["samples"]) < row["samples"]:
        lines.append(f"{label(quality)}: over the {row['quality_samples']} of several words.")
    output.say(f"[dim]{escape(' '.join(lines))}[/]")


def has_drafts(row: Row) -> bool:
    """Was it self-speculation that was attacked?"""
    return "tokens_per_verification_after" in row


def say_prefix(output: Output, row: Row) -> None:
    """What was learned once for all inputs, and what that cost."""
    if row.get("prefix") is not None:
        output.say(
            f"[cyan]{escape(str(row['recipe']))}[/] puts [bold]{escape(str(row['prefix']))}[/] "
            f"before every input [dim](learned with {row['search_queries']:,} queries and "
            f"{row['search_gradient_passes']:,} gradient passes on other texts)[/]"
        )


def interval_words(level: float | None) -> str:
    """What the numbers in brackets are."""
    return f"in brackets {100 * (level or 0.95):.0f} % bootstrap intervals over samples"


def done(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of recipes that ran, the strongest first."""
    rows = [row for row in document["rows"] if "status" not in row]
    return sorted(rows, key=lambda row: -(row.get("gain_removed") or 0.0))


def effects(document: Mapping[str, Any]) -> Sheet:
    """Depth, speed and quality after each recipe, under those before any."""
    rows = done(document)
    best, against = rows[0], _against_best(document)
    quality = leading_metric(best)
    before = {
        "recipe": _NO_ATTACK,
        **{name.replace("_before", "_after"): best[name] for name in best if "_before" in name},
    }
    columns = [
        Column("recipe", "Recipe", style="cyan", whole=True),
        Column("gain_removed", "Gain removed", text=gain_words, numeric=True, whole=True),
        *(_OF_DRAFTS if has_drafts(best) else _OF_LAYERS),
        _after("speedup_seconds", "Speedup\n(seconds)"),
        _after("latency_ms", "Latency"),
    ]
    if has_energy(best, "_after"):
        columns.append(_after("joules_per_sample", "Joules"))
    if quality is not None and f"{quality}_after" in best:
        columns.append(_after(quality, _in_two_lines(label(quality))))
    if "agreement_after" in best and not has_drafts(best):
        columns.append(_after("agreement", "Same as\nfull model"))
        columns.append(_after("output_similarity", "Output\nsimilarity"))
    columns.append(
        Column(
            "p_holm",
            f"Against\n{document['report']['metrics_of']} (p)",
            text=lambda row: against.get(row["recipe"], ""),
            numeric=True,
            whole=True,
        )
    )
    lacking = [row for row in document["rows"] if "status" in row]
    title = f"Slowdown by recipe, n = {best['samples']}"
    return Sheet(columns, [before, *rows, *lacking], title=title)


def _in_two_lines(heading: str) -> str:
    """Broken at the space that leaves the shorter column."""
    words = heading.split()
    broken = [f"{' '.join(words[:at])}\n{' '.join(words[at:])}" for at in range(1, len(words))]
    return min([heading, *broken], key=lambda text: max(map(len, text.splitlines())))


def _against_best(document: Mapping[str, Any]) -> dict[str, str]:
    """Recipe -> "-0.71 (0.012)": its layers per sample beyond the best one's, and the p-value."""
    best = document["report"]["metrics_of"]
    found = {}
    for pair in document["report"].get("comparisons", ()):
        others = {pair["recipe"], pair["against"]} - {best}
        if len(others) == 1:
            sign = -1 if pair["recipe"] == best else 1
            # Rounded, and 0.0 added, so that no difference is never written as -0.00.
            layers = f"{round(sign * pair['difference_layers'], 2) + 0.0:+.2f}"
            found[others.pop()] = f"{layers} ({significance(pair['p_holm'])})"
    return found


def costs(document: Mapping[str, Any]) -> Sheet:
    """What each recipe spent and changed, per attacked sample."""
    rows = done(document)
    columns = [
        Column("recipe", "Recipe", style="cyan", whole=True),
        _figure("attacked", "Inputs"),
        _after("efficacy", "Efficacy\n(all)"),
        _figure("last_layer_rate", "At last\nlayer"),
        _figure("goal_success_rate", "Own\ngoal"),
    ]
    # A decoder has no embeddings that stand for a whole text; its inputs compare by characters.
    embedded = "similarity_embedding_mean" in rows[0]
    columns += [
        _figure("queries_mean", "Queries"),
        _figure("gradient_passes_mean", "Gradients"),
        _figure("seconds_mean", "Seconds"),
        _figure("changes_mean", f"{unit_of(rows[0]).capitalize()}\nchanged"),
        _figure("similarity_embedding_mean", "Similarity")
        if embedded
        else _figure("similarity_characters_mean", "Characters\nkept"),
    ]
    return Sheet(columns, rows, title="Efficacy and cost by recipe, per attacked sample")


def unit_of(row: Row) -> str:
    """What an attack changes of an input: words, or letters of a decoder's words."""
    return str(row.get("unit") or "words")


def _say_left_out(output: Output, document: Mapping[str, Any]) -> None:
    for row in document["rows"]:
        if "status" in row:
            output.say(f"[cyan]{escape(str(row['recipe']))}[/] [dim]{escape(row['status'])}[/]")
    if any("status" in row for row in document["rows"]):
        output.say()


def _after(name: str, heading: str) -> Column:
    return Column(
        f"{name}_after",
        heading,
        text=lambda row: with_spread(name, row, "_after"),
        numeric=True,
        whole=True,
    )


def _figure(name: str, heading: str) -> Column:
    return Column(name, heading, numeric=True, whole=True)


_OF_LAYERS = (
    _after("mean_exit_layer", "Exit\nlayer"),
    _after("speedup_layers", "Speedup\n(layers)"),
)
_OF_DRAFTS = (
    _after("tokens_per_verification", "Tokens per\nverification"),
    _after("acceptance_rate", "Drafts\naccepted"),
)


def gain_words(row: Row) -> str:
    """ "83.1 % [78, 88]", or what there is of it."""
    if "status" in row:
        return "not run here"
    gain, low, high = (row.get(f"gain_removed{end}") for end in ("", "_low", "_high"))
    if gain is None:
        return "" if row.get("recipe") == _NO_ATTACK else "-"
    words = written("gain_removed", gain)
    if low is None or high is None:
        return words
    ends = f"{100 * low:.0f}", f"{100 * high:.0f}"
    if ends[0] == ends[1] and row.get("samples") is not None:
        # Every draw of these samples gave the same, which says little where they are few.
        return f"{words} [all {row['samples']} alike]"
    return f"{words} [{', '.join(ends)}]"


def show_transfer(output: Output, document: Mapping[str, Any]) -> None:
    """For people: whose inputs slow whom down, and what defences recover."""
    output.sheet(transfers(document))
    rows = document["rows"]
    first, defended = rows[0], _defended(rows)
    sure = "" if defended else f"; {interval_words(first.get('interval_level'))}"
    output.say(
        f"[dim]{first['samples']} samples a row{sure}. Replayed as they are: an attacker who "
        "knows the victim or its defence may do better.[/]"
    )
    if not defended:
        say_speed(output, rows)
    say_energy(output, document)
    if "output_similarity_after" in first:
        output.say("[dim]Likeness: of the outputs to the full model's on the same input.[/]")
    if defended:
        output.say(
            "[dim]Recovered: the share of what the attack took from the undefended model, in "
            "layers used and in quality, that the defence gives back.[/]"
        )
    if any(row.get("defence") == "recalibrated" for row in document["rows"]):
        output.say(
            "[dim]Recalibrated: two rules, each chosen on one half of these attacked samples and "
            "judged on the other half.[/]"
        )


def transfers(document: Mapping[str, Any]) -> Sheet:
    """One row per source, recipe, victim and defence; columns that say nothing are left out."""
    rows: Sequence[Mapping[str, Any]] = document["rows"]
    quality = _quality(rows[0])
    defended = _defended(rows)
    makers, (victims,) = maker_labels([document]), victim_labels([document])
    columns = []
    for key, heading, text in (
        ("source", "Made on", lambda row: makers[run_of(row), row["recipe"]]),
        ("recipe", "Recipe", lambda row: row["recipe"]),
        ("victim", "Victim", lambda row: victims[row["victim"]]),
    ):
        if key == "victim" or len({text(row) for row in rows}) > 1:
            columns.append(Column(key, heading, text=text, style="cyan"))
    if defended:
        columns.append(Column("defence", "Exit", text=_defence, whole=True))
    columns += [
        Column("mean_exit_layer", "Exit layer", text=_arrow("mean_exit_layer"), whole=True),
        # A table with defences has no room for intervals.
        Column("gain_removed", "Gain removed", numeric=True)
        if defended
        else Column("gain_removed", "Gain removed", gain_words, numeric=True, whole=True),
    ]
    if quality is not None:
        heading = _HEADINGS.get(quality, label(quality))
        columns.append(Column(quality, heading, text=_arrow(quality), whole=True))
    if not defended:
        columns.append(_after("speedup_seconds", "Speedup after\n(seconds)"))
        if any(has_energy(row, "_after") for row in rows):
            columns.append(_after("joules_per_sample", "Joules\nafter"))
        return Sheet(columns, rows, title="Transfer")
    columns.append(_recovered("layers", "Layers"))
    if quality is not None:
        columns.append(_recovered(quality, heading))
    return Sheet(columns, rows, title="Transfer")


_HEADINGS = {"output_similarity": "Likeness"}
"""Shorter than elsewhere, where a table has many columns."""


def _quality(row: Row) -> str | None:
    """What is left of the answers; a decoder's references say nothing of another input, but the
    full model's output on it does."""
    if "output_similarity_after" in row:
        return "output_similarity"
    return next((name for name in task_metrics(row) if f"{name}_after" in row), None)


def _defended(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row.get("defence", "none") != "none" for row in rows)


def _recovered(name: str, heading: str) -> Column:
    """What a defence gives back, as a share."""
    key = f"{name}_recovered"

    def text(row: Row) -> str:
        return "" if row.get("defence") == "none" else written("gain_removed", row.get(key))

    return Column(key, f"{heading}\nrecovered", text, numeric=True)


def _arrow(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        return " → ".join(
            written(name, row.get(f"{name}_{when}")).removesuffix(" %")
            for when in ("before", "after")
        )

    return text


def _defence(row: Row) -> str:
    """What the row says of its defence; settings of the others are in the document."""
    if row["defence"] == "none":
        return "its own"
    if row["defence"] == "patience":
        return f"patience {row['patience']}"
    return str(row["defence"])
