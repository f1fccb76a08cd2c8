"""The processes that attack a run's samples, and learn before that what recipes share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eexit_cli.attacks import wordnet_env
from eexit_cli.pipelines.attack.attacker import attacking
from eexit_cli.pipelines.spreading import EngineCrew

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress
    from eexit_cli.pipelines.attack.plan import Plan
    from eexit_cli.pipelines.attack.subject import Subject


@contextmanager
def attackers(
    subject: Subject, plan: Plan, jobs: int | None, timings: dict[str, float], progress: Progress
) -> Iterator[EngineCrew]:
    """Workers that do :func:`~eexit_cli.pipelines.attack.attacker.attacking`'s jobs.

    Args:
        jobs: that there are, where no others come before them.
        timings: gets ``workers_startup_seconds`` and ``workers_end_seconds``.

    Raises:
        EngineError: none can be set up.
    """
    needs = [need for recipe in plan.recipes for need in recipe.needs]
    wanted = subject.config.substitutes == "wordnet" or wordnet_env.HOW_TO_GET in needs
    if wanted and wordnet_env.wordnet_is_there():
        wordnet_env.offer_wordnet()  # unpacked once rather than by every worker
    crew = EngineCrew.of(attacking, subject.config, subject.model, progress, jobs)
    crew.begin()
    timings["workers_startup_seconds"] = crew.engine.told.startup_seconds
    try:
        yield crew
        ended = time.perf_counter()
    finally:
        crew.close()
    timings["workers_end_seconds"] = time.perf_counter() - ended
