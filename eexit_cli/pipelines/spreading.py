"""From a command's options to the engine that does its jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import UsageError

if TYPE_CHECKING:
    from eexit_cli.config.common import EngineConfig
    from eexit_cli.engine import Engine, Told, Work

RAY = "ray"


def check_engine(config: EngineConfig) -> None:
    """Options of the engine that cannot be, or say nothing.

    Raises:
        UsageError: there is one.
    """
    if config.workers is not None and config.workers < 1:
        raise UsageError(
            f"--workers {config.workers} is outside its range",
            hint="Give a whole number, at least 1",
        )
    if config.sample_timeout is not None and config.sample_timeout <= 0:
        raise UsageError(
            f"--sample-timeout {config.sample_timeout:g} leaves no time", hint="Give seconds"
        )
    if config.gpus_per_worker is not None and config.gpus_per_worker < 0:
        raise UsageError(
            f"--gpus-per-worker {config.gpus_per_worker:g} is negative", hint="Give 0 or more"
        )
    if config.engine != RAY:
        for option in ("address", "gpus_per_worker"):
            if getattr(config, option) is not None:
                name = f"--{option.replace('_', '-')}"
                raise UsageError(f"{name} is Ray's", hint=f"Add --engine ray, or drop {name}")


def spreads(config: EngineConfig) -> bool:
    """Is the work done by other processes? A time limit needs one that can be ended."""
    return config.engine == RAY or (config.workers or 1) > 1 or config.sample_timeout is not None


def engine_of(
    config: EngineConfig, work: Work, *, jobs: int, tell: Callable[[str], None]
) -> Engine:
    """What the options ask for, not yet begun.

    Args:
        work: of each worker.
        jobs: that there are; more workers than these would be idle.
        tell: gets a line where something happened.

    Raises:
        MissingArtifactError: Ray is not installed.
    """
    others: dict[str, Any] = {"timeout": config.sample_timeout, "tell": tell, "most": jobs}
    if config.engine == RAY:
        from eexit_cli.engine.ray import Actors

        gpus = config.gpus_per_worker or 0.0
        return Actors(work, config.workers, address=config.address, gpus=gpus, **others)
    from eexit_cli.engine.processes import Processes

    return Processes(work, config.workers or 1, **others)


def settled(config: Any, model: Any) -> tuple[Any, tuple[str, ...]]:
    """The configuration as a worker anywhere reads it, and the folders that it names.

    Args:
        config: with ``model``.
        model: that it means, opened.
    """
    ref = model.ref
    if ref.kind != "folder":
        return config, ()
    folder = str(Path(model.folder).resolve())
    return dataclasses.replace(config, model=folder), (folder,)


def placed(config: Any, places: dict[str, str] | None) -> Any:
    """The configuration with the folders of a worker's own machine."""
    model = (places or {}).get(config.model, config.model)
    return dataclasses.replace(config, model=model)


def remembered(told: Told) -> dict[str, Any]:
    """What a run's report says of its engine."""
    return {
        "engine": told.engine,
        "workers": told.workers,
        "nodes": told.nodes,
        "deaths": told.deaths,
        "failed": len(told.failed),
    }
