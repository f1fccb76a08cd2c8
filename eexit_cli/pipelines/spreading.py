"""From a command's options to the engine that does its jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.engine import Job, Work
from eexit_cli.store.models import resolve

if TYPE_CHECKING:
    from eexit_cli.config.engine import EngineConfig
    from eexit_cli.core.protocols import Progress
    from eexit_cli.engine import Engine, Told

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


def resettled(config: Any) -> Any:
    """A resumed run's configuration: what was said of a cluster is void where another engine goes
    on."""
    if config.engine == RAY:
        return config
    return dataclasses.replace(config, address=None, gpus_per_worker=None)


def spreads(config: EngineConfig) -> bool:
    """Is the work done by other processes? A time limit needs one that can be ended."""
    return config.engine == RAY or (config.workers or 1) > 1 or config.sample_timeout is not None


@contextmanager
def torch_threads(workers: int | None) -> Iterator[None]:
    """One torch thread for a while, unless the user said nothing about workers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if workers is None else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def engine_of(
    config: EngineConfig, work: Work, *, jobs: int | None, tell: Callable[[str], None]
) -> Engine:
    """What the options ask for, not yet begun.

    Args:
        work: of each worker.
        jobs: that there are, where known; more workers than these would be idle.
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
        config: with ``model``, and maybe a ``surrogate``.
        model: that it means, opened.
    """
    refs = {"model": model.ref}
    if (surrogate := getattr(config, "surrogate", None)) is not None:
        refs["surrogate"] = resolve(surrogate)
    folders = {
        name: str(ref.path.resolve())
        for name, ref in refs.items()
        if ref.kind == "folder" and ref.path is not None
    }
    return dataclasses.replace(config, **folders), tuple(folders.values())


def placed(config: Any, places: dict[str, str] | None) -> Any:
    """The configuration with the folders of a worker's own machine."""
    here = {name: getattr(config, name, None) for name in ("model", "surrogate")}
    there = {name: places[path] for name, path in here.items() if places and path in places}
    return dataclasses.replace(config, **there)


@dataclass(frozen=True)
class Part:
    """Of a pass, with its place in it."""

    place: int
    share: Any


class EngineCrew:
    """See :class:`eexit_cli.core.protocols.Crew`; its engine begins with its first pass.

    Args:
        engine: its workers answer a :class:`Part` with its place and what its share gives.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def of(
        cls,
        make: Callable[..., Callable[[Any], Any]],
        config: Any,
        model: Any,
        progress: Progress,
        jobs: int | None = None,
    ) -> EngineCrew:
        """Workers that each make what does the jobs of this configuration.

        Args:
            make: as of :class:`eexit_cli.engine.Work`, of a configuration.
            model: that the configuration means, opened.
            jobs: that there are, where known.
        """
        settings, folders = settled(config, model)
        work = Work(make, (settings,), folders)
        return cls(engine_of(config, work, jobs=jobs, tell=progress.message))

    @property
    def size(self) -> int:
        self.begin()
        return len(self.engine.workers)

    @property
    def side_by_side(self) -> str:
        self.begin()
        return self.engine.told.side_by_side

    def begin(self) -> None:
        if not self.engine.workers:
            self.engine.__enter__()

    def do(self, shares: Sequence[Any], sizes: Sequence[int]) -> Iterator[tuple[int, Any]]:
        self.begin()
        jobs = [
            Job(f"part {place + 1} of {len(shares)} ({size} samples)", Part(place, share), size)
            for place, (share, size) in enumerate(zip(shares, sizes, strict=True))
        ]
        for _, found in self.engine.run(jobs):
            yield found
        if self.engine.told.failed:
            name, why = next(iter(self.engine.told.failed.items()))
            raise EexitError(
                f"The pass cannot be finished: {name} {why}",
                hint="Go on with fewer --workers or a longer --sample-timeout, or leave both out",
            )

    def close(self) -> None:
        if self.engine.workers:
            self.engine.close()


def sharing(config: Any, places: dict[str, str] | None = None) -> Callable[[Part], Any]:
    """What a member of a model's crew does: a part of a pass to its place and its answer."""
    from eexit_cli.families.opening import open_model

    model = open_model(placed(config, places))
    return lambda part: (part.place, model.share(part.share))


@contextmanager
def crewed(
    config: Any, model: Any, progress: Progress
) -> Iterator[tuple[Any, Callable[[], dict[str, Any]]]]:
    """The model, with a crew where the options ask for one.

    Yields:
        The model, and what gives the report's words on its engine.
    """
    if not spreads(config):
        yield model, dict
        return
    crew = EngineCrew.of(sharing, config, model, progress)
    try:
        yield model.with_crew(crew), lambda: {"engine": remembered(crew.engine.told)}
    finally:
        crew.close()


def remembered(told: Told) -> dict[str, Any]:
    """What a run's report says of its engine."""
    return {
        "engine": told.engine,
        "workers": told.workers,
        "nodes": told.nodes,
        "deaths": told.deaths,
        "failed": len(told.failed),
    }
