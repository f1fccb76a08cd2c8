"""Phrases that several screens share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from eexit_cli.core.digits import exact
from eexit_cli.core.text import readable
from eexit_cli.ui.catalogs import CATALOGS
from eexit_cli.ui.measures import written
from eexit_cli.ui.tables import Column, Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions


def criterion_words(settings: Mapping[str, Any] | None) -> str:
    """An exit criterion as people say it: "entropy below 0.19", "patience 4"."""
    if not settings:
        return "the model's own"
    name = str(settings.get("criterion") or _unnamed(settings))
    if name in _OWN:
        return _OWN[name](settings)
    # An old run may name a criterion of a package that is no longer here.
    criterion = dict(CATALOGS.load("exit criterion").working()).get(name)
    return name if criterion is None else str(criterion.words(settings))


def _unnamed(settings: Mapping[str, Any]) -> str:
    """The criterion of a decoder's stored defaults, which name its values alone."""
    for name, criterion in (("static_layer", "static"), ("shallow_layer", "shallow-deep")):
        if settings.get(name) is not None:
            return criterion
    return "threshold" if "threshold" in settings else "full"


def _threshold(settings: Mapping[str, Any]) -> str:
    measure = settings.get("confidence", "entropy")
    side = "below" if _falls(measure) else "above"
    return f"{measure} {side} {exact(settings['threshold'])}{_of_decoders(settings)}"


def _falls(name: str) -> bool:
    """Is a smaller value of this measure the surer one? Those of decoders all rise."""
    measure = dict(CATALOGS.load("confidence measure").working()).get(name)
    return measure is not None and not measure.rises


def _of_decoders(settings: Mapping[str, Any]) -> str:
    words = ""
    if (settings.get("min_layer") or 1) > 1:
        words += f", from layer {settings['min_layer']}"
    if settings.get("top_k_propagation"):
        words += f", top {settings['top_k_propagation']}"
    if settings.get("decay"):
        temperature = settings.get("decay_temperature", settings.get("temperature"))
        tau = "" if temperature is None else f", tau {temperature:g}"
        words += f", decaying ({settings['decay']}{tau})"
    return words


def _drafts(settings: Mapping[str, Any]) -> str:
    words = f"layer {settings['exit_layer']} drafts {settings['draft_tokens']} tokens"
    if settings.get("draft_threshold"):
        words += f", fewer below {exact(settings['draft_threshold'])}"
    return words


def _shallow_deep(settings: Mapping[str, Any]) -> str:
    start = settings.get("threshold_start", settings["threshold"])
    adaptive = settings.get("adaptive") or settings.get("adaptive_threshold")
    threshold = f"an adaptive threshold from {exact(start)}" if adaptive else exact(start)
    words = f"layer {settings['shallow_layer']} or the last: {settings['confidence']} above "
    return words + threshold + _of_decoders(settings)


_OWN = {
    "self-speculative": _drafts,
    "full": lambda settings: "none, the full model",
    "threshold": _threshold,
    "shallow-deep": _shallow_deep,
}
"""What is no criterion of the catalog, or has words of decoders too."""


def facts(pairs: Mapping[str, Any]) -> Facts:
    """ "name value" pairs beside each other; empty values are left out."""
    return Facts({name: str(value) for name, value in pairs.items() if value is not None})


class Facts:
    """Draws pairs in as few lines as the width allows, tearing none apart."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = pairs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = Text()
        for name, value in self.pairs.items():
            pair = Text.assemble((name, "dim"), " ", readable(value, console.encoding))
            if line and line.cell_len + 2 + pair.cell_len > options.max_width:
                yield line
                line = Text()
            line.append_text(Text.assemble("  " if line else "", pair))
        yield line


def value_column(key: str, heading: str) -> Column:
    """A column of figures that differ from row to row; ``metric`` says which.

    Rows that want other words than the figure's have them under ``<key>_words``.
    """

    def text(row: Row) -> str:
        if row[key] is None:
            return ""
        return str(row.get(f"{key}_words", written(row["metric"], row[key])))

    return Column(key, heading, text=text, numeric=True, whole=True)


def source_of_data(config: Mapping[str, Any]) -> str | None:
    """The file or the task and split that a run read."""
    if config.get("data_file") or config.get("data"):
        return str(config.get("data_file") or config["data"])
    task, split = config.get("task"), config.get("split")
    return f"{task}, {split}" if task and split else task


def shortened(text: str, limit: int = 60) -> str:
    """One line of at most ``limit`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
