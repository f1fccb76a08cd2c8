"""A deployed file as a classifier: every exit's logits, and leaving early for real.

The file alone says what the model is. Its nested form is what is deployed, and what runs one input
under the file's own rule; everything else runs pieces of the same graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import EexitError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import ExitCursor
from eexit_cli.core.types import Decision
from eexit_cli.models.encoder.model import ExitHook, MultiExitConfig, MultiExitOutput
from eexit_cli.models.finite import Finite, not_finite
from eexit_cli.models.onnx.about import AGAIN, INT8, About, read_file
from eexit_cli.models.onnx.export import KNOBS
from eexit_cli.models.onnx.nesting import Layers
from eexit_cli.models.onnx.runtime import session

Values = dict[str, Tensor]
"""Inputs and hidden states by their names in the graph."""


@dataclass(frozen=True)
class _Piece:
    """A session with the names of what it reads and makes."""

    run: Callable[..., list[Any]]
    reads: tuple[str, ...]
    makes: tuple[str, ...]

    @classmethod
    def of(cls, model: Any, makes: tuple[str, ...], what: str) -> _Piece:
        made = session(model, what)
        # The knob has a default, so it is not among the inputs.
        reads = [*made.get_inputs(), *made.get_overridable_initializers()]
        return cls(made.run, tuple(value.name for value in reads), makes)

    def __call__(self, values: Values) -> list[Tensor]:
        feed = {name: values[name].contiguous().numpy() for name in self.reads}
        return [torch.from_numpy(found) for found in self.run(self.makes, feed)]


class OnnxClassifier:
    """What :class:`~eexit_cli.models.encoder.model.MultiExitClassifier` is for inference, from a
    deployed file alone. It has no gradients, and runs on the CPU.

    An int8 file quantises activations by the batch that they come in. So that an answer is what the
    deployed file gives, every exit's logits, and what a hook is told, are made input by input;
    only :meth:`infer` without a hook runs int8 in batches.

    Attributes:
        about: what the file says of itself.
        config: the model's configuration.
        num_exits: L, exits in the file.
        num_classes: K; 1 for regression.
        max_tokens: the longest input, special tokens included.
        graph: the file's ``onnx.ModelProto``.
        backbone: ``config`` of the encoder, and nothing else.
        dtype, device: of what goes in and out.
    """

    dtype = torch.float32
    device = torch.device("cpu")
    training = False

    def __init__(self, model: Any, about: About, path: Path) -> None:
        self.about = about
        self.config = MultiExitConfig(**about.config)
        self.config.name_or_path = str(path)
        self.num_exits = about.layers
        self.num_classes = int(self.config.num_labels)
        self.max_tokens = about.max_tokens
        self.backbone = SimpleNamespace(config=self.config.backbone_config())
        self.graph, self._path = model, path
        self._layers = Layers.of(model, about.layers, path)
        self._alone = about.weights == INT8
        # Made on first use: each has weights of its own.
        self._piece = cache(self._made)

    @classmethod
    def load(cls, path: Path) -> OnnxClassifier:
        """From a file that :mod:`~eexit_cli.models.onnx.deployment` wrote.

        Raises:
            MissingArtifactError: there is no such file.
            EexitError: ``eexit[onnx]`` is not installed or too old; the file is damaged, foreign,
                or of a newer format.
        """
        found = cls(*read_file(path), path)
        found._piece("whole")
        return found

    def eval(self) -> OnnxClassifier:
        return self

    @cached_property
    def word_embeddings(self) -> nn.Embedding:
        """The file's table, int8 ones as the numbers that they stand for.

        Raises:
            EexitError: the graph looks none up.
        """
        name = self._layers.looked_up
        if name is None:
            raise EexitError(f"{self._path} looks up no word embeddings", hint=AGAIN)
        piece = _Piece.of(self._layers.piece([name]), (name,), str(self._path))
        tokens = int(self.backbone.config.vocab_size)
        (table,) = piece({"input_ids": torch.arange(tokens)[None]})
        return nn.Embedding.from_pretrained(table[0])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> MultiExitOutput:
        """The full pass through all layers.

        Args:
            input_ids, attention_mask, token_type_ids: Shape of each: [batch, tokens], int64;
                padding is on the right.

        Returns:
            Every exit's logits, Shape: [batch, exits, classes], float32.

        Raises:
            NotFiniteError: a logit is NaN or infinite.
        """
        values = _values(input_ids, attention_mask, token_type_ids)
        every = self._piece("every")
        parts = _one_by_one(values) if self._alone else [values]
        logits = torch.cat([torch.stack(every(part), dim=1) for part in parts])
        if not bool(logits.isfinite().all()):
            raise not_finite(self)  # type: ignore[arg-type]
        return MultiExitOutput(logits=logits)

    __call__ = forward

    @torch.inference_mode()
    def infer(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        criterion: ExitCriterion | None = None,
        on_exit: ExitHook | None = None,
    ) -> Decision:
        """Leave early for real: after each layer the samples that left are dropped.

        Args:
            input_ids, attention_mask, token_type_ids: as for :meth:`forward`.
            criterion: None runs all layers. One input under the file's own rule, at any setting of
                it, is one run of the file itself.
            on_exit: as for the torch model's :meth:`infer`.

        Returns:
            Exit layer and answering logits per sample.

        Raises:
            NotFiniteError: a logit of an executed exit is NaN or infinite; of a run of the file
                itself, of the answering one.
        """
        values = _values(input_ids, attention_mask, token_type_ids)
        if on_exit is None:
            if criterion is None:
                (logits,) = self._piece("last")(values)
                return self._answer(logits, torch.full((len(logits),), self.num_exits))
            if len(input_ids) == 1 and self.about.reads(criterion.describe()):
                return self._deployed(values, criterion)
        if on_exit is None or not self._alone:
            return self._walk(values, criterion, on_exit)
        decisions = []
        for row, part in enumerate(_one_by_one(values)):

            def hook(layer: int, rows: Tensor, logits: Tensor, row: int = row) -> None:
                on_exit(layer, rows + row, logits)

            decisions.append(self._walk(part, criterion, hook))
        return Decision(
            torch.cat([each.exit_layers for each in decisions]),
            torch.cat([each.logits for each in decisions]),
        )

    def _deployed(self, values: Values, criterion: ExitCriterion) -> Decision:
        knob = self.about.knob
        if knob is not None:
            values[knob] = torch.tensor(getattr(criterion, knob), dtype=KNOBS[knob])
        logits, layer = self._piece("whole")(values)
        return self._answer(logits, layer)

    def _answer(self, logits: Tensor, layers: Tensor) -> Decision:
        if not bool(logits.isfinite().all()):
            raise not_finite(self)  # type: ignore[arg-type]
        return Decision(layers, logits)

    def _walk(
        self, values: Values, criterion: ExitCriterion | None, on_exit: ExitHook | None
    ) -> Decision:
        finite = Finite()
        cursor = ExitCursor(criterion, self.num_exits)
        for layer in range(1, self.num_exits + 1):
            logits, *hidden = self._piece(layer)(values)
            finite.see(logits.flatten())
            if on_exit is not None:
                on_exit(layer, cursor.rows_before(logits), logits)
            keep = cursor.advance(layer, logits)
            values = {name: value for name, value in values.items() if name in _INPUTS}
            if hidden:
                values[f"hidden_{layer}"] = hidden[0]
            if keep is None:
                continue
            if keep.numel() == 0:
                break
            values = _trimmed({name: value[keep] for name, value in values.items()})
        if not finite.all():
            raise not_finite(self)  # type: ignore[arg-type]
        return cursor.decision()

    def _made(self, which: int | str) -> _Piece:
        """A layer alone, every exit's logits, the last one's, or the file as it is.

        Two layers in a session, or bound memory between sessions, measured within a tenth of this.
        """
        last, what = self.num_exits, str(self._path)
        if which == "whole":
            return _Piece.of(self.graph, ("logits", "exit_layer"), what)
        if isinstance(which, int):
            made = [f"logits_{which}", *([f"hidden_{which}"] if which < last else [])]
            given = [f"hidden_{which - 1}"] if which > 1 else []
        else:
            made = [f"logits_{layer}" for layer in range(1, last + 1)]
            made, given = made if which == "every" else made[-1:], []
        graph = self._layers.piece(made, given)
        return _Piece.of(graph, tuple(made), what)


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _values(ids: Tensor, mask: Tensor | None, segments: Tensor | None) -> Values:
    given = (
        ids,
        torch.ones_like(ids) if mask is None else mask,
        torch.zeros_like(ids) if segments is None else segments,
    )
    return dict(zip(_INPUTS, given, strict=True))


def _trimmed(values: Values) -> Values:
    """No more columns than the longest row needs."""
    mask = values["attention_mask"]
    tokens = int((mask * torch.arange(1, mask.shape[1] + 1)).max())
    return {name: value[:, :tokens] for name, value in values.items()}


def _one_by_one(values: Values) -> list[Values]:
    rows = range(len(values["input_ids"]))
    alone = ({name: value[row : row + 1] for name, value in values.items()} for row in rows)
    return [_trimmed(each) for each in alone]
