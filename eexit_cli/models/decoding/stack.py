"""What decoding asks of a model: the steps of its layers, made for one token per row.

A model provides a :class:`Stack` (T5's is ``models.t5.stack``) and the rest of this package does
not know which model it decodes. Layers read ``unit``: the residual stream or, where all layers norm
it alike but for a scale (T5), the stream under that norm, so that it is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from eexit_cli.models.decoding.int8 import Int8Product
from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.timing import Stopwatch


class Inputs(Protocol):
    """Inputs that were read and wait for a slot."""

    def __len__(self) -> int: ...

    def take(self, count: int) -> Any:
        """The next inputs, as :meth:`Memory.enter` takes them."""
        ...


class Memory(Protocol):
    """What the running rows are conditioned on beside their own outputs: of an encoder-decoder
    the encoder's outputs, with the keys and values that each layer makes of them when it first
    runs; of a decoder-only model its prompts, which are run into the rows' own caches.

    Attributes:
        fresh: slots whose first token comes from their prompt's pass, not from a step.
    """

    @property
    def fresh(self) -> Any: ...

    def start(self, cache: Any, sight: Any, place: int, told: Any = None) -> None:
        """The first inputs go into the slots in order, their outputs start at this place.

        Args:
            cache, sight: of the batch.
            told: to be told what each layer makes of a prompt's last token, as (layer, slots,
                place, states). Shape of the states: [slots given, d].
        """
        ...

    def enter(self, slots: list[int], inputs: Any, place: int) -> None:
        """New inputs in these slots, whose outputs start at this place."""
        ...

    def look(self, slots: list[int]) -> None:
        """These slots are running now."""
        ...

    def compact(self, slots: Tensor) -> None:
        """Keep these slots, renumbered in this order. Shape: [slots], int64."""
        ...


class Exit(Protocol):
    """What makes logits of a layer's output; where one serves all layers, the stack itself.

    Attributes:
        head_rows: the LM head's weight, for single rows of it. Shape: [vocabulary, ...].
            An 8-bit head is there as a product.
    """

    @property
    def head_rows(self) -> Tensor | Int8Product: ...

    def state(self, unit: Tensor) -> Tensor:
        """Under the exit's norm. Shape: [rows, d]."""
        ...

    def head_input(self, unit: Tensor) -> Tensor:
        """What ``head_rows`` multiply. Shape: [rows, d]."""
        ...

    def logits(self, unit: Tensor) -> Tensor:
        """The whole LM head. Shape: [rows, d] -> [rows, vocabulary]."""
        ...


class Stack(Exit, Protocol):
    """A model's decoder, layer by layer; as an exit, what the last layer answers through.

    Attributes:
        depth: L.
        width: of ``unit``, d.
        heads, head_size, inner: of self-attention; inner = heads * head_size.
        kv_heads: keys and values that the heads share.
        embedding: word embeddings, whose dtype and device are those of states.
            Shape: [vocabulary, ...].
        stream: dtype of the residual stream after a layer.
        head_is_finite: it has no NaN and no infinity.
        single: :class:`~eexit_cli.models.decoding.caches.SingleRowCache` fits it.
        shared_sight: rows see their outputs and nothing before.
        turns_by_place: keys depend on their own positions.
        cap: of attention scores; None for none.
    """

    @property
    def depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def embedding(self) -> Tensor: ...
    @property
    def stream(self) -> torch.dtype: ...
    @property
    def head_is_finite(self) -> bool: ...
    @property
    def single(self) -> bool: ...
    @property
    def shared_sight(self) -> bool: ...
    @property
    def turns_by_place(self) -> bool: ...
    @property
    def cap(self) -> float | None: ...

    def places_before(self, longest: int) -> int:
        """Places of the caches before that of the first token of an output.

        Args:
            longest: tokens of the longest input.
        """
        ...

    def read(self, input_ids: Tensor, mask: Tensor | None) -> Inputs:
        """Inputs ready to be answered.

        Args:
            input_ids: Shape: [batch, tokens].
            mask: 1 for tokens, 0 for padding. Shape: [batch, tokens].
        """
        ...

    def memory(self, inputs: Any, depth: int, watch: Stopwatch | None) -> Memory:
        """Of all of these inputs, one per slot, for a decoder of which ``depth`` layers run."""
        ...

    def embed(self, tokens: Tensor, positions: int | Tensor) -> Tensor:
        """The stream before the first layer. Shape: [rows] -> [rows, d].

        Args:
            positions: of the tokens in what their rows see; one number where all are equal.
        """
        ...

    def unit(self, x: Tensor) -> Tensor:
        """What layers read of the stream. Shape: [..., d]."""
        ...

    def turn(self, positions: int | Tensor) -> Any:
        """What :meth:`project` needs of positions, the same in every layer."""
        ...

    def project(self, index: int, unit: Tensor, turn: Any) -> tuple[Tensor, Tensor]:
        """Query, and key and value, of layer ``index`` (0-based), the query scaled.

        Shapes: [n, d] -> [n, inner] and [n, 2 * key heads * size], or split.
        """
        ...

    def projection(self, index: int) -> Any:
        """Where ``single`` or FREE runs: the maps of layer ``index`` as one product.

        Shape: [n, d] -> [n, 3 * inner].
        """
        ...

    def skipped_key_values(self, unit: Tensor, first: int, turn: Any) -> Iterable[Tensor]:
        """Keys and values of every layer from ``first`` on, of a state that skipped them.

        Shape: layers x [rows, 2 * key heads * size], or split.
        """
        ...

    def reach(self, index: int) -> int | None:
        """Places that layer ``index`` sees, the token's own among them; None is all."""
        ...

    def bias(self, tokens: int) -> Tensor | None:
        """Added to scores by the distance of the key, the largest distance first.

        Shape: [heads, tokens].
        """
        ...

    def prepare(self, index: int, memory: Any) -> None:
        """Make what layer ``index`` needs of the memory, if nobody has run it yet."""
        ...

    def after_attention(
        self, index: int, attended: Tensor, x: Tensor, memory: Any, rows: Rows
    ) -> Tensor:
        """The rest of a layer, one token per row.

        Args:
            attended: of self-attention. Shape: [rows, inner].
            x: the stream before the layer. Shape: [rows, d].

        Returns:
            The stream after it. Shape: [rows, d].
        """
        ...

    def after_attention_of_spans(
        self,
        index: int,
        attended: Tensor,
        x: Tensor,
        memory: Any,
        slots: list[int],
        lengths: list[int],
    ) -> Tensor:
        """The same for several tokens of each slot, one slot after the other.

        Shapes: [tokens, inner], [tokens, d] -> [tokens, d].
        """
        ...
