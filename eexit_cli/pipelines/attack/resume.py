"""Going on with a broken-off attack: its own options hold, and nothing it rests on has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.pipelines.resume import resumed
from eexit_cli.store.results import Run

_FREE = ("resume", "results_dir", "workers")
"""Options that a resumed run may have otherwise than the first: no record depends on them."""


def resumed_config(config: AttackConfig, run: Run, explicit: Collection[str] = ()) -> AttackConfig:
    """The configuration of the run to go on with; options given beside it must agree.

    Args:
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: an option differs from the run's, or the run replays another one's inputs.
    """
    if run.config.get("transfer"):
        raise UsageError(
            f"Run '{run.id}' replays another run's inputs; it has nothing to go on with",
            hint="Start it again, as it takes seconds: eexit attack --transfer "
            + " --transfer ".join(run.config["transfer"]),
        )
    original = resumed(
        config,
        run.config,
        what="run",
        repair=f"go on with {run.id}, or start a new run without --resume",
        explicit=explicit,
        free=_FREE,
    )
    return dataclasses.replace(original, results_dir=config.results_dir, resume=run.id)


def check_samples(run: Run, samples: Sequence[Mapping[str, Any]]) -> None:
    """Records are told apart by the sample's id, so each must still stand for the same text.

    Raises:
        UsageError: a finished record's sample has another text now, or is gone.
    """
    texts = {
        str(sample["id"]): (sample.get("source", sample.get("text")), sample.get("text_pair"))
        for sample in samples
    }
    for record in run.records():
        if texts.get(record["id"]) != (record["text"], record.get("text_pair")):
            raise UsageError(
                f"Run {run.id} attacked another sample '{record['id']}' than the data have now",
                hint="Restore the data, or start a new run without --resume",
            )


def check_unchanged(run: Run, settings: Mapping[str, Any]) -> None:
    """The model's own exit, the data or what recipes need may have changed under a resumed run.

    Raises:
        UsageError: they have.
    """
    for name in ("exit", "split", "task", "recipes"):
        if name in run.config and run.config[name] != settings[name]:
            raise UsageError(
                f"Run {run.id} was started with {name} {run.config[name]}, "
                f"which is {settings[name]} now",
                hint="Start a new run without --resume",
            )
