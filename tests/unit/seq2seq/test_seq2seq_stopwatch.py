"""Seconds go to the part that they were spent on, and none is lost."""

from __future__ import annotations

import pytest
import torch

from eexit_cli.models.decoding.timing import Stopwatch


def test_every_second_belongs_to_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    # Readings of the clock: gaps of 1, 2, 4, ... seconds, so that sums say which gaps they hold.
    readings = iter([float(2**at - 1) for at in range(10)])
    monkeypatch.setattr(Stopwatch, "clock", staticmethod(lambda: next(readings)))
    watch = Stopwatch(3, torch.device("cpu"))
    watch.encoder()  # 1
    watch.layer(0)  # 2
    watch.confidence(0)  # 4
    watch.layer(2)  # 8
    watch.filling()  # 16
    watch.head()  # 32
    watch.other()  # 64
    watch.layer(0)  # 128
    watch.shared_product(1, 0.25)  # 256
    found = watch.timings
    assert found.encoder == 1
    assert found.layers == [2 + 128, 0.75 * 256, 8]
    assert found.confidence == [4, 0, 0]
    assert found.filling == 16 + 0.25 * 256
    assert (found.head, found.other) == (32, 64)
    parts = [found.encoder, *found.layers, *found.confidence, found.filling, found.head]
    assert sum([*parts, found.other]) == 511
