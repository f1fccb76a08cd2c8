"""Small random models of every architecture, in transformers' own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.models.causal.architectures import ARCHITECTURES
from eexit_cli.models.causal.layouts import load_causal

VOCABULARY = 61
LAYERS = 4
END = 2

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": 0,
}

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "attention_bias": True, "mlp_bias": True},
    "mistral": {**_COMMON, "sliding_window": 5},
    "qwen2": {**_COMMON, "tie_word_embeddings": True},
    "qwen3": {**_COMMON, "head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {
        **_COMMON,
        "head_dim": 16,
        "query_pre_attn_scalar": 20,
        "sliding_window": 4,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "phi3": {**_COMMON, "partial_rotary_factor": 0.5, "sliding_window": 6},
    "olmo2": _COMMON,
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 48,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": 128,
        "bos_token_id": 1,
        "eos_token_id": END,
    },
    "gpt_neox": {**_COMMON, "rotary_pct": 0.5},
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "ffn_dim": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": 32,
        "bos_token_id": 1,
        "eos_token_id": END,
        "pad_token_id": 0,
    },
}
assert set(SHAPES) == set(ARCHITECTURES)

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-plain": ("llama", {"tie_word_embeddings": True}),
    "llama-scaled-rotary": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "gpt-neox-serial": ("gpt_neox", {"use_parallel_residual": False}),
    "opt-norm-after": ("opt", {"do_layer_norm_before": False}),
    "opt-plain": ("opt", {"word_embed_proj_dim": 48}),
    "qwen2-sliding": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    ),
}
"""Variants of a row that its configuration switches on."""

ALL = (*SHAPES, *OTHERS)


def write_tiny(folder: Path, name: str, *, seed: int = 0, **more: Any) -> Path:
    """A folder as transformers itself writes it, with weights large enough to disagree."""
    kind, changes = OTHERS.get(name, (name, {}))
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**SHAPES[kind], **changes, **more})
    model = AutoModelForCausalLM.from_config(config).to(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.12)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    return folder


def tiny(folder: Path, name: str, **more: Any) -> tuple[Any, Any]:
    """Our model of a folder and transformers' own, both in float64."""
    write_tiny(folder, name, **more)
    ours = load_causal(folder, build_classifier=build_classifier, dtype="float64")
    # sdpa drops the cap on Gemma's attention scores; eager attention has a float32 softmax.
    attention = "eager" if name == "gemma2" else "sdpa"
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation=attention
    ).eval()
    return ours, theirs


def prompts(
    count: int = 5, *, seed: int = 1, longest: int = 9
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded on the right, of different lengths, the longest first."""
    generator = torch.Generator().manual_seed(seed)
    lengths = sorted(
        torch.randint(1, longest + 1, (count,), generator=generator).tolist(), reverse=True
    )
    lengths[0] = longest
    ids = torch.randint(3, VOCABULARY, (count, longest), generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return ids.masked_fill(~mask, 0), mask.long()


def generated(theirs: Any, ids: torch.Tensor, mask: torch.Tensor, longest: int) -> list[list[int]]:
    """transformers' greedy outputs, prompt by prompt, up to and with the end token."""
    found = []
    for row, length in zip(ids, mask.sum(dim=1).tolist(), strict=True):
        out = theirs.generate(
            row[None, :length],
            attention_mask=torch.ones(1, length, dtype=torch.int64),
            do_sample=False,
            num_beams=1,
            max_new_tokens=longest,
            pad_token_id=0,
        )[0, length:].tolist()
        found.append(out[: out.index(END) + 1] if END in out else out)
    return found
