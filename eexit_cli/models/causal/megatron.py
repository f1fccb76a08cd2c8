"""EE-LLM's checkpoints (arXiv:2312.04916), written by Megatron-LM, as Llamas with own exits.

A file per pipeline stage, ``mp_rank_00_{stage:03d}/model_optim_rng.pt`` (``mp_rank_00`` where there
is one stage), with the training's arguments under ``args`` and nested tables of tensors under
``model``. Layers count from 0 in each stage. The order of fused parameters is that of Megatron-LM's
checkpoint version 3, as EE-LLM's own code splits them: ``query_key_value`` is
[groups, heads per group + 2, head size] x d, the queries of a group before its key and its value;
SwiGLU's ``dense_h_to_4h`` is [2, ffn] x d, the gate first. Rotary positions turn halves, as here.

An exit belongs to the layer that ``exit_layer_nums`` names (from 1): it reads that layer's output,
or with ``pre_exit`` its input, and so follows the layer before it. Its norm and its block are with
the layer (``exit_norm``, ``exit_block``), its head among ``exit_output_layer`` of the stage, in the
order of ``exit_layer_nums``. Without ``use_exit_norm`` the head reads the plain residual: the
published 1.3B and 7B are so. An exit after the last layer stands beside the model's own norm and
head, which answer there: it is left out.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.errors import EexitError
from eexit_cli.models.causal.config import ExitParts
from eexit_cli.models.checkpoints import some

WEIGHTS = "model_optim_rng.pt"
_LATEST = "latest_checkpointed_iteration.txt"
_RANK = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")

_ENCODER = re.compile(r"language_model\.(?:encoder|transformer)\.(?P<rest>.+)")
_LAYER = re.compile(r"layers\.(?P<layer>\d+)\.(?P<part>.+)")
_HEAD = re.compile(r"language_model\.exit_output_layer\.(?P<exit>\d+)\.weight")
_HEAD_COPY = "word_embeddings_for_head.weight"
_NAMES = {
    "language_model.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "language_model.output_layer.weight": "lm_head.weight",
    "final_norm.weight": "model.norm.weight",
    "final_layernorm.weight": "model.norm.weight",
}
_PARTS = {
    "input_norm": "input_layernorm",
    "input_layernorm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    "self_attention.dense": "self_attn.o_proj",
    "attention.dense": "self_attn.o_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
_FUSED = ("self_attention.query_key_value", "attention.query_key_value")


def megatron_files(folder: Path) -> list[Path]:
    """The weight files of the newest iteration in a folder, by stage; empty for other folders.

    Raises:
        EexitError: tensors are spread over several files by tensor parallelism, or a stage's file
            is missing.
    """
    if (folder / _LATEST).is_file():
        newest = (folder / _LATEST).read_text(encoding="utf-8").strip()
        folder /= f"iter_{int(newest):07d}" if newest.isdecimal() else newest
    found = {}
    for path in sorted(folder.glob(f"mp_rank_*/{WEIGHTS}")):
        rank = _RANK.fullmatch(path.parent.name)
        if rank is not None:
            found[int(rank[1]), int(rank[2] or 0)] = path
    if any(tensor for tensor, _ in found):
        raise EexitError(
            f"{folder} was written with tensor parallelism, which is not supported",
            hint="Merge it first with EE-LLM's tools/convert_parallelism.sh (TP=1)",
        )
    stages = [stage for _, stage in found]
    if stages != list(range(len(stages))):
        missing = next(stage for stage in range(len(stages)) if stage not in stages)
        raise EexitError(
            f"{folder}: the file of pipeline stage {missing} is missing",
            hint=f"Put mp_rank_00_{missing:03d}/{WEIGHTS} beside the others",
        )
    return list(found.values())


def read_megatron(files: list[Path], folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``config.json`` would say, and the tensors under our names.

    Args:
        files: of :func:`megatron_files`.

    Raises:
        EexitError: a file that is damaged or holds more than tensors and settings, an architecture
            that is no Llama, or exits of a kind that is not supported.
    """
    settings: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    before = 0
    for path in files:
        content = _read(path)
        if not settings:
            settings = _settings(content, path)
            _check(settings, folder)
        stage = dict(_flat(content["model"]))
        before += _convert(stage, settings, before, tensors)
    _merge_head_copy(tensors, folder)
    depth = int(settings["num_layers"])
    if before != depth:
        raise EexitError(
            f"{folder}: its files hold {before} layers of {depth}",
            hint="Put the files of all pipeline stages into the folder",
        )
    config = _config(settings)
    if (embedding := tensors.get("model.embed_tokens.weight")) is not None:
        # Padded to a multiple for the training, and so written.
        config["vocab_size"] = embedding.shape[0]
    return config, tensors


