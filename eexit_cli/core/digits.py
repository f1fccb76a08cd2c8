"""Numbers of a guarantee as text: enough digits, and rounded to the safe side only.

A threshold that is typed back must be at least as cautious as the one that was certified, a
probability must not be promised higher than it is, and a bound must not be printed below itself.
All arithmetic is on decimals, as the numbers stand in Python's shortest form.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_DIGITS = 4
_MOST_DECIMALS = 10
"""Of a percentage: 99.9999999999 %."""

_DOWNWARDS = Context(prec=28, rounding=ROUND_FLOOR)


def exact(value: float) -> str:
    """The shortest text that reads back as the same number: 0.641161, 1, 1e-05."""
    return repr(float(value)).removesuffix(".0")


def fixed_up(value: float, places: int) -> str:
    """With ``places`` decimals, not below the value."""
    return f"{_decimals(value, places, ROUND_CEILING):f}"


def fixed_down(value: float, places: int) -> str:
    """With ``places`` decimals, not above the value."""
    return f"{_decimals(value, places, ROUND_FLOOR):f}"


def at_least(value: float, digits: int = _DIGITS) -> str:
    """With ``digits`` significant digits, not below the value."""
    rounded = _decimals(value, _places(value, digits), ROUND_CEILING).normalize()
    return f"{rounded:f}" if rounded.adjusted() >= -5 else f"{rounded:e}"


def confidence(epsilon: float) -> str:
    """1 - epsilon in percent, never more: epsilon's four leading digits, rounded up.

    Args:
        epsilon: in (0, 1).
    """
    missing = _decimals(epsilon, _places(epsilon, _DIGITS), ROUND_CEILING)
    share = _DOWNWARDS.subtract(Decimal(100), 100 * missing)
    return f"{_decimals(share, _MOST_DECIMALS, ROUND_FLOOR).normalize():f} %"


def even_grid(cautious: float, eager: float, steps: int) -> list[float]:
    """``steps`` + 1 thresholds at even distances, in digits that people retype.

    Between the ends they have four decimals, rounded to the cautious side.
    """
    rounding = ROUND_CEILING if cautious > eager else ROUND_FLOOR
    # Ten decimals take away what binary fractions add: 0.42500000000000004.
    inner = [round(cautious + (eager - cautious) * step / steps, 10) for step in range(1, steps)]
    return [cautious, *(float(_decimals(value, 4, rounding)) for value in inner), eager]


def _decimals(value: float | Decimal, places: int, rounding: str) -> Decimal:
    number = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    return number.quantize(Decimal(1).scaleb(-places), rounding=rounding)


def _places(value: float, digits: int) -> int:
    """Decimals that keep ``digits`` significant ones."""
    return digits - 1 - Decimal(repr(float(value))).adjusted() if value else digits - 1
