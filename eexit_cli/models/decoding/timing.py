"""A stopwatch with named parts, made only when timings are asked for."""

from __future__ import annotations

import time

import torch

from eexit_cli.models.decoding.results import DecodeTimings


class Stopwatch:
    """Adds the time since the last lap to the part that it was spent on.

    ``clock`` is wall time; a benchmark on a busy machine may put ``time.process_time`` there.

    Args:
        num_layers: L.
        device: kernels on a GPU run on after the call; each lap waits for them.
    """

    clock = staticmethod(time.perf_counter)

    def __init__(self, num_layers: int, device: torch.device) -> None:
        self.timings = DecodeTimings(layers=[0.0] * num_layers, confidence=[0.0] * num_layers)
        self._cuda = device if device.type == "cuda" else None
        self._last = self._now()

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return self.clock()

    def _lap(self) -> float:
        now = self._now()
        spent = now - self._last
        self._last = now
        return spent

    def encoder(self) -> None:
        self.timings.encoder += self._lap()

    def layer(self, index: int) -> None:
        self.timings.layers[index] += self._lap()

    def confidence(self, index: int) -> None:
        self.timings.confidence[index] += self._lap()

    def head(self) -> None:
        self.timings.head += self._lap()

    def other(self) -> None:
        self.timings.other += self._lap()

    def filling(self) -> None:
        self.timings.filling += self._lap()

    def shared_product(self, index: int, share: float) -> None:
        """A product that served the layer and, for this share of its rows, waiting tokens."""
        spent = self._lap()
        if index < len(self.timings.layers):
            self.timings.layers[index] += spent * (1 - share)
        else:  # an exit's own layer
            self.timings.other += spent * (1 - share)
        self.timings.filling += spent * share