class _Dropped:
    """Stands for whatever else a file holds: enumerations, states of random generators."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Dropped:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""


def _read(path: Path) -> dict[str, Any]:
    """A file's table, by the reader that runs no code of the file.

    Arguments stand in an ``argparse.Namespace``, some of them enumerations of Megatron's, and the
    states of random generators in numpy's arrays: the latter two become :class:`_Dropped`, so
    neither package's code is called.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        dropped = [name for name in names if name.split(".")[0] in ("megatron", "numpy")]
        known: list[Any] = [argparse.Namespace, *((_Dropped, name) for name in dropped)]
        with torch.serialization.safe_globals(known):
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as error:
        raise EexitError(
            f"{path} cannot be read: {error.strerror}", hint="Check its permissions"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, and runs no code of ours
        raise EexitError(
            f"{path} cannot be read without running code of its own, or is damaged",
            hint="If you trust it, load it with EE-LLM and save {'args': vars(args), 'model': "
            "model} again, with plain numbers and texts in args",
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise EexitError(
            f"{path} is no checkpoint of Megatron-LM: it has no 'model'",
            hint="Interleaved pipelines (model0, model1, ...) have no early exits",
        )
    return content


def _settings(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    args = content.get("args")
    settings = vars(args) if isinstance(args, argparse.Namespace) else args
    needed = ("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size")
    lacking = [name for name in needed if not isinstance(settings, dict) or name not in settings]
    if lacking:
        raise EexitError(
            f"{path} lacks the training's arguments ({some(lacking)})",
            hint="Save it again with them under 'args'",
        )
    assert isinstance(settings, dict)
    return settings


def _check(settings: Mapping[str, Any], folder: Path) -> None:
    """Is it a Llama, with exits that can be had here?"""
    rotary = settings.get("use_rotary_position_embeddings", True)
    wanted = (
        (settings.get("normalization", "RMSNorm") == "RMSNorm", "norms other than RMSNorm"),
        (settings.get("swiglu", True), "feed-forwards other than SwiGLU"),
        (
            rotary and settings.get("position_embedding_type", "rope") == "rope",
            "positions that are not rotary",
        ),
        (settings.get("rotary_percent", 1.0) == 1.0, "partly rotated heads"),
        (not settings.get("rotary_seq_len_interpolation_factor"), "interpolated positions"),
        (not settings.get("apply_residual_connection_post_layernorm"), "residuals after the norm"),
        (not settings.get("num_experts"), "experts"),
        (not settings.get("use_exit_mlp"), "exits with feed-forwards of their own (use_exit_mlp)"),
    )
    for fits, what in wanted:
        if not fits:
            raise EexitError(
                f"{folder}: EE-LLM models with {what} are not supported",
                hint="Llama's architecture is, with exits of a norm, a head and a block",
            )
    first = 2 if settings.get("pre_exit") else 1
    for number in settings.get("exit_layer_nums") or []:
        if not first <= number <= settings["num_layers"]:
            raise EexitError(
                f"{folder}: exit_layer_nums names layer {number}, where no exit can be",
                hint=f"Exits follow layers 1 to {settings['num_layers'] - 1}",
            )


def _exits(settings: Mapping[str, Any]) -> dict[int, int]:
    """Layer whose file part an exit is in, from 1 -> exit layer, in the file's order."""
    early = bool(settings.get("pre_exit"))
    return {number: number - early for number in settings.get("exit_layer_nums") or []}


def _heads(settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """Heads, keys and values that they share, and the size of one."""
    heads = int(settings["num_attention_heads"])
    grouped = settings.get("group_query_attention") and settings.get("num_query_groups")
    size = settings.get("kv_channels") or settings["hidden_size"] // heads
    return heads, int(grouped or heads), int(size)


def _config(settings: Mapping[str, Any]) -> dict[str, Any]:
    heads, groups, size = _heads(settings)
    parts = ExitParts(
        norm=bool(settings.get("use_exit_norm")),
        head=bool(settings.get("untie_exit_output_weights")),
        layer=bool(settings.get("use_exit_block")),
    )
    depth = int(settings["num_layers"])
    tied = not settings.get("untie_embeddings_and_output_weights", False)
    end = 2 if settings.get("tokenizer_type") == "Llama2Tokenizer" else None
    biased = bool(settings.get("add_bias_linear", False))
    return {
        "model_type": "llama",
        "vocab_size": settings.get("padded_vocab_size") or 1,
        "hidden_size": settings["hidden_size"],
        "intermediate_size": settings["ffn_hidden_size"],
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": size,
        "rms_norm_eps": settings.get("norm_epsilon", settings.get("layernorm_epsilon", 1e-5)),
        "max_position_embeddings": settings.get("max_position_embeddings", 2048),
        "rope_theta": float(settings.get("rotary_base", 10000)),
        "attention_bias": biased,
        "mlp_bias": biased,
        "tie_word_embeddings": tied,
        "bos_token_id": None if end is None else 1,
        "eos_token_id": end,
        "exit_modules": {
            str(layer): parts.written() for layer in _exits(settings).values() if layer < depth
        },
        "training": {"converted_from": "ee-llm"},
    }


def _flat(table: Mapping[Any, Any], around: str = "") -> Iterator[tuple[str, Tensor]]:
    """Nested tables of tensors with the names put together."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{around}{name}.")
        elif isinstance(value, Tensor):
            yield f"{around}{name}", value


def _convert(
    stage: Mapping[str, Tensor], settings: Mapping[str, Any], before: int, into: dict[str, Tensor]
) -> int:
    """Add one stage's tensors under our names; how many layers it has.

    What has no place there is added too, for the message on tensors that do not fit.

    Args:
        before: layers of the stages before it.
    """
    inside = {name: found["rest"] for name in stage if (found := _ENCODER.fullmatch(name))}
    layers = {int(found["layer"]) for rest in inside.values() if (found := _LAYER.match(rest))}
    exits, depth = _exits(settings), int(settings["num_layers"])
    here = [exit_ for number, exit_ in exits.items() if before < number <= before + len(layers)]
    for name, value in stage.items():
        found = _LAYER.fullmatch(inside.get(name, ""))
        if head := _HEAD.fullmatch(name):
            place = int(head["exit"])
            after = here[place] if place < len(here) else None
            if after is None:
                into[name] = value
            elif after < depth:
                into[f"exits.{after}.head.weight"] = value
        elif found is None:
            into[_NAMES.get(inside.get(name, name), name)] = value
        else:
            number, part = before + int(found["layer"]) + 1, found["part"]
            after = exits.get(number) if part.startswith("exit_") else None
            if after == depth:
                continue
            if after is not None and part == "exit_norm.weight":
                into[f"exits.{after}.norm.weight"] = value
            elif after is not None and part.startswith("exit_block."):
                block = part.removeprefix("exit_block.")
                into |= _layer(f"exits.{after}.layer", block, value, settings)
            else:
                into |= _layer(f"model.layers.{number - 1}", part, value, settings)
    return len(layers)


def _layer(ours: str, part: str, value: Tensor, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """One tensor of a layer, by our names."""
    module, _, kind = part.rpartition(".")
    if module in _FUSED:
        heads, groups, size = _heads(settings)
        fused = value.unflatten(0, (groups, heads // groups + 2, size))
        query, key, other = fused.split((heads // groups, 1, 1), dim=1)
        named = {"q_proj": query, "k_proj": key, "v_proj": other}
        return {
            f"{ours}.self_attn.{name}.{kind}": each.flatten(0, 2) for name, each in named.items()
        }
    if module == "mlp.dense_h_to_4h":
        gate, up = value.chunk(2)
        return {f"{ours}.mlp.gate_proj.{kind}": gate, f"{ours}.mlp.up_proj.{kind}": up}
    return {f"{ours}.{_PARTS.get(module, module)}.{kind}": value}


def _merge_head_copy(tensors: dict[str, Tensor], folder: Path) -> None:
    """Where the head is the embeddings, the last stage has them too."""
    copy = tensors.pop(_HEAD_COPY, None)
    embedding = tensors.get("model.embed_tokens.weight")
    if copy is not None and embedding is not None and not torch.equal(copy, embedding):
        raise EexitError(
            f"{folder}: {_HEAD_COPY} differs from the word embeddings, with which it should be one",
            hint="The files are of different iterations: copy all of one",
        )
