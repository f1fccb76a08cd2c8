"""Settings of who does the work of a long command."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from eexit_cli.config.field import RUN, opt


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Who does the work: this process, several on this machine, or a Ray cluster's."""

    workers: int | None = opt(
        None,
        "Processes that work side by side, one thread each; by default this one alone, on a "
        "cluster as many as there is room for.",
        RUN,
        least=1,
    )
    engine: str = opt(
        "local",
        "Where they run: on this machine, or on Ray (which is joined, or started here).",
        RUN,
        names="engine",
        listed=True,
    )
    address: str | None = opt(
        None,
        "With --engine ray: the cluster's, such as ray://head:10001.",
        RUN,
        metavar="ADDRESS",
    )
    gpus_per_worker: float | None = opt(
        None,
        "With --engine ray: GPUs of each worker; 0.25 lets four share one.",
        RUN,
        least=0,
    )
    sample_timeout: float | None = opt(
        None,
        "Seconds that a sample may take; then its worker is ended, and it counts as failed.",
        RUN,
        least=0,
    )


ENGINE_OPTIONS = tuple(item.name for item in dataclasses.fields(EngineConfig))
"""No record depends on them."""
