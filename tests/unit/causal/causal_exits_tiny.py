"""Small Llamas with exits of their own, in Balcony's and in EE-LLM's layouts, and what they say.

The files are written here from transformers' modules, map by map, and what an exit answers is
derived from another model: the layers before it, its own layer as the last one, its norm and head.
"""

from __future__ import annotations

import argparse
import copy
import enum
import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from causal_tiny import END, SHAPES, VOCABULARY
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.models.causal.layouts import load_causal

HEADS, GROUPS, SIZE, FFN = 4, 2, 12, 64


@dataclass(frozen=True)
class Kind:
    """Exits of one checkpoint; ``layers`` are exit layers."""

    layout: str
    layers: tuple[int, ...] = (1, 3)
    layer: bool = False
    norm: bool = True
    head: bool = False
    pre: bool = False
    stages: int = 1
    biased: bool = False


KINDS = {
    "balcony": Kind("balcony", layer=True),
    "balcony-untied": Kind("balcony", layer=True, head=True),
    "balcony-norm": Kind("balcony"),
    "ee-llm": Kind("ee-llm", norm=False, head=True, pre=True, stages=2),
    "ee-llm-norm": Kind("ee-llm", head=True, stages=4, biased=True),
    "ee-llm-block": Kind("ee-llm", head=True, layer=True),
    "ee-llm-tied": Kind("ee-llm", stages=2),
}


def llama(depth: int, *, biased: bool = False, tied: bool = False) -> Any:
    shape = {**SHAPES["llama"], "num_hidden_layers": depth, "tie_word_embeddings": tied}
    shape |= {"attention_bias": biased, "mlp_bias": biased, "rms_norm_eps": 1e-5}
    return LlamaForCausalLM(LlamaConfig(**shape)).double().eval()


class Original:
    """The model and its exits, as transformers' modules.

    Attributes:
        base: with a last layer for each exit more than the model has; see :meth:`cut`.
    """

    def __init__(self, kind: Kind, *, depth: int = 4, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.kind, self.depth = kind, depth
        tied = kind.layout == "ee-llm" and not kind.head
        self.base = llama(depth + len(kind.layers), biased=kind.biased, tied=tied)
        with torch.no_grad():
            for parameter in self.base.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.12)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        width = self.base.config.hidden_size
        self.norms = {k: 1 + 0.3 * torch.randn(width).double() for k in kind.layers}
        self.heads = {k: 0.2 * torch.randn(VOCABULARY, width).double() for k in kind.layers}
        self.blocks = dict(zip(kind.layers, self.base.model.layers[depth:], strict=True))

    def cut(self, exit_layer: int | None = None) -> Any:
        """transformers' model that ends at an exit; None is the full model."""
        count = exit_layer or self.depth
        path = list(self.base.model.layers[:count])
        if exit_layer is not None and self.kind.layer:
            path.append(self.blocks[exit_layer])
        model = copy.deepcopy(self.base)
        model.model.layers = nn.ModuleList(copy.deepcopy(path))
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = index
        model.config.num_hidden_layers = len(path)
        if exit_layer is not None:
            if self.kind.norm:
                model.model.norm.weight = nn.Parameter(self.norms[exit_layer])
            else:
                model.model.norm = nn.Identity()
            if self.kind.head:
                model.lm_head.weight = nn.Parameter(self.heads[exit_layer])
        model.generation_config.eos_token_id = END
        return model

    def write(self, folder: Path, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        write = write_balcony if self.kind.layout == "balcony" else write_ee_llm
        write(folder, self, **changes)
        return folder


def made(folder: Path, name: str) -> tuple[Any, Original]:
    """Our model of a folder, and what it was written from."""
    original = Original(KINDS[name])
    original.write(folder)
    return load_causal(folder, build_classifier=build_classifier, dtype="float64"), original


def write_balcony(folder: Path, original: Original, **changes: Any) -> None:
    kind, config = original.kind, original.base.config.to_dict()
    tensors = original.cut().state_dict()
    for j, k in enumerate(kind.layers):
        place = 0
        if kind.layer:
            for name, value in original.blocks[k].state_dict().items():
                tensors[f"model.exit_modules.{j}.0.{name}"] = value
            place = 1
        tensors[f"model.exit_modules.{j}.{place}.weight"] = original.norms[k]
        if kind.head:
            tensors[f"model.exit_modules.{j}.{place + 1}.weight"] = original.heads[k]
    save_file(
        {name: value.clone() for name, value in tensors.items()}, folder / "model.safetensors"
    )
    config |= {
        "model_type": "nested_llama",
        "architectures": ["NestedLlamaForCausalLM"],
        "num_hidden_layers": original.depth,
        "exit_layer_indices": list(kind.layers),
        "exit_decoder_layer": kind.layer,
        "tie_exit_lm_head": not kind.head,
        "output_exit_layers": [kind.layers[0]],
        "output_full_model": True,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))


