"""Decoder-only folders: plain transformers' ones, read strictly and written as what they are.

Every tensor of the model comes from the file, and every tensor of the file goes into the model.
Exits need none of their own, so any checkpoint of a known architecture has one after every layer
(``facebook/layerskip-*`` are such); ours add confidence classifiers under ``cm_heads.*``, exits
that have parts of their own under ``exits.{layer}.{layer,norm,head}.*``, and keys to
``config.json`` that transformers skips. Balcony's and EE-LLM's exits are read as such
(``models.causal.balcony``, ``models.causal.megatron``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eexit_cli.core.decoding import ClassifierFactory
from eexit_cli.core.errors import EexitError
from eexit_cli.models.causal import balcony
from eexit_cli.models.causal.architectures import architecture
from eexit_cli.models.causal.config import config_from
from eexit_cli.models.causal.megatron import megatron_files, read_megatron
from eexit_cli.models.causal.model import causal_class
from eexit_cli.models.checkpoints import (
    CONFIG_FILE,
    find_folder,
    read_config,
    read_tensors,
    unwrapped,
)
from eexit_cli.models.decoding.generation import as_generation_config, read_generation
from eexit_cli.models.encoder.conversion import SkipDraws, as_dtype, fill

if TYPE_CHECKING:
    from eexit_cli.models.causal.model import MultiExitCausal

_BUFFERS = re.compile(r".*\.(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)")
"""What old files hold beside weights: masks and frequencies that are computed anew."""


def load_causal(
    folder_or_repo: str | Path,
    *,
    build_classifier: ClassifierFactory,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    **hub_options: Any,
) -> MultiExitCausal:
    """A decoder-only model of a known architecture, in eval mode.

    Args:
        folder_or_repo: a local folder or a hub repository id.
        build_classifier: makes a classifier of a name and a width
            (``eexit_cli.confidence.decoder.build_classifier``).
        dtype: of the loaded weights, whatever the file's.
        **hub_options: as of :func:`~eexit_cli.models.checkpoints.find_folder`.

    Raises:
        MissingArtifactError: no such folder, and no such repository in reach.
        EexitError: an architecture without a row, exits of an unknown kind, a damaged file, tensors
            that do not fit, or generation settings that cannot be.
    """
    folder = find_folder(folder_or_repo, **hub_options)
    raw, tensors = _read(folder)
    kind = str(raw["model_type"])
    try:
        config = config_from(raw)
    except (ValueError, TypeError, KeyError) as error:
        raise EexitError(
            f"{folder}: config.json is not valid: {str(error).splitlines()[0]}",
            hint="Correct it, or download the folder again",
        ) from error
    if any("lora_" in name for name in tensors):
        raise EexitError(
            f"{folder} holds LoRA weights, which are not supported",
            hint="Merge the adapter into the model first (peft: merge_and_unload)",
        )
    generation = read_generation(folder, raw, int(config.vocab_size))
    config.eos_token_id = generation["eos_token_id"]
    model = build_empty(kind, config, build_classifier, as_dtype(dtype))
    model.generation_config = as_generation_config(generation, folder)
    tensors, wrapped = _named(model, tensors)
    tied = _tied(model)
    _drop_copies(tensors, tied, folder)
    fill(model, tensors, lambda ours: tied.get(ours, ours), origin=str(folder_or_repo))
    model.config.name_or_path = str(folder_or_repo)
    model.wrapped = wrapped
    return model.to(device).eval()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of any known layout; foreign exits under our names."""
    if not (folder / CONFIG_FILE).is_file() and (files := megatron_files(folder)):
        return read_megatron(files, folder)
    raw = read_config(folder)
    if raw.get("model_type") == balcony.MODEL_TYPE:
        return balcony.read_balcony(raw, read_tensors(folder), folder)
    architecture(raw.get("model_type"), folder)
    return raw, read_tensors(folder)


def build_empty(
    kind: str, config: Any, build_classifier: ClassifierFactory, dtype: torch.dtype
) -> Any:
    """The model with memory for its weights but no values: the caller fills every one."""
    if getattr(config, "attn_logit_softcapping", None) is not None:
        # The default drops the cap without a word.
        config._attn_implementation = "eager"
    # The dtype from the start, not afterwards: what transformers keeps in float32 stays so.
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with SkipDraws():
            model = causal_class(kind)(config, _classifiers(config, build_classifier))
    finally:
        torch.set_default_dtype(before)
    model.tie_weights()
    return model


def _classifiers(config: Any, build_classifier: ClassifierFactory) -> dict[str, Any]:
    width = int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
    return {name: build_classifier(name, width) for name in config.classifiers}


def _tied(model: Any) -> dict[str, str]:
    """Names that share a tensor with an earlier one: a tied head with the embeddings."""
    first: dict[int, str] = {}
    found = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            found[name] = kept
    return found


def _named(model: Any, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """The file's tensors under transformers' names of today.

    A file may have been written by a wrapper (DistributedDataParallel, torch.compile), or by the
    body without its head, as GPT-2's was.
    """
    tensors = {name: value for name, value in tensors.items() if not _BUFFERS.fullmatch(name)}
    ours = set(model.state_dict())
    published, own = _heads(model)
    if own in ours and published in tensors:
        tensors = {own if name == published else name: tensors[name] for name in tensors}

    def fitting(candidate: Mapping[str, Tensor]) -> int:
        return len(ours & set(candidate))

    best, wrapped = tensors, None
    shorter, longer = unwrapped(dict(tensors))
    body = model.parts.body
    prefixes = [".".join(body.split(".")[:count]) + "." for count in (1, 2)][: body.count(".") + 1]
    for candidate, name in ((tensors, None), (shorter, longer)):
        for prefix in ("", *prefixes):
            renamed = {f"{prefix}{old}": value for old, value in candidate.items()}
            # The head is no part of the body.
            for old, value in candidate.items():
                if old in ours and prefix:
                    del renamed[f"{prefix}{old}"]
                    renamed[old] = value
            if fitting(renamed) > fitting(best):
                best, wrapped = renamed, name
    return best, wrapped


def _heads(model: Any) -> tuple[str, str]:
    """The LM head's weight in files, and in this transformers."""
    own = next(name for name, module in model.named_modules() if module is model.head)
    return f"{model.parts.head}.weight", f"{own}.weight"


def _drop_copies(tensors: dict[str, Tensor], tied: Mapping[str, str], folder: Path) -> None:
    """A tied tensor may stand in the file as well, if it is the same."""
    for copy, name in tied.items():
        if copy not in tensors:
            continue
        if name in tensors and not torch.equal(tensors[copy], tensors[name]):
            raise EexitError(
                f"{folder}: {copy} differs from {name}, with which it should be one",
                hint="If the LM head is its own, set tie_word_embeddings to false in config.json",
            )
        tensors.setdefault(name, tensors[copy])
        del tensors[copy]


def for_file(model: Any, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a model as its file has them: each once, under transformers' published names.

    Args:
        state_dict: in place of the model's own, under the names that it has in memory: a checkpoint
            of the Trainer, which goes back into this very model.
    """
    tied = _tied(model)
    tensors = {
        name: value
        for name, value in (state_dict or model.state_dict()).items()
        if name not in tied
    }
    published, own = _heads(model)
    if own in tensors and state_dict is None:
        tensors[published] = tensors.pop(own)
    return tensors
