"""Decoder-only architectures, a row each: what transformers calls the parts of their layers.

A row says where the parts are and how they are put together; the computation is one
(``models.causal.maps`` and ``models.causal.stack``). Everything else of an architecture (widths,
heads, biases, rotary frequencies, sliding windows, caps) is read off the modules and the
configuration. Add one: a row here; ``tests/unit/causal`` holds every row against transformers'
``generate`` and its hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import EexitError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of one architecture's parts, in transformers' modules.

    Attributes:
        title: as people write it.
        body: from the model with its head to what holds the layers.
        embedding, positions, layers, norm: below the body; ``positions`` are learned ones, None
            where they are rotary.
        position_offset: what is added to a position before its learned embedding is read.
        head: the LM head in files; transformers 5 calls every one ``lm_head`` in memory.
        attention: below a layer.
        qkv: query, key and value maps below the attention, or one map of all three.
        interleaved: the one map has query, key and value of each head side by side.
        out: output map of the attention.
        query_norm, key_norm: norms of query and key below the attention, where it has them.
        before, after: norms of the attention's input and output; None where there is none.
        mlp: below a layer; empty where its maps are the layer's own.
        up: one map, or gate and up, or one map of both.
        gated: the two halves are multiplied.
        down: the map back onto the residual stream.
        before_mlp, after_mlp: as ``before`` and ``after``.
        parallel: attention and feed-forward may read the same residual (GPT-NeoX).
        transposed: weights are stored [inputs, outputs] (GPT-2's Conv1D).
        scaled_embedding: embeddings are multiplied by the root of the width (Gemma).
        unit_offset: norms multiply by 1 + weight (Gemma).
    """

    title: str
    body: str = "model"
    embedding: str = "embed_tokens"
    positions: str | None = None
    position_offset: int = 0
    layers: str = "layers"
    norm: str = "norm"
    head: str = "lm_head"
    attention: str = "self_attn"
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    interleaved: bool = False
    out: str = "o_proj"
    query_norm: str | None = None
    key_norm: str | None = None
    before: str | None = "input_layernorm"
    after: str | None = None
    mlp: str = "mlp"
    up: tuple[str, ...] = ("gate_proj", "up_proj")
    gated: bool = True
    down: str = "down_proj"
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None
    parallel: bool = False
    transposed: bool = False
    scaled_embedding: bool = False
    unit_offset: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(title="Llama"),
    "mistral": Architecture(title="Mistral"),
    "qwen2": Architecture(title="Qwen2"),
    "qwen3": Architecture(title="Qwen3", query_norm="q_norm", key_norm="k_norm"),
    "gemma2": Architecture(
        title="Gemma 2",
        after="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        after_mlp="post_feedforward_layernorm",
        scaled_embedding=True,
        unit_offset=True,
    ),
    "phi3": Architecture(title="Phi-3", qkv=("qkv_proj",), up=("gate_up_proj",)),
    "olmo2": Architecture(
        title="OLMo 2",
        query_norm="q_norm",
        key_norm="k_norm",
        before=None,
        after="post_attention_layernorm",
        before_mlp=None,
        after_mlp="post_feedforward_layernorm",
    ),
    "gpt2": Architecture(
        title="GPT-2",
        body="transformer",
        embedding="wte",
        positions="wpe",
        layers="h",
        norm="ln_f",
        attention="attn",
        qkv=("c_attn",),
        out="c_proj",
        before="ln_1",
        up=("c_fc",),
        gated=False,
        down="c_proj",
        before_mlp="ln_2",
        transposed=True,
    ),
    "gpt_neox": Architecture(
        title="GPT-NeoX",
        body="gpt_neox",
        embedding="embed_in",
        norm="final_layer_norm",
        head="embed_out",
        attention="attention",
        qkv=("query_key_value",),
        interleaved=True,
        out="dense",
        up=("dense_h_to_4h",),
        gated=False,
        down="dense_4h_to_h",
        parallel=True,
    ),
    "opt": Architecture(
        title="OPT",
        body="model.decoder",
        positions="embed_positions",
        position_offset=2,
        norm="final_layer_norm",
        out="out_proj",
        before="self_attn_layer_norm",
        mlp="",
        up=("fc1",),
        gated=False,
        down="fc2",
        before_mlp="final_layer_norm",
    ),
}
"""By ``model_type`` of ``config.json``."""


def architecture(kind: str | None, origin: object = "The model") -> Architecture:
    """The row of a ``model_type``.

    Args:
        origin: what has it, for the message.

    Raises:
        EexitError: there is none.
    """
    row = ARCHITECTURES.get(str(kind))
    if row is None:
        close = nearest(str(kind), list(ARCHITECTURES))
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        raise EexitError(
            f"{origin}: no decoder-only architecture '{kind or 'unknown'}' is known here",
            hint=f"{meant}Known: {', '.join(sorted(ARCHITECTURES))}",
        )
    return row
