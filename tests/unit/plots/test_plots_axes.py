"""What stands on the axes: which ticks, and where they end."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest

from eexit_cli.plots.axis import inches_across, layer_axis
from eexit_cli.plots.budget import _ticks


@pytest.mark.parametrize("last", [9.9, 10, 105, 112, 1000, 1119, 56_000])
def test_ticks_of_a_log_axis_are_round_numbers_up_to_its_end(last: float) -> None:
    numbers = range(1, int(last) + 1)
    round_ = [n for n in numbers if str(n)[0] in "125" and not str(n)[1:].strip("0")]
    assert _ticks(last, inches=50.0) == round_
    assert _ticks(last, inches=0.5) == [n for n in round_ if str(n)[0] == "1"]


@pytest.mark.parametrize("layers", [1, 2, 6, 12, 24, 48])
@pytest.mark.parametrize("width", [1.2, 3.3, 12.0])
def test_a_layer_axis_has_the_last_layer_and_evenly_as_many_as_have_room(
    layers: int, width: float
) -> None:
    figure, axes = plt.subplots(figsize=(width, 2))
    try:
        layer_axis(axes, layers)
        ticks = sorted(axes.get_xticks())
        left, right = axes.get_xlim()
        across = inches_across(axes)
        assert across == pytest.approx(axes.get_position().width * width)
    finally:
        plt.close(figure)
    # Half a bar on either side of the outer layers.
    assert 0 < left <= 0.5
    assert layers + 0.5 <= right < layers + 1
    assert ticks[-1] == layers
    assert ticks[0] >= 1
    steps = {int(b - a) for a, b in pairwise(ticks)}
    assert len(steps) <= 1
    # A label of so many digits is about this wide.
    inches = 0.05 + 0.06 * len(str(layers))
    assert len(ticks) <= max(2, across / inches)
    if layers * inches <= across:
        assert ticks == list(range(1, layers + 1))
