"""What decoding asks of a model: the steps of its layers, made for one token per row.

A model provides a :class:`Stack` (T5's is ``models.t5.stack``) and the rest of this package does
not know which model it decodes. Layers read ``unit``, the residual stream under a norm without its
scale: one of it serves every layer, which is what lets a token's state stand in for the states
that the layers which it skipped would have had.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from eexit_cli.models.decoding.rows import Rows
from eexit_cli.models.decoding.timing import Stopwatch


class Projection(Protocol):
    """The query, key and value maps of a layer as one. Shape: [n, d] -> [n, 3 * inner]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write the product to its place."""
        ...


class Inputs(Protocol):
    """Inputs that were read and wait for a slot."""

    def __len__(self) -> int: ...

    def take(self, count: int) -> Any:
        """The next inputs, as :meth:`Memory.enter` takes them."""
        ...


class Memory(Protocol):
    """What the running rows are conditioned on beside their own outputs: of an encoder-decoder
    the encoder's outputs, with the keys and values that each layer makes of them when it first
    runs."""

    def enter(self, slots: list[int], inputs: Any) -> None:
        """New inputs in these slots."""
        ...

    def look(self, slots: list[int]) -> None:
        """These slots are running now."""
        ...

    def compact(self, slots: Tensor) -> None:
        """Keep these slots, renumbered in this order. Shape: [slots], int64."""
        ...


class Stack(Protocol):
    """A model's decoder, layer by layer.

    Attributes:
        depth: L.
        width: d.
        heads, head_size, inner: of self-attention; inner = heads * head_size.
        embedding: word embeddings, whose dtype and device are those of states.
            Shape: [vocabulary, d].
        stream: dtype of the residual stream after a layer.
        head_rows: the LM head's weight, for single rows of it. Shape: [vocabulary, d].
        head_is_finite: it has no NaN and no infinity.
    """

    @property
    def depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def embedding(self) -> Tensor: ...
    @property
    def stream(self) -> torch.dtype: ...
    @property
    def head_rows(self) -> Tensor: ...
    @property
    def head_is_finite(self) -> bool: ...

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

    def embed(self, tokens: Tensor) -> Tensor:
        """The stream before the first layer. Shape: [rows] -> [rows, d]."""
        ...

    def unit(self, x: Tensor) -> Tensor:
        """The stream under a norm without its scale. Shape: [..., d]."""
        ...

    def projection(self, index: int) -> Projection:
        """Of layer ``index`` (0-based)."""
        ...

    def skipped_key_values(self, unit: Tensor, first: int) -> Tensor:
        """Keys and values of every layer from ``first`` on, of a state that skipped them.

        Shape: [rows, d] -> [rows, layers, 2 * inner].
        """
        ...

    def bias(self, tokens: int) -> Tensor:
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

    def state(self, unit: Tensor) -> Tensor:
        """Under the decoder's final norm. Shape: [rows, d]."""
        ...

    def head_input(self, unit: Tensor) -> Tensor:
        """What ``head_rows`` multiply. Shape: [rows, d]."""
        ...

    def logits(self, unit: Tensor) -> Tensor:
        """The whole LM head. Shape: [rows, d] -> [rows, vocabulary]."""
        ...
