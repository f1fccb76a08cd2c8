"""Phrases that several screens share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

_FALLS = {"entropy"}


def criterion_words(settings: Mapping[str, Any] | None) -> str:
    """An exit criterion as people say it: "entropy below 0.19", "patience 4"."""
    if not settings:
        return "the model's own"
    writer = _CRITERIA.get(str(settings.get("criterion")))
    return writer(settings) if writer is not None else str(settings.get("criterion"))


def _threshold(settings: Mapping[str, Any]) -> str:
    measure = settings.get("confidence", "entropy")
    side = "below" if measure in _FALLS else "above"
    return f"{measure} {side} {settings['threshold']:g}"


_CRITERIA = {
    "full": lambda settings: "none, the full model",
    "threshold": _threshold,
    "patience": lambda settings: f"patience {settings['patience']}",
    "voting": lambda settings: f"votes of {settings.get('voting', settings.get('threshold')):g}",
    "static": lambda settings: f"always after layer {settings['static_layer']}",
}


def facts(pairs: Mapping[str, Any]) -> str:
    """One line of "name value" pairs; empty values are left out."""
    shown = [f"[dim]{escape(k)}[/] {escape(str(v))}" for k, v in pairs.items() if v is not None]
    return "  ".join(shown)


def source_of_data(config: Mapping[str, Any]) -> str | None:
    """The file or the task and split that a run read."""
    if config.get("data_file"):
        return str(config["data_file"])
    task, split = config.get("task"), config.get("split")
    return f"{task}, {split}" if task and split else task


def shortened(text: str, limit: int = 60) -> str:
    """One line of at most ``limit`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