def megatron_layer(layer: Any) -> dict[str, Tensor]:
    """A layer of Llama's under Megatron's names, fused head group by head group."""
    attention, mlp = layer.self_attn, layer.mlp
    named = {
        "input_norm.weight": layer.input_layernorm.weight,
        "post_attention_norm.weight": layer.post_attention_layernorm.weight,
    }
    for kind in ("weight", "bias"):
        query, key, value, out, gate, up, down = (
            getattr(module, kind)
            for module in (
                attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
                mlp.gate_proj, mlp.up_proj, mlp.down_proj,
            )
        )  # fmt: skip
        if query is None:
            continue
        rows = []
        shared = HEADS // GROUPS
        for group in range(GROUPS):
            rows += [query[(group * shared + n) * SIZE :][:SIZE] for n in range(shared)]
            rows += [key[group * SIZE :][:SIZE], value[group * SIZE :][:SIZE]]
        named[f"self_attention.query_key_value.{kind}"] = torch.cat(rows)
        named[f"self_attention.dense.{kind}"] = out
        named[f"mlp.dense_h_to_4h.{kind}"] = torch.cat((gate, up))
        named[f"mlp.dense_4h_to_h.{kind}"] = down
    return {name: value.detach() for name, value in named.items()}


def write_ee_llm(
    folder: Path, original: Original, *, skip: Sequence[int] = (), extra: Any = None, **changes: Any
) -> None:
    kind, base, depth = original.kind, original.base, original.depth
    enums = types.ModuleType("megatron.core.enums")
    numbers = {k + kind.pre: k for k in kind.layers}
    args = argparse.Namespace(
        num_layers=depth, hidden_size=48, num_attention_heads=HEADS, ffn_hidden_size=FFN,
        group_query_attention=True, num_query_groups=GROUPS, kv_channels=SIZE,
        norm_epsilon=1e-5, max_position_embeddings=128, padded_vocab_size=VOCABULARY,
        normalization="RMSNorm", swiglu=True, position_embedding_type="rope",
        add_bias_linear=kind.biased, untie_embeddings_and_output_weights=kind.head,
        untie_exit_output_weights=kind.head, use_exit_norm=kind.norm, use_exit_block=kind.layer,
        use_exit_mlp=False, pre_exit=kind.pre, exit_layer_nums=list(numbers),
        tokenizer_type="Llama2Tokenizer", params_dtype=torch.float16,
        model_type=_enumeration(enums).encoder_or_decoder,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(args, name, value)
    per_stage = depth // kind.stages
    try:
        for stage in range(kind.stages):
            encoder: dict[str, Tensor] = {}
            heads: list[Tensor] = []
            for i in range(per_stage):
                number = stage * per_stage + i + 1
                parts = megatron_layer(base.model.layers[number - 1])
                if (k := numbers.get(number)) is not None:
                    if kind.norm:
                        parts["exit_norm.weight"] = original.norms[k]
                    if kind.layer:
                        block = megatron_layer(original.blocks[k])
                        parts |= {f"exit_block.{name}": value for name, value in block.items()}
                    heads.append(original.heads[k])
                encoder |= {f"layers.{i}.{name}": value for name, value in parts.items()}
            language: dict[str, Any] = {"encoder": encoder}
            model: dict[str, Any] = {"language_model": language}
            if stage == 0:
                words = base.model.embed_tokens.weight.detach()
                language["embedding"] = {"word_embeddings": {"weight": words}}
            if stage == kind.stages - 1:
                encoder["final_norm.weight"] = base.model.norm.weight.detach()
                if kind.head:
                    language["output_layer"] = {"weight": base.lm_head.weight.detach()}
                elif stage:
                    model["word_embeddings_for_head"] = {"weight": base.lm_head.weight.detach()}
            if kind.head and heads:
                named = {f"{j}.weight": value for j, value in enumerate(heads)}
                language["exit_output_layer"] = named
            if extra is not None:
                encoder["layers.0.strange.weight"] = extra
            content = {"args": args, "checkpoint_version": 3.0, "iteration": 7, "model": model}
            content["rng_state"] = [{"np_rng_state": np.random.get_state()}]
            rank = "mp_rank_00" if kind.stages == 1 else f"mp_rank_00_{stage:03d}"
            if stage not in skip:
                place = folder / "iter_0000007" / rank
                place.mkdir(parents=True)
                torch.save(content, place / "model_optim_rng.pt")
    finally:
        for name in ("megatron", "megatron.core", "megatron.core.enums"):
            sys.modules.pop(name, None)
    (folder / "latest_checkpointed_iteration.txt").write_text("7")


def _enumeration(module: types.ModuleType) -> Any:
    """An enumeration that pickles as Megatron's, while its module can be imported."""
    kind = enum.Enum("ModelType", {"encoder_or_decoder": 1}, module="megatron.core.enums")
    module.ModelType = kind  # type: ignore[attr-defined]
    for name in ("megatron", "megatron.core"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["megatron.core.enums"] = module
    return kind
