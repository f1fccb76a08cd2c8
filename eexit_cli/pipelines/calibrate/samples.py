"""Calibration and test samples: two splits of a task, or disjoint parts of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eexit_cli.calibration.bounds import samples_needed
from eexit_cli.calibration.p_values import P_VALUES
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.core.seed import stream
from eexit_cli.core.types import Examples
from eexit_cli.data import TASKS

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


@dataclasses.dataclass(frozen=True)
class Parts:
    """Rows of one source for calibration and, disjoint from it, for testing."""

    calibration: list[int]
    test: list[int]


Loader = Callable[[CalibrateConfig, str], Examples]
"""(settings, default split) -> samples, as a family of models needs them."""


def calibration_examples(
    config: CalibrateConfig, load: Loader, progress: Progress
) -> dict[str, Examples]:
    """``calibration`` and, unless it is empty, ``test``; disjoint, both in a seeded order.

    They come from two splits where the task has one for calibration, else they are halves of one:
    the test split, as validation chose the model's defaults.

    Args:
        config: ``task``, ``data_file``, ``split``, ``limit``, ``test_limit``, ``test_share`` and
            ``seed`` count.
        load: gets the settings for one split, and the split that they mean by default.

    Raises:
        UsageError: fewer samples than asked, or what ``load`` raises.
    """
    splits = two_splits(config)
    if splits is not None and config.test_share is not None:
        raise UsageError(
            f"--test-share divides one source; '{config.task}' has a {splits[1]} split of its own",
            hint="Use --limit N and --test-limit N, or --split to divide one",
        )
    if splits is not None and config.test_limit != 0:
        progress.message(f"Calibrating on the {splits[0]} split, testing on the {splits[1]} split")
        limits = (config.limit, config.test_limit)
        parts = [
            load(dataclasses.replace(config, split=split, limit=limit), split)
            for split, limit in zip(splits, limits, strict=True)
        ]
        _check_enough(config, parts[0], len(parts[0]))
        for part, limit, flag in zip(parts, limits, ("--limit", "--test-limit"), strict=True):
            if limit is not None and limit > part.total:
                raise UsageError(
                    f"The {part.split} split of '{part.info.name}'{_without(part)} has "
                    f"{part.total} samples, "
                    f"fewer than asked: {flag} {limit}",
                    hint=f"Give {flag} {part.total} or less",
                )
        return {
            name: _take(part, shuffled(len(part), config.seed))
            for name, part in zip(("calibration", "test"), parts, strict=True)
        }
    whole = load(
        dataclasses.replace(config, limit=None), splits[0] if splits else _only_split(config)
    )
    rows = divide(
        len(whole),
        limit=config.limit,
        test_limit=config.test_limit,
        test_share=config.test_share,
        seed=config.seed,
        what=f"The {whole.split} split of '{whole.info.name}'{_without(whole)}",
        halves=True,
    )
    _check_enough(config, whole, len(rows.calibration))
    file = config.data_file
    what = f"'{file.name}'" if file else f"the {whole.split} split of '{whole.info.name}'"
    progress.message(parted(rows, len(whole), what))
    chosen = {"calibration": _take(whole, rows.calibration)}
    if rows.test:
        chosen["test"] = _take(whole, rows.test)
    return chosen


def _without(examples: Examples) -> str:
    rows = examples.training_rows
    if isinstance(rows, str) or not rows["left_out"]:
        return ""
    return f", without the {rows['left_out']} samples that trained the model,"


def _check_enough(config: CalibrateConfig, examples: Examples, count: int) -> None:
    """Where what trained a model is left out, too little may stay to say anything.

    Raises:
        UsageError: not even losses of 0 could certify a threshold.
    """
    rows = examples.training_rows
    if isinstance(rows, str) or rows["included"] or not rows["left_out"] + rows["chose_the_exit"]:
        return
    least = samples_needed(P_VALUES.load(config.p_value), config.delta, config.epsilon)
    if least is None or count >= least:
        return
    stay = len(examples)
    asked = f"delta {config.delta:g} and epsilon {config.epsilon:g}"
    more = "--test-limit 0 calibrates on all of them, or give" if stay >= least else "Give"
    raise UsageError(
        f"Of {rows['of']} samples of '{examples.info.name}' {rows['left_out']} trained the model; "
        f"{count} of the {stay} that stay calibrate, and {asked} need at least {least}",
        hint=f"{more} samples that it was not trained on (--data-file, --task), or a larger "
        "--delta; with --include-training-rows nothing is promised",
    )


def _take(examples: Examples, rows: Sequence[int]) -> Examples:
    return dataclasses.replace(examples, dataset=examples.dataset.select(list(rows)))


def two_splits(config: CalibrateConfig) -> tuple[str, str] | None:
    """A split made to calibrate on, and one to test on; None where one must be divided."""
    if config.data_file is not None or config.split is not None or config.task is None:
        return None
    splits = _public_splits(config.task)
    return ("calibration", "test") if {"calibration", "test"} <= splits else None


def _only_split(config: CalibrateConfig) -> str:
    """What is divided: a file as a whole, or the last of a task's splits that has labels."""
    if config.data_file is not None or config.task is None:
        return "test"
    return "test" if "test" in _public_splits(config.task) else "validation"


