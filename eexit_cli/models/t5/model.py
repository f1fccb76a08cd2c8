"""T5 with early exit in the decoder, and confidence classifiers beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, T5ForConditionalGeneration

from eexit_cli.core.decoding import ClassifierFactory
from eexit_cli.core.errors import UsageError
from eexit_cli.models.decoding.generation import TokenRules
from eexit_cli.models.decoding.loop import Batch
from eexit_cli.models.decoding.results import Decoded
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.shallow_deep import ShallowDeepBatch
from eexit_cli.models.decoding.stream import Stream
from eexit_cli.models.finite import not_finite
from eexit_cli.models.t5.config import MultiExitT5Config
from eexit_cli.models.t5.stack import stack_of


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


class MultiExitT5(T5ForConditionalGeneration):
    """T5 (v1.0 or v1.1/Flan) whose tokens may leave the decoder after any layer.

    The parameters are T5's own, under T5's names; ``cm_heads`` holds confidence classifiers by
    name. :meth:`decode` is the loop of this package, ``generate`` remains transformers' own.

    Args:
        config: see :class:`MultiExitT5Config`.
        classifiers: one module for each name of ``config.classifiers``. They are given, not made
            here, because a model knows nothing of confidence measures.

    Raises:
        ValueError: names of ``classifiers`` differ from ``config.classifiers``.
    """

    config_class = MultiExitT5Config
    wrapped: str | None = None
    """A tensor's name in the file that a wrapper of the model had saved; None for others."""

    def __init__(
        self, config: MultiExitT5Config, classifiers: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__(config)
        given = dict(classifiers or {})
        if set(given) != set(config.classifiers):
            raise ValueError(f"classifiers {sorted(given)} for config {config.classifiers}")
        self.cm_heads = nn.ModuleDict(given)
        self.tie_weights()
        self.generation_config = GenerationConfig(
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )

    @property
    def depth(self) -> int:
        """L: exit layers count from 1 to this."""
        return int(self.config.depth)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Of encoder and decoder alike."""
        return self.shared

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Share the word embeddings, and the LM head's weight where the configuration says so.

        transformers 5 would tie the head of every T5, v1.1 included.
        """
        self.encoder.set_input_embeddings(self.shared)
        self.decoder.set_input_embeddings(self.shared)
        if self.config.tied_head:
            self.lm_head.weight = self.shared.weight
        elif self.lm_head.weight is self.shared.weight:
            self.lm_head.weight = nn.Parameter(self.shared.weight.detach().clone())

    def add_classifier(self, name: str, classifier: nn.Module) -> None:
        """Put a classifier beside the others, or in place of the one of that name."""
        self.cm_heads[name] = classifier.to(self.shared.weight.device, self.shared.weight.dtype)
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
    ) -> Decoded:
        """Greedy outputs, leaving early as the settings say.

        Without an exit the tokens are those of ``generate(do_sample=False, num_beams=1)``, which
        reads ``generation_config`` too; what it holds beyond :class:`TokenRules` does not count.

        Args:
            input_ids: Shape: [batch, tokens].
            attention_mask: 1 for tokens, 0 for padding (on the right). Shape: [batch, tokens].
            settings: None is the full model.

        Raises:
            UsageError: settings that do not fit this model, or a source without tokens.
            NotFiniteError: a confidence or a chosen token's logit is NaN or infinite.
        """
        settings = self._checked(settings)
        sources = _sources(input_ids, attention_mask)
        kind = Batch if settings.shallow_layer is None else ShallowDeepBatch
        batch = kind(
            stack_of(self, pack=settings.packed), *sources, settings, **self._outputs(settings)
        )
        return self._finite(batch.run())

    @torch.inference_mode()
    def decode_many(
        self,
        batches: Sequence[Mapping[str, Tensor]],
        settings: DecodeSettings | None = None,
        *,
        finished: Callable[[int], None] | None = None,
    ) -> Decoded:
        """As :meth:`decode` of each batch, faster: an output that ends makes room for the next.

        The first batch has as many inputs as run at a time; give the longest sources first.

        Args:
            batches: ``input_ids`` and ``attention_mask`` of each, as :meth:`decode` takes them.
            settings: None is the full model.
            finished: called with the number of outputs that have ended since the last call.

        Returns:
            The outputs in the order of the batches and of the inputs in each.

        Raises:
            UsageError: settings that do not fit this model or go batch by batch (FREE), or a
                source without tokens.
            NotFiniteError: as :meth:`decode`.
        """
        settings = self._checked(settings)
        if settings.shallow_layer is not None:
            raise UsageError("FREE decodes batch by batch", hint="Decode each batch by itself")
        if len(batches) == 1:
            decoded = self.decode(**batches[0], settings=settings)
            if finished is not None:
                finished(len(decoded.samples))
            return decoded
        stream = Stream(
            stack_of(self, pack=settings.packed),
            (_sources(one["input_ids"], one.get("attention_mask")) for one in batches),
            settings,
            **self._outputs(settings),
            finished=finished,
        )
        return self._finite(stream.run())

    def _checked(self, settings: DecodeSettings | None) -> DecodeSettings:
        settings = settings or DecodeSettings()
        settings.check(self.config)
        if self.training:
            raise ValueError("decode needs the model in eval mode")
        return settings

    def _outputs(self, settings: DecodeSettings) -> dict[str, Any]:
        """Where outputs start and end, and what they may consist of."""
        return {
            "start": int(self.config.decoder_start_token_id),
            "end": self.config.end_tokens,
            "rules": self.token_rules(settings.max_new_tokens),
        }

    def token_rules(self, longest: int) -> TokenRules | None:
        """What ``generation_config`` forces and forbids in outputs of at most ``longest`` tokens.

        None where it does neither.
        """
        rules = TokenRules(
            self.generation_config, sorted(self.config.end_tokens), longest, self.lm_head.weight
        )
        return None if rules.say_nothing else rules

    def _finite(self, decoded: Decoded) -> Decoded:
        if not decoded.finite:
            raise not_finite(self)
        return decoded

    def forward(self, *args: Any, per_layer: bool = False, **kwargs: Any) -> Any:
        """T5's own forward; with ``per_layer``, :meth:`layer_states`.

        Training calls it so, since wrappers such as DistributedDataParallel know ``forward`` alone.
        """
        if per_layer:
            return self.layer_states(*args, **kwargs)
        return super().forward(*args, **kwargs)

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
        encoded = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds
        )
        residuals: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            residuals.append(output[0] if isinstance(output, tuple) else output)

        handles = [block.register_forward_hook(keep) for block in self.decoder.block]
        try:
            last = self.decoder(
                input_ids=decoder_input_ids,
                encoder_hidden_states=encoded.last_hidden_state,
                encoder_attention_mask=attention_mask,
                use_cache=False,
            )
        finally:
            for handle in handles:
                handle.remove()
        norm, dropout = self.decoder.final_layer_norm, self.decoder.dropout
        states = [dropout(norm(residual)) for residual in residuals[:-1]]
        return LayerStates([*states, last.last_hidden_state], residuals)

    def exit_logits(self, state: Tensor) -> Tensor:
        """The LM head on a final-normed state. Shape: [..., d] -> [..., vocabulary]."""
        if self.config.tied_head:
            state = state * self.config.d_model**-0.5
        return self.lm_head(state)

    def shift_right(self, labels: Tensor) -> Tensor:
        """Decoder inputs for these targets; -100 becomes padding. Shape: [batch, tokens]."""
        return self._shift_right(labels)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        build_classifier: ClassifierFactory,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        **hub_options: Any,
    ) -> MultiExitT5:
        """Strictly, from any layout: :func:`eexit_cli.models.t5.layouts.load_seq2seq`."""
        from eexit_cli.models.t5.layouts import load_seq2seq

        return load_seq2seq(
            pretrained_model_name_or_path,
            build_classifier=build_classifier,
            device=device,
            dtype=dtype,
            **hub_options,
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *args: Any,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``; each tensor once, under T5's names.

        Other arguments of transformers' method, which its Trainer passes, change nothing here.
        """
        from eexit_cli.models.t5.layouts import write_model

        write_model(self, Path(save_directory), state_dict)


def _sources(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A batch without columns that are padding in every row.

    Raises:
        UsageError: no source, or one without tokens.
    """
    lengths = (
        torch.full((input_ids.shape[0],), input_ids.shape[1])
        if attention_mask is None
        else attention_mask.sum(dim=1)
    )
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty or not input_ids.shape[0]:
        which = f"Source {empty[0] + 1} of the batch has" if empty else "An empty batch has"
        raise UsageError(f"{which} no tokens", hint="Every source needs some text")
    if attention_mask is not None:
        longest = int(attention_mask.any(dim=0).nonzero()[-1]) + 1
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
    return input_ids, attention_mask
