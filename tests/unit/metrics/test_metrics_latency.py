"""The stopwatch runs every way on every item, in turn."""

import time

from eexit_cli.metrics.latency import time_in_turn


def test_every_way_sees_every_item_and_the_slow_one_is_slower():
    seen = {"quick": [], "slow": []}

    def quick(item):
        seen["quick"].append(item)

    def slow(item):
        seen["slow"].append(item)
        time.sleep(0.002)

    ticks = []
    seconds = time_in_turn(
        {"quick": quick, "slow": slow},
        [1, 2, 3],
        warm_up=1,
        repeats=2,
        on_item=lambda: ticks.append(1),
    )
    assert seen["quick"] == seen["slow"] == [1, 1, 1, 2, 2, 3, 3]
    assert len(ticks) == 3
    assert seconds["slow"].shape == (3,)
    assert (seconds["slow"] >= 0.002).all()
    assert (seconds["slow"] > seconds["quick"]).all()


def test_the_queue_is_drained_before_each_reading():
    drained = []
    time_in_turn({"way": lambda item: None}, [1], warm_up=0, synchronize=lambda: drained.append(1))
    assert len(drained) == 2
