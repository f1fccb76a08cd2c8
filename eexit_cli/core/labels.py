"""Short names for what shares a table or a figure, longer only where they would coincide."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Named:
    """Something with a model's name, and what else tells it from others.

    Attributes:
        name: a model's name, folder or hub id.
        options: what it was made with; those that differ are said.
        key: what it is; equal keys get equal labels.
        last: said where nothing else differs.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    key: Hashable = None
    last: str = ""


def told_apart(items: Sequence[Named]) -> list[str]:
    """A label each: the name's last part, and where others have it too the folders before it, then
    the options that differ, then ``last``."""
    places = _shortest_paths({item.name for item in items})
    labels = []
    for item in items:
        others = [one for one in items if places[one.name] == places[item.name]]
        said = {one.key: _words(one, others) for one in others}
        words = said[item.key]
        if sum(each == words for each in said.values()) > 1:
            words = [*words, f"({item.last})"] if item.last else words
        labels.append(" ".join([places[item.name], *words]))
    return labels


def _shortest_paths(names: set[str]) -> dict[str, str]:
    """As many parts, from the end, as tell each name from the others."""
    parts = {name: PurePath(name).parts or (name,) for name in names}
    found = {}
    for name, own in parts.items():
        rivals = [other for other in parts.values() if other is not own]
        count = 1
        while count < len(own) and any(other[-count:] == own[-count:] for other in rivals):
            count += 1
        found[name] = "/".join(own[-count:]).replace("//", "/")
    return found


def _words(item: Named, others: Sequence[Named]) -> list[str]:
    names = dict.fromkeys(name for one in others for name in one.options)
    differing = [name for name in names if len({str(one.options.get(name)) for one in others}) > 1]
    return [word for name in differing if (word := _said(name, item.options.get(name)))]


def _said(name: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return PurePath(value).name
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shown}"


def maker_labels(documents: Sequence[Document]) -> dict[tuple[str, str], str]:
    """What the attack runs are called whose inputs these documents replay.

    Args:
        documents: of replays. Their ``report`` says under ``sources`` what each run was asked
            beside the defaults; one of an older eexit does not.

    Returns:
        (run, recipe) -> label; runs that share no recipe need not be told apart.
    """
    makers: dict[str, dict[str, Named]] = {}
    for document in documents:
        asked = (document.get("report") or {}).get("sources") or {}
        for row in document["rows"]:
            run = run_of(row)
            last = run.rsplit("-", 1)[-1]
            named = Named(str(row["source"]), asked.get(run) or {}, run, last)
            makers.setdefault(str(row["recipe"]), {})[run] = named
    return {
        (run, recipe): label
        for recipe, runs in makers.items()
        for run, label in zip(runs, told_apart(list(runs.values())), strict=True)
    }


def run_of(row: Mapping[str, Any]) -> str:
    """The run whose inputs a replay's row is about."""
    return str(row.get("source_run", row["source"]))


_OF_REPLAYS = (
    "dtype",
    "weights",
    "runtime",
    "max_length",
    "max_new_tokens",
    "lower_case",
    "source_prefix",
)


def victim_labels(documents: Sequence[Document]) -> list[dict[str, str]]:
    """What the victims of replays are called: one model may be there with several exits.

    Returns:
        For each document, the victim's name -> label.
    """
    victims: list[tuple[int, Named]] = []
    for number, document in enumerate(documents):
        config = document["config"]
        for name in dict.fromkeys(str(row["victim"]) for row in document["rows"]):
            options = _exit_options((config.get("exits") or {}).get(name) or {})
            options |= {option: config.get(option) for option in _OF_REPLAYS}
            if options["weights"] == "float":
                options["weights"] = None  # as older runs have it
            key = (name, str(sorted(options.items())))
            last = str(document.get("run_id", "")).rsplit("-", 1)[-1]
            victims.append((number, Named(name, options, key, last)))
    labels: list[dict[str, str]] = [{} for _ in documents]
    named = [victim for _, victim in victims]
    for (number, victim), label in zip(victims, told_apart(named), strict=True):
        labels[number][victim.name] = label
    return labels


_PLAIN = {"runtime": "torch", "weights": "float"}


def run_by(config: Mapping[str, Any]) -> dict[str, str]:
    """What runs a model, as far as it is another way than torch with its float weights."""
    given = {name: config.get(name) for name in _PLAIN}
    return {n: way for n, way in given.items() if isinstance(way, str) and way != _PLAIN[n]}


def exit_words(described: Mapping[str, Any]) -> dict[str, str]:
    """An exit's settings, by option, in a word or two each."""
    options = _exit_options(described).items()
    return {name: word for name, value in options if (word := _said(name, value))}


def _exit_options(described: Mapping[str, Any]) -> dict[str, Any]:
    """An exit's settings in the words of a label: the criterion's name where no value says it."""
    options = dict(described)
    if len(options) > 1:
        options.pop("criterion", None)
    if options.get("min_layer") == 1:
        options.pop("min_layer")  # says nothing
    return options
