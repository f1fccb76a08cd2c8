"""Is the number that an answer ends with the right one, as GSM8K is judged.

The reference's number stands behind ``####`` (Cobbe et al., 2021, arXiv:2110.14168). Of an output
it is the one behind the first ``####``, since a model may run on to a next question; where it
writes none, the last number in it, as lm-evaluation-harness's ``flexible-extract`` takes it.
"""

from __future__ import annotations

import re
from decimal import Decimal

from eexit_cli.metrics.generation import GenerationMetric, References
from eexit_cli.metrics.generation_answers import exact_match

MARK = "####"

_NUMBER = re.compile(r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def final_number(text: str) -> Decimal | None:
    """The number that a solution gives: ``$1,200.00.`` is 1200; None where there is none."""
    _, mark, behind = text.partition(MARK)
    marked = _NUMBER.search(behind) if mark else None
    found = [marked.group()] if marked else _NUMBER.findall(text)
    return Decimal(found[-1].replace("$", "").replace(",", "")) if found else None


def final_number_match(prediction: str, references: References) -> float:
    """1 if the final number equals that of a reference, else 0; as numbers, so that 5.0 is 5.

    A reference without a number is compared as a text, as in exact match.
    """
    return float(any(_same(prediction, reference) for reference in references))


def _same(prediction: str, reference: str) -> bool:
    right = final_number(reference)
    if right is None:
        return exact_match(prediction, [reference]) == 1.0
    return final_number(prediction) == right


FINAL_NUMBER_MATCH = GenerationMetric(final_number_match)
