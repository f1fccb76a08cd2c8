"""What every model that decodes with exits has in common, whatever its layers are."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from eexit_cli.core.errors import UsageError
from eexit_cli.models.checkpoints import replace_file
from eexit_cli.models.decoding.generation import TokenRules
from eexit_cli.models.decoding.given import Given
from eexit_cli.models.decoding.int8 import FLOAT
from eexit_cli.models.decoding.loop import Batch
from eexit_cli.models.decoding.results import Decoded
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.shallow_deep import ShallowDeepBatch
from eexit_cli.models.decoding.sources import sources_of
from eexit_cli.models.decoding.stream import Stream
from eexit_cli.models.finite import not_finite

if TYPE_CHECKING:
    from eexit_cli.models.decoding.stack import Stack


@dataclass(frozen=True)
class LayerStates:
    """Every decoder layer of a teacher-forced pass, differentiable.

    Attributes:
        states: under the decoder's final norm: what the LM head and the classifiers read.
            Shape: layers x [batch, tokens, d].
        residuals: as the next layer reads them; what saturation compares.
            Shape: layers x [batch, tokens, d].
    """

    states: list[Tensor]
    residuals: list[Tensor]


class Flops(Protocol):
    """Operations of a model's parts, by formula: a multiplication and an addition count two."""

    @property
    def fill(self) -> int:
        """One waiting token's key and value in one skipped layer."""
        ...

    def encoder(self, source_tokens: int, reached: int) -> int:
        """What is computed of an input before its output begins.

        Args:
            reached: layers that any token of the output ran, 0..L.
        """
        ...

    def decoder_layer(self, position: int, source_tokens: int) -> int:
        """The token at ``position`` of the output (from 0) through one decoder layer."""
        ...

    def head(self, rows: int | None = None) -> int:
        """The LM head on one state: whole, or ``rows`` of it under top-k propagation."""
        ...


