"""How near an input was to going on past the exit where it left.

The exit layer alone leaves most candidates tied. Between two that leave at the same layer, the
one whose executed exits were nearer to letting it through is the better start for the next word.
Only exits that were executed are read, so the live path pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from eexit_cli.core.criterion import Criterion
from eexit_cli.core.errors import UsageError

# Below 1, so that the best of one layer never reaches the next layer's worst.
MOST = 0.999

Closeness = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, exits, classes], exit layers [batch]) -> [batch], 0 = sure, 1 = went on."""


def closeness_for(criterion: Any) -> Closeness:
    """The secondary score that a criterion says of itself (:meth:`Criterion.closeness`).

    Raises:
        UsageError: the criterion does not look at its input, so no input can slow it down.
    """
    assert isinstance(criterion, Criterion)
    if not criterion.reads_input:
        raise UsageError(
            f"A {criterion.name} exit layer cannot be slowed down: it does not depend on the input",
            hint="Give --threshold or --patience",
        )
    return lambda logits, exit_layers: criterion.closeness(logits, exit_layers).clamp(0, MOST)