def _public_splits(name: str) -> set[str]:
    """What people call the splits of a task whose labels are public."""
    task = TASKS.load(name)
    known = {split for split in task.splits if split not in task.hidden}
    return known | {said for said, split in task.renamed.items() if split in known}


def divide(
    total: int,
    *,
    limit: int | None,
    test_limit: int | None,
    test_share: float | None,
    seed: int,
    what: str,
    halves: bool,
) -> Parts:
    """Disjoint calibration and test rows of one source, drawn by the seed.

    Args:
        total: rows that there are.
        limit: calibration rows; None or 0 is all that the test leaves.
        test_limit: test rows; 0 is none.
        test_share: test rows as a share of all.
        what: the source, for the error message.
        halves: where nobody says anything, half of the rows test; else none of them does.

    Raises:
        UsageError: there are fewer rows than asked.
    """
    tests = test_limit if test_share is None else round(test_share * total)
    count = limit or 0
    if tests is None:
        nobody_says = total // 2 if halves else 0
        tests = total - count if count else nobody_says
    count = count or total - tests
    if count < 1 or tests < 0 or count + tests > total:
        asked = f"{limit or 'no'} calibration" + (f" and {tests} test" if tests > 0 else "")
        raise UsageError(
            f"{what} has {total} samples, fewer than asked: {asked}",
            hint="Lower --limit, --test-limit or --test-share; --test-limit 0 goes without a test",
        )
    order = list(range(total))
    # The order of --limit (data.loading): an attack or an evaluation of the first N samples with
    # the same seed then finds test samples, as calibration takes from the other end.
    stream(seed, "data.limit").shuffle(order)
    return Parts(order[::-1][:count], order[:tests])


def parted(parts: Parts, total: int, what: str) -> str:
    """Which rows do what, in a line."""
    count, tests = len(parts.calibration), len(parts.test)
    if not tests:
        how = f"all {total}" if count == total else f"{count} of {total}"
        return (
            f"Calibrating on {how} samples of {what}; none tests (--test-share X sets some aside)"
        )
    if count + tests == total and count - tests in (0, 1):
        return (
            f"Calibrating on one half of {what}, {count} samples, testing on the other, {tests}: "
            "no sample is in both"
        )
    return (
        f"Calibrating on {count} of {total} samples of {what}, testing on {tests} others: "
        "no sample is in both"
    )


def shuffled(total: int, seed: int) -> list[int]:
    """All rows in a seeded order: betting looks at samples one by one."""
    order = list(range(total))
    stream(seed, "calibration.order").shuffle(order)
    return order
