"""transformers' decoder-only models with an exit after every layer.

One exit serves all layers: the model's own final norm and head on the layer's state (LayerSkip,
arXiv:2404.16710; CALM, arXiv:2207.07061, on a causal model). No tensor is added but confidence
classifiers. A model may have exits of its own instead, after some layers (EE-LLM, arXiv:2312.04916;
Balcony, arXiv:2503.05005); its other layers cannot be left from then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from eexit_cli.models.causal.architectures import Architecture, architecture
from eexit_cli.models.causal.config import ExitParts, config_class
from eexit_cli.models.causal.exits import ExitModule, check_exits, exit_modules
from eexit_cli.models.causal.flops import CausalFlops
from eexit_cli.models.causal.leaving import OwnExits, OwnExitStream
from eexit_cli.models.causal.speculation import SpeculativeBatch
from eexit_cli.models.causal.stack import CausalStack
from eexit_cli.models.decoding.decoder import ExitDecoder, LayerStates
from eexit_cli.models.decoding.loop import Batch
from eexit_cli.models.decoding.rearranged import rearranged
from eexit_cli.models.decoding.settings import DecodeSettings
from eexit_cli.models.decoding.stream import Stream


class MultiExitCausal(ExitDecoder):
    """Mixed into transformers' class of an architecture by :func:`causal_class`.

    The parameters have transformers' own names; ``cm_heads`` holds confidence classifiers by name,
    ``exits`` the exits of ``config.exit_modules`` by layer.
    :meth:`decode` is the loop of ``models.decoding``, ``generate`` remains transformers' own.

    Args:
        config: of :func:`~eexit_cli.models.causal.config.config_from`.
        classifiers: one module for each name of ``config.classifiers``. They are given, not made
            here, because a model knows nothing of confidence measures.

    Raises:
        ValueError: names of ``classifiers`` differ from ``config.classifiers``.
    """

    prompted = True

    def __init__(self, config: Any, classifiers: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        given = dict(classifiers or {})
        if set(given) != set(config.classifiers):
            raise ValueError(f"classifiers {sorted(given)} for config {config.classifiers}")
        self.cm_heads = nn.ModuleDict(given)
        self.exits = exit_modules(self)

    @property
    def parts(self) -> Architecture:
        """What its modules are called."""
        return architecture(self.config.model_type)

    @property
    def body(self) -> Any:
        """What holds embeddings, layers and the final norm."""
        return cast(nn.Module, self).get_submodule(self.parts.body)

    @property
    def layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, getattr(self.body, self.parts.layers))

    @property
    def word_embeddings(self) -> nn.Embedding:
        return cast(nn.Embedding, getattr(self.body, self.parts.embedding))

    @property
    def head(self) -> nn.Linear:
        return cast(nn.Linear, cast(PreTrainedModel, self).get_output_embeddings())

    def stack(self, *, pack: bool = True) -> Any:
        return rearranged(cast(Any, self), CausalStack, pack=pack)

    def _batch(self, settings: DecodeSettings) -> Any:
        if settings.draft_layer is not None:
            return SpeculativeBatch
        return OwnExits if len(self.exits) else Batch

    def _stream(self, settings: DecodeSettings) -> type[Stream]:
        return OwnExitStream if len(self.exits) else Stream

    def _checked(self, settings: DecodeSettings | None) -> DecodeSettings:
        settings = super()._checked(settings)
        check_exits(settings, self.config)
        return settings

    def flops(self) -> CausalFlops:
        return CausalFlops.of(self)

    def forward(self, *args: Any, per_layer: bool = False, **kwargs: Any) -> Any:
        """transformers' own forward; with ``per_layer``, :meth:`layer_states`.

        Training calls it so, since wrappers such as DistributedDataParallel know ``forward`` alone.
        """
        if per_layer:
            return self.layer_states(*args, **kwargs)
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def final(self, residual: Tensor) -> Tensor:
        """What the LM head reads of a layer's output. Shape: [..., d]."""
        return self._read(residual, getattr(self.body, self.parts.norm))

    def _read(self, residual: Tensor, norm: nn.Module | None) -> Tensor:
        state = residual if norm is None else norm(residual)
        project = getattr(self.body, "project_out", None)
        return state if project is None else project(state)

    @torch.no_grad()
    def add_exits(self, layers: Sequence[int]) -> None:
        """Put an exit of a decoder layer and a norm after each of these layers, 1..L-1 (Balcony).

        It begins as the last layer and the final norm, as if the layers between were not there.
        """
        parts = ExitParts(layer=True).written()
        self.config.exit_modules = {str(layer): dict(parts) for layer in layers}
        self.exits = exit_modules(self)
        weight = self.word_embeddings.weight
        self.exits.to(weight.device, weight.dtype)
        last = self.layers[-1].state_dict()
        for layer in layers:
            cast(nn.Module, cast(ExitModule, self.exits[str(layer)]).layer).load_state_dict(last)

    def _exit(self, layer: int) -> ExitModule | None:
        name = str(layer)
        return cast(ExitModule, self.exits[name]) if name in self.exits else None

    def exit_logits(self, state: Tensor) -> Tensor:
        return self._capped(self.head(state))

    def layer_logits(self, state: Tensor, layer: int) -> Tensor:
        own = self._exit(layer)
        return self._capped((self.head if own is None or own.head is None else own.head)(state))

    def _capped(self, logits: Tensor) -> Tensor:
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def shift_right(self, labels: Tensor) -> Tensor:
        """Nothing is read in the first place: the prompt's last token stands there."""
        shifted = labels.roll(1, dims=1).masked_fill(labels.roll(1, dims=1) < 0, 0)
        shifted[:, 0] = 0
        return shifted

    def layer_states(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
        *,
        inputs_embeds: Tensor | None = None,
    ) -> LayerStates:
        """See :class:`~eexit_cli.models.decoding.decoder.ExitDecoder`; the source is the prompt.

        Prompt and target run as one sequence. The states are those that the target's tokens are
        chosen from: of the prompt's last token, then of every target token but the last. Beside
        exits of its own, the model's layers have the states of its own norm, for inspection alone.
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        batch, longest = given.shape[:2]
        if attention_mask is None:
            attention_mask = given.new_ones((batch, longest), dtype=torch.int64)
        lengths = attention_mask.sum(dim=1, keepdim=True)
        # Prompts end side by side, so that all targets begin at one place.
        place = torch.arange(longest, device=given.device) - (longest - lengths)
        source = place.clamp(min=0)
        written = decoder_input_ids[:, 1:]
        if inputs_embeds is None:
            inputs = {"input_ids": torch.cat((given.gather(1, source), written), dim=1)}
        else:
            index = source.unsqueeze(-1).expand(-1, -1, given.shape[2])
            embedded = torch.cat((given.gather(1, index), self.word_embeddings(written)), dim=1)
            inputs = {"inputs_embeds": embedded}
        mask = torch.cat(((place >= 0).long(), torch.ones_like(written)), dim=1)
        residuals: list[Tensor] = []
        states: list[Tensor] = []

        def keep(module: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
            residual = output[0] if isinstance(output, tuple) else output
            residuals.append(residual[:, longest - 1 :])
            own = self._exit(len(residuals))
            if own is None:
                states.append(self.final(residuals[-1]))
                return
            if own.layer is not None:  # with the masks and positions of the layer before it
                made = own.layer(residual, *given[1:], **named)
                residual = made[0] if isinstance(made, tuple) else made
            states.append(self._read(residual[:, longest - 1 :], own.norm))

        handles = [layer.register_forward_hook(keep, with_kwargs=True) for layer in self.layers]
        try:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            last = self.body(
                **inputs, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        return LayerStates([*states[:-1], last[:, longest - 1 :]], residuals)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Rotary frequencies keep their precision, whatever dtype the weights get: so it is where
        transformers loads a model."""
        rotary = [
            (module, name, buffer)
            for module in cast(nn.Module, self).modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name.endswith("inv_freq")
        ]
        super()._apply(function, recurse)  # type: ignore[misc]
        for module, name, buffer in rotary:
            now = getattr(module, name)
            if now.dtype != buffer.dtype:
                setattr(module, name, buffer.to(now.device))
        return self

    def for_file(self, state_dict: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        from eexit_cli.models.causal.layouts import for_file

        return for_file(self, state_dict)


@cache
def causal_class(kind: str) -> type[Any]:
    """The multi-exit class of a ``model_type``.

    Raises:
        EexitError: an architecture without a row.
    """
    architecture(kind)
    base = MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[kind]]
    members = {"config_class": config_class(kind), "saved_as": base.__name__}
    made: type[Any] = type(f"MultiExit{base.__name__}", (MultiExitCausal, base), members)
    return made
