"""What to say of a run that has no document yet."""

from __future__ import annotations

from typing import Any

from eexit_cli.core.errors import MissingArtifactError
from eexit_cli.store.results import Run

_RESUMPTIONS = {
    "attack": "Go on with: eexit attack --resume {id}",
    "calibrate": "Go on with: eexit calibrate --resume {id}",
    "train": "Go on with: eexit train --output {output} --resume",
}
"""How an unfinished run goes on, by its command; the others start again."""


def finished_document(run: Run) -> dict[str, Any]:
    """The run's document.

    Raises:
        MissingArtifactError: it is not finished; the hint says how it goes on.
        EexitError: the file is damaged, or written by a newer eexit.
    """
    document = run.document()
    if document is None:
        raise MissingArtifactError(f"Run '{run.id}' is not finished", hint=_resumption(run))
    return document


def _resumption(run: Run) -> str:
    replayed = run.config.get("transfer")
    if replayed:
        options = " ".join(f"--transfer {name}" for name in replayed)
        return f"Start it again: eexit attack {options} --model {run.config['model']}"
    hint = _RESUMPTIONS.get(run.command, "Start it again: eexit {command}")
    return hint.format(command=run.command, id=run.id, **run.config)
