"""Errors that a user may see: one line that says what is wrong, one that names the repair.

Exit codes: 0 done, 1 failed, 2 usage, 3 missing artifact, 4 risk cannot be controlled,
130 interrupted. Only these classes become user errors; any other exception is a bug and keeps
its traceback.
"""

from __future__ import annotations


class EexitError(Exception):
    """A failure that the user can act on.

    Args:
        message: one line, what is wrong, without a final full stop.
        hint: one line, what repairs it: a command, an option, a nearest name.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFiniteError(EexitError):
    """A model's outputs, or a loss, are NaN or infinite."""


class UsageError(EexitError):
    """An option, a name or an input file says something that cannot be done."""

    exit_code = 2


class MissingArtifactError(EexitError):
    """A model, a data set, a run or a calibration that is not there yet."""

    exit_code = 3


class RiskNotControlledError(EexitError):
    """No threshold could be certified and the user asked that this be a failure."""

    exit_code = 4


INTERRUPTED = 130