class ExitDecoder:
    """Decoding, and confidence classifiers beside the weights; mixed into a transformers model.

    Attributes:
        config: with ``classifiers``, ``end_tokens``, ``depth``, ``vocab_size``.
        cm_heads: confidence classifiers by name.
        saved_as: the class that a saved ``config.json`` names.
        wrapped: a tensor's name in the file that a wrapper of the model had saved; None for others.
        prompted: the first token of an output comes from the pass over its prompt, through all
            layers.
        weights: what decoding makes of the weights, ``float`` or ``int8``. What runs through
            transformers' own layers (:meth:`layer_states`: training, gradients) and what is saved
            are the float weights in any case.
    """

    config: Any
    generation_config: Any
    lm_head: Any
    cm_heads: nn.ModuleDict
    saved_as: str
    wrapped: str | None = None
    prompted: bool = False
    weights: str = FLOAT
    training: bool

    @abstractmethod
    def stack(self, *, pack: bool = True) -> Stack:
        """The weights as decoding reads them; ``pack`` False keeps the plain products."""

    @property
    @abstractmethod
    def word_embeddings(self) -> nn.Embedding:
        """Of what the model reads."""

    @property
    def head(self) -> nn.Linear:
        """The LM head, whatever its name."""
        head: nn.Linear = self.lm_head
        return head

    @abstractmethod
    def exit_logits(self, state: Tensor) -> Tensor:
        """The LM head on a final-normed state. Shape: [..., d] -> [..., vocabulary]."""

    def layer_logits(self, state: Tensor, layer: int) -> Tensor:
        """The head of the exit after ``layer``, 1..L, on a state of :meth:`layer_states`.

        Shape: [..., d] -> [..., vocabulary].
        """
        return self.exit_logits(state)

    @abstractmethod
    def shift_right(self, labels: Tensor) -> Tensor:
        """Decoder inputs for these targets; -100 becomes padding. Shape: [batch, tokens]."""

    @abstractmethod
    def layer_states(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
        *,
        inputs_embeds: Tensor | None = None,
    ) -> LayerStates:
        """A teacher-forced pass through transformers' own layers, with every layer's states.

        Args:
            input_ids: Shape: [batch, source tokens].
            attention_mask: Shape: [batch, source tokens].
            decoder_input_ids: the targets shifted right (:meth:`shift_right`).
                Shape: [batch, tokens].
            inputs_embeds: embeddings of the source in place of ``input_ids``, for gradients with
                respect to them. Shape: [batch, source tokens, d].
        """

    @abstractmethod
    def for_file(self, state_dict: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        """Tensors by the names that a file has them under, each once.

        Args:
            state_dict: in place of the model's own.
        """

    def save_pretrained(
        self,
        save_directory: str | Path,
        *args: Any,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``config.json``, ``generation_config.json`` and ``model.safetensors``.

        Other arguments of transformers' method, which its Trainer passes, change nothing here.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: value.detach().to("cpu").contiguous()
            for name, value in self.for_file(state_dict).items()
        }
        self.config.architectures = [self.saved_as]
        replace_file(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
        generation = self.generation_config.to_json_string()
        replace_file(folder / "generation_config.json", generation.encode("utf-8"))
        # Last, because a folder with a configuration is a model.
        config = self.config.to_json_string(use_diff=False)
        replace_file(folder / "config.json", config.encode("utf-8"))

    @abstractmethod
    def flops(self) -> Flops:
        """What its parts compute."""

    @property
    def depth(self) -> int:
        """L: exit layers count from 1 to this."""
        return int(self.config.depth)

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers that tokens can leave after, the last one included."""
        return tuple(getattr(self.config, "exit_layers", range(1, self.depth + 1)))

    @property
    def state_width(self) -> int:
        """d of the states that the LM head and the classifiers read."""
        return int(self.head.in_features)

    def add_classifier(self, name: str, classifier: nn.Module) -> None:
        """Put a classifier beside the others, or in place of the one of that name."""
        weight = self.word_embeddings.weight
        self.cm_heads[name] = classifier.to(weight.device, weight.dtype)
        if name not in self.config.classifiers:
            self.config.classifiers = [*self.config.classifiers, name]

    def drop_classifiers(self) -> tuple[str, ...]:
        """Remove all of them, for layers that are about to change; the names of the removed."""
        dropped = tuple(self.cm_heads)
        self.cm_heads = nn.ModuleDict()
        self.config.classifiers = []
        return dropped

    @torch.inference_mode()
    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        settings: DecodeSettings | None = None,
        given: Sequence[Sequence[int]] | None = None,
    ) -> Decoded:
        """Greedy outputs, leaving early as the settings say.

        Without an exit the tokens are those of ``generate(do_sample=False, num_beams=1)``, which
        reads ``generation_config`` too; what it holds beyond :class:`TokenRules` does not count.

        Args:
            input_ids: Shape: [batch, tokens].
            attention_mask: 1 for tokens, 0 for padding (on the right). Shape: [batch, tokens].
            settings: None is the full model.
            given: ids of each output, which are read in place of the chosen ones, as long as they
                are; see :class:`~eexit_cli.models.decoding.given.Given`.

        Raises:
            UsageError: settings that do not fit this model or given outputs, or a source without
                tokens.
            NotFiniteError: a confidence or a chosen token's logit is NaN or infinite.
        """
        settings = _of_length(self._checked(settings), given)
        sources = sources_of(input_ids, attention_mask)
        batch = self._batch(settings)(
            self.stack(pack=settings.packed), *sources, settings, **self._outputs(settings, given)
        )
        return self._finite(batch.run())

    def _batch(self, settings: DecodeSettings) -> Any:
        """What decodes one batch by these settings."""
        return Batch if settings.shallow_layer is None else ShallowDeepBatch

    def _stream(self, settings: DecodeSettings) -> type[Stream]:
        """What decodes many batches as one by these settings."""
        return Stream

    @torch.inference_mode()
    def layer_choices(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        outputs: Sequence[Sequence[int]],
        *,
        longest: int,
    ) -> list[list[list[int]]]:
        """What each layer would choose after the tokens before, by the products of decoding.

        What ``tracing.trace_tokens`` says of float weights, one layer and token after another.

        Args:
            outputs: ids of each input's output.
            longest: tokens of the longest output, where the last one may be forced.

        Returns:
            Inputs x tokens x layers.
        """
        layers = []
        for layer in range(1, self.depth + 1):
            static = layer if layer < self.depth else None
            settings = DecodeSettings(max_new_tokens=max(map(len, outputs)), static_layer=static)
            batch = self._batch(settings)(
                self.stack(),
                *sources_of(input_ids, attention_mask),
                settings,
                start=self.output_start,
                end=frozenset(),
                rules=self.token_rules(longest),
                given=Given(outputs),
            )
            layers.append([sample.tokens for sample in self._finite(batch.run()).samples])
        return [
            [list(each) for each in zip(*one, strict=True)] for one in zip(*layers, strict=True)
        ]

    @torch.inference_mode()
    def decode_many(
        self,
        batches: Sequence[Mapping[str, Any]],
        settings: DecodeSettings | None = None,
        *,
        finished: Callable[[int], None] | None = None,
    ) -> Decoded:
        """As :meth:`decode` of each batch, faster: an output that ends makes room for the next.

        The first batch has as many inputs as run at a time; give the longest sources first.

        Args:
            batches: ``input_ids`` and ``attention_mask`` of each, as :meth:`decode` takes them,
                and ``given`` of each or of none.
            settings: None is the full model.
            finished: called with the number of outputs that have ended since the last call.

        Returns:
            The outputs in the order of the batches and of the inputs in each.

        Raises:
            UsageError: settings that do not fit this model or go batch by batch, or a
                source without tokens.
            NotFiniteError: as :meth:`decode`.
        """
        settings = self._checked(settings)
        if settings.by_batch:
            raise UsageError(
                "FREE and self-speculation decode batch by batch",
                hint="Decode each batch by itself",
            )
        if len(batches) == 1:
            decoded = self.decode(**batches[0], settings=settings)
            if finished is not None:
                finished(len(decoded.samples))
            return decoded
        sources = [sources_of(one["input_ids"], one.get("attention_mask")) for one in batches]
        outputs = [output for one in batches for output in one.get("given") or ()] or None
        settings = _of_length(settings, outputs)
        stream = self._stream(settings)(
            self.stack(pack=settings.packed),
            iter(sources),
            settings,
            **self._outputs(settings, outputs),
            longest=max(ids.shape[1] for ids, _ in sources),
            finished=finished,
        )
        return self._finite(stream.run())

    def _checked(self, settings: DecodeSettings | None) -> DecodeSettings:
        settings = settings or DecodeSettings()
        settings.check(self.config)
        if self.training:
            raise ValueError("decode needs the model in eval mode")
        return settings

    def _outputs(
        self, settings: DecodeSettings, given: Sequence[Sequence[int]] | None
    ) -> dict[str, Any]:
        """Where outputs start and end, and what they may consist of."""
        if given is not None:
            # A text may hold any token anywhere.
            ends: frozenset[int] = frozenset()
            return {"start": self.output_start, "end": ends, "given": Given(given)}
        return {
            "start": self.output_start,
            "end": self.config.end_tokens,
            "rules": self.token_rules(settings.max_new_tokens),
        }

    @property
    def output_start(self) -> int:
        """The token that an output is decoded from; nothing reads it where prompts are."""
        return 0

    def token_rules(self, longest: int) -> TokenRules | None:
        """What ``generation_config`` forces and forbids in outputs of at most ``longest`` tokens.

        None where it does neither.
        """
        rules = TokenRules(
            self.generation_config, sorted(self.config.end_tokens), longest, self.head.weight
        )
        return None if rules.say_nothing else rules

    def _finite(self, decoded: Decoded) -> Decoded:
        if not decoded.finite:
            raise not_finite(self)
        return decoded


def _of_length(settings: DecodeSettings, given: Sequence[Sequence[int]] | None) -> DecodeSettings:
    if given is None:
        return settings
    Given.check(settings, given)
    return dataclasses.replace(settings, max_new_tokens=max(map(len, given)))
