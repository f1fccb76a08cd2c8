"""The adapter table: what the multi-exit classifier must know of each encoder architecture.

A row says how to embed, how to run layer i alone, and where the word embeddings and the
pretrained pooler are. The layers themselves are transformers' own. Add a backbone: one row here
and one line in ``models/__init__.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import UsageError

LayerAux = dict[str, Tensor]
"""What layers share besides the mask: MPNet's position bias. Shape: [1, heads, tokens, tokens]."""


def _first(output: Any) -> Tensor:
    # transformers 4 layers return tuples, transformers 5 layers tensors.
    return output[0] if isinstance(output, tuple) else output


def _embed_bert(model: Any, **inputs: Tensor | None) -> Tensor:
    hidden = model.embeddings(**{key: value for key, value in inputs.items() if value is not None})
    if hasattr(model, "embeddings_project"):  # ELECTRA, narrower embeddings than layers
        hidden = model.embeddings_project(hidden)
    return hidden


def _embed_without_segments(model: Any, **inputs: Tensor | None) -> Tensor:
    inputs.pop("token_type_ids", None)
    return _embed_bert(model, **inputs)


def _embed_distilbert(model: Any, **inputs: Tensor | None) -> Tensor:
    return model.embeddings(inputs.get("input_ids"), inputs.get("inputs_embeds"))


def _embed_albert(model: Any, **inputs: Tensor | None) -> Tensor:
    # The embeddings are narrower than the layers; transformers maps them in the encoder.
    return model.encoder.embedding_hidden_mapping_in(_embed_bert(model, **inputs))


def _run_plain(
    model: Any, index: int, hidden: Tensor, mask: Tensor | None, aux: LayerAux
) -> Tensor:
    return _first(model.encoder.layer[index](hidden, mask))


def _run_distilbert(
    model: Any, index: int, hidden: Tensor, mask: Tensor | None, aux: LayerAux
) -> Tensor:
    return _first(model.transformer.layer[index](hidden, mask))


@cache
def _takes_head_mask(block: type) -> bool:
    # transformers 4 wants one entry per inner layer; transformers 5 has dropped the argument.
    return "head_mask" in inspect.signature(block.forward).parameters  # type: ignore[attr-defined]


def _run_albert(
    model: Any, index: int, hidden: Tensor, mask: Tensor | None, aux: LayerAux
) -> Tensor:
    config = model.config
    group = int(index / (config.num_hidden_layers / config.num_hidden_groups))
    block = model.encoder.albert_layer_groups[group]
    kind: type = type(block)
    if _takes_head_mask(kind):
        return _first(block(hidden, mask, [None] * config.inner_group_num))
    return _first(block(hidden, mask))


def _aux_mpnet(model: Any, hidden: Tensor) -> LayerAux:
    # One row serves the whole batch: the bias depends on the distance alone.
    return {"position_bias": model.encoder.compute_position_bias(hidden[:1])}


def _run_mpnet(
    model: Any, index: int, hidden: Tensor, mask: Tensor | None, aux: LayerAux
) -> Tensor:
    layer = model.encoder.layer[index]
    tokens = hidden.shape[1]
    # Shape: [1, heads, tokens, tokens], sliced when padding has been trimmed
    bias = aux["position_bias"][:, :, :tokens, :tokens]
    return _first(layer(hidden, attention_mask=mask, position_bias=bias))


def _no_aux(model: Any, hidden: Tensor) -> LayerAux:
    return {}


def _zero(config: Any) -> int:
    return 0


def _after_padding(config: Any) -> int:
    return int(config.pad_token_id) + 1


def _two(config: Any) -> int:
    return 2  # MPNet's code fixes the padding index at 1, whatever the configuration says


def _pooler_dense(model: Any) -> nn.Linear | None:
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Linear):  # ALBERT keeps the bare linear
        return pooler
    return getattr(pooler, "dense", None)


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
        model_type: transformers' name of the architecture.
        embed: input ids or word embeddings -> first hidden states, Shape: [batch, tokens, hidden].
        run_layer: runs layer ``index`` (0-based) alone.
        aux: what is computed once per batch and shared by all layers.
        attention: the attention implementation to ask of transformers.
        first_position: index of the first token's position embedding (RoBERTa and MPNet count
            from the padding token's).
    """

    model_type: str
    embed: Callable[..., Tensor] = _embed_bert
    run_layer: Callable[[Any, int, Tensor, Tensor | None, LayerAux], Tensor] = _run_plain
    aux: Callable[[Any, Tensor], LayerAux] = _no_aux
    attention: str = "sdpa"
    first_position: Callable[[Any], int] = _zero
    pooler_dense: Callable[[Any], nn.Linear | None] = _pooler_dense

    def num_layers(self, config: Any) -> int:
        return int(config.num_hidden_layers)

    def max_positions(self, config: Any) -> int:
        return int(config.max_position_embeddings) - self.first_position(config)

    def mask(self, attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Additive mask, None when nothing is padded.

        Shape: [batch, tokens] -> [batch, 1, 1, tokens].
        """
        if attention_mask is None or bool(attention_mask.all()):
            return None
        return additive(attention_mask, dtype)


def additive(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 for tokens, the least number for padding.

    Shape: [batch, tokens] -> [batch, 1, 1, tokens].
    """
    masked = torch.zeros_like(attention_mask, dtype=dtype)
    masked = masked.masked_fill(attention_mask == 0, torch.finfo(dtype).min)
    return masked[:, None, None, :]


BERT = Backbone("bert")
ROBERTA = Backbone("roberta", first_position=_after_padding)
ALBERT = Backbone("albert", embed=_embed_albert, run_layer=_run_albert)
DISTILBERT = Backbone("distilbert", embed=_embed_distilbert, run_layer=_run_distilbert)
MPNET = Backbone(
    "mpnet",
    embed=_embed_without_segments,
    run_layer=_run_mpnet,
    aux=_aux_mpnet,
    attention="eager",
    first_position=_two,
)
ELECTRA = Backbone("electra", attention="eager")


def backbone_for(config: Any) -> Backbone:
    """The row for a transformers configuration.

    Raises:
        UsageError: no row for this architecture; the hint lists those that exist.
    """
    from eexit_cli.models import BACKBONES

    row: Backbone = BACKBONES.load(config.model_type)
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions not in (None, "absolute"):
        raise UsageError(
            f"Backbone uses {positions} position embeddings",
            hint="Only absolute positions are supported for this architecture",
        )
    return row
