"""The decoding loop where exits have parts of their own."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from torch import Tensor

from eexit_cli.models.decoding.loop import Batch
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.stream import Stream

if TYPE_CHECKING:
    from eexit_cli.models.causal.stack import CausalStack
    from eexit_cli.models.decoding.stack import Exit


class OwnExits(Batch):
    """Tokens leave at the layers that have an exit, and are chosen by that exit's own head.

    An exit's decoder layer runs for every token that asks there, whether it leaves or not, and has
    keys and values of all of them. Tokens that left before are owed: it makes theirs of the state
    that they left with, as skipped layers do. The stream of a token that goes on knows nothing of
    the exits that it passed.
    """

    @property
    def _own(self) -> CausalStack:
        return cast("CausalStack", self.stack)

    @property
    def extra(self) -> Collection[int]:
        static, measure = self.settings.static_layer, self.settings.measure
        asked = [static] if static is not None else self._own.exits if measure is not None else []
        own = (self._own.own_layer(layer) for layer in asked if self.offers(layer))
        return [number for number in own if number is not None]

    def offers(self, layer: int) -> bool:
        return layer in self._own.exits and super().offers(layer)

    def exit_at(self, layer: int) -> Exit:
        return self._own.exit_at(layer)

    def answer(self, layer: int, unit: Tensor, rows: Rows, position: int) -> Tensor:
        own = self._own.own_layer(layer)
        return unit if own is None else self.layer(own, unit, unit, rows, position)

    @property
    def scores_layers(self) -> bool:
        """Always: rows that left at different layers have no head in common."""
        return True

    def tell(
        self, layer: int, answer: Tensor, gone: Rows, leaving: list[int] | None, position: int
    ) -> list[int]:
        if not super().scores_layers:
            answer = answer if leaving is None else answer[leaving]
            self.scorer.logits(answer, self.ban(gone, position), self.exit_at(layer))
            leaving = None
        return super().tell(layer, answer, gone, leaving, position)

    def _beside(self, fresh: list[int]) -> tuple[Rows, Tensor]:
        if self._own.own_layer(self.depth) is not None:  # the prompts' pass went through it too
            self.counts.layer_tokens += len(fresh)
        return super()._beside(fresh)


class OwnExitStream(OwnExits, Stream):
    """The same for many batches as one."""
