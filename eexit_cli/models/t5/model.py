"""T5 with early exit in the decoder, and confidence classifiers beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, T5ForConditionalGeneration

from eexit_cli.core.decoding import ClassifierFactory
from eexit_cli.models.decoding.decoder import ExitDecoder, LayerStates
from eexit_cli.models.t5.config import EMBEDDING_COPIES, HEAD, MultiExitT5Config
from eexit_cli.models.t5.flops import T5Flops
from eexit_cli.models.t5.stack import T5Stack, stack_of


class MultiExitT5(ExitDecoder, T5ForConditionalGeneration):
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
    saved_as = "MultiExitT5"

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

    @property
    def output_start(self) -> int:
        return int(self.config.decoder_start_token_id)

    def stack(self, *, pack: bool = True) -> T5Stack:
        return stack_of(self, pack=pack)

    def flops(self) -> T5Flops:
        return T5Flops.of(self.config)

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
        if self.config.tied_head:
            state = state * self.config.d_model**-0.5
        return self.lm_head(state)

    def shift_right(self, labels: Tensor) -> Tensor:
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

    def for_file(self, state_dict: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        """Without the copies of the word embeddings, and without a tied head."""
        left_out = {*EMBEDDING_COPIES, *((HEAD,) if self.config.tied_head else ())}
        tensors = state_dict or self.state_dict()
        return {name: value for name, value in tensors.items() if name not in left_out}
