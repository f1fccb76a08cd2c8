"""The model card: what a model is, the commands that made it, what it measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eexit_cli.core.digits import exact


def describe_exit(settings: Mapping[str, Any]) -> str:
    """``entropy threshold 0.19`` or ``patience 3``, as a person says it.

    Args:
        settings: as ``exit_defaults`` stores them; a decoder's name no criterion.
    """
    criterion = settings.get("criterion", "threshold")
    if criterion == "threshold":
        return f"{settings['confidence']} threshold {exact(settings['threshold'])}"
    if criterion == "patience" and settings["patience"] == 0:
        return "patience 0 (the full model)"
    return f"{criterion} {settings[criterion]}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, *rows]
    written = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([written[0], "|---" * len(head) + "|", *written[1:]])


def write_card(facts: Mapping[str, Any]) -> str:
    """The content of README.md, with the hub's metadata header.

    Args:
        facts: what the card says:

            - name: title, usually the folder's name
            - tag: of the kind of exits
            - backbone: what it was trained from; None is nothing
            - task: its name
            - licence: of the weights; None where eexit cannot know
            - what: a paragraph that says what the model is
            - points: lines of the list below it
            - use: commands that run it
            - commands: the exact ones that made it
            - versions: programs and their numbers
            - sections: titles and texts of what was measured
            - limits: how "The model was trained for" goes on
    """
    name, backbone = facts["name"], facts["backbone"]
    header = [
        "---",
        "library_name: eexit",
        f"license: {facts['licence'] or 'unknown'}",
        *([f"base_model: {backbone}"] if backbone else []),
        "datasets:",
        f"- {facts['task']}",
        "tags:",
        *(f"- {tag}" for tag in ("early-exit", "multi-exit", facts["tag"])),
        "---",
    ]
    limits = (
        "For research on early exit: its speed, its calibration, and attacks on it. The model was "
        f"trained for\n{facts['limits']}"
    )
    parts = [
        "\n".join(header),
        f"# {name}",
        facts["what"],
        "\n".join(f"- {point}" for point in facts["points"]),
        "## Use",
        _code(facts["use"]),
        "## Made by",
        _code(facts["commands"]),
        ", ".join(sorted(facts["versions"])),
        *(part for title, text in facts["sections"] for part in (f"## {title}", text)),
        "## Intended use and limits",
        limits,
    ]
    return "\n\n".join(parts) + "\n"


def _code(lines: Iterable[str]) -> str:
    return "\n".join(["```", *lines, "```"])
