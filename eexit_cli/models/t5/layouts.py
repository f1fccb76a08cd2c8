"""T5 folders with early exit: writing ours; reading ours, plain T5, DL2-CALM's and FREE's.

Every tensor of the model comes from the file, and every tensor of the file goes into the model.
Published checkpoints have T5's keys and at most one classifier under ``cm_head.*``. Out of scope,
and said so: LongT5, and LoRA adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.decoding import ClassifierFactory
from eexit_cli.core.errors import EexitError
from eexit_cli.core.published import PUBLISHED_CLASSIFIERS, decoder_exit
from eexit_cli.models.checkpoints import (
    find_folder,
    read_config,
    read_tensors,
    unwrapped,
)
from eexit_cli.models.decoding.generation import as_generation_config, read_generation
from eexit_cli.models.encoder.conversion import as_dtype, fill
from eexit_cli.models.t5.config import EMBEDDING_COPIES, HEAD, MultiExitT5Config
from eexit_cli.models.t5.model import MultiExitT5

EMBEDDING = "shared.weight"
HEAD_COPIES = ("decoder.lm_head.weight",)
"""FREE's deployment class also hangs the head below the decoder."""

_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
"""Old T5 files hold it; no T5 reads it."""

_TRAINING_ONLY = "layer_transformation."
"""FREE's map between layers for distillation: it has no part in decoding."""

CLASSIFIER = "cm_head."


def load_seq2seq(
    folder_or_repo: str | Path,
    *,
    build_classifier: ClassifierFactory,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    **hub_options: Any,
) -> MultiExitT5:
    """A T5 with early exit from any known layout, in eval mode.

    A plain T5 loads too: it has no classifiers, and its layers were not trained to answer early.

    Args:
        folder_or_repo: a local folder or a hub repository id.
        build_classifier: makes a classifier of a name and a width
            (``eexit_cli.confidence.decoder.build_classifier``).
        dtype: of the loaded weights, whatever the file's.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``.

    Raises:
        MissingArtifactError: no such folder, and no such repository in reach.
        EexitError: the folder is no T5, a file is damaged, the tensors do not fit, or its
            generation settings cannot be.
    """
    folder = find_folder(folder_or_repo, **hub_options)
    raw = read_config(folder)
    kind = raw.get("model_type")
    if kind not in _READERS:
        raise _not_t5(folder, kind)
    tensors, wrapped = unwrapped(read_tensors(folder))
    config, tensors, file_name = _READERS[kind](raw, tensors, folder)
    generation = read_generation(folder, raw, int(config.vocab_size))
    # One start and one set of ends everywhere: in decoding, in training, in teacher forcing.
    config.eos_token_id = generation["eos_token_id"]
    if (start := generation["decoder_start_token_id"]) is not None:
        config.decoder_start_token_id = start
    generation["decoder_start_token_id"] = config.decoder_start_token_id
    model = build_empty(config, build_classifier, as_dtype(dtype))
    model.generation_config = as_generation_config(generation, folder)
    fill(model, tensors, file_name, origin=str(folder_or_repo))
    model.config.name_or_path = str(folder_or_repo)
    model.wrapped = wrapped
    return model.to(device).eval()


def is_seq2seq(raw: Mapping[str, Any]) -> bool:
    """Is this the ``config.json`` of a model that :func:`load_seq2seq` reads?"""
    return raw.get("model_type") in _READERS


def build_empty(
    config: MultiExitT5Config, build_classifier: ClassifierFactory, dtype: torch.dtype
) -> MultiExitT5:
    """The model with memory for its weights but no values: the caller fills every one."""
    with torch.device("meta"):
        classifiers = {
            name: build_classifier(name, int(config.d_model)) for name in config.classifiers
        }
        model = MultiExitT5(config, classifiers)
    model = model.to(dtype)
    if dtype == torch.float16:
        # As transformers loads a T5: the feed-forwards of trained ones pass float16's range.
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in (model._keep_in_fp32_modules or ()):
                module.float()
    model = model.to_empty(device="cpu")
    model.tie_weights()
    return model


Reading = tuple[MultiExitT5Config, dict[str, Tensor], Callable[[str], str]]
"""Configuration, the file's tensors, and our name of a tensor -> the file's."""


def _read_own(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> Reading:
    settings = {key: value for key, value in raw.items() if key != "model_type"}
    config = MultiExitT5Config(**settings)
    return config, dict(tensors), _own_name(config)


def _own_name(config: MultiExitT5Config) -> Callable[[str], str]:
    def name(ours: str) -> str:
        if ours in EMBEDDING_COPIES or (ours == HEAD and config.tied_head):
            return EMBEDDING
        return ours

    return name


def _read_t5(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> Reading:
    tensors = dict(tensors)
    if any("lora_" in name for name in tensors):
        raise EexitError(
            f"{folder} holds LoRA weights, which are not supported",
            hint="Merge the adapter into the model first (peft: merge_and_unload)",
        )
    name = _classifier_name(raw, tensors, folder)
    config = MultiExitT5Config(
        tied_head=bool(raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True))),
        classifiers=[name] if name else [],
        exit_defaults=decoder_exit(raw),
        source_prefix=str(raw.get("source_prefix") or ""),
        training={"converted_from": _origin(raw)},
        **_t5_settings(raw),
    )
    _drop_known(tensors, folder, config)
    if name == "mlp":
        # FREE trained this head without biases, and then ran it with random ones.
        for layer in ("0", "2"):
            weight = tensors.get(f"{CLASSIFIER}{layer}.weight")
            if weight is not None:
                zeros = torch.zeros(weight.shape[0], dtype=weight.dtype)
                tensors.setdefault(f"{CLASSIFIER}{layer}.bias", zeros)
    own_name = _own_name(config)
    held = f"cm_heads.{name}."

    def file_name(ours: str) -> str:
        return ours.replace(held, CLASSIFIER, 1) if ours.startswith(held) else own_name(ours)

    return config, tensors, file_name


_READERS: dict[Any, Callable[[Mapping[str, Any], Mapping[str, Tensor], Path], Reading]] = {
    MultiExitT5Config.model_type: _read_own,
    "t5": _read_t5,
}


def _not_t5(folder: Path, kind: Any) -> EexitError:
    if kind == "longt5":
        return EexitError(f"{folder} is a LongT5, which is not supported", hint="Use a T5")
    if (folder / "adapter_config.json").is_file():
        return EexitError(f"{folder} is an adapter, not a model", hint="Merge it into its T5 first")
    return EexitError(
        f"{folder} is no encoder-decoder for early exit of tokens ({kind or 'unknown type'})",
        hint="CALM's options need a T5; classifiers (deebert, pabee) take the encoder's options",
    )


def _t5_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture's own settings, without the flags that DL2-CALM and FREE add."""
    ids = {"decoder_start_token_id", "eos_token_id", "pad_token_id"}
    known = {
        "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
        "relative_attention_num_buckets", "relative_attention_max_distance", "dropout_rate",
        "layer_norm_epsilon", "initializer_factor", "feed_forward_proj",
    }  # fmt: skip
    settings = {key: value for key, value in raw.items() if key in known | ids}
    if "feed_forward_proj" not in raw and "dense_act_fn" in raw:
        gated = "gated-" if raw.get("is_gated_act") else ""
        settings["feed_forward_proj"] = f"{gated}{raw['dense_act_fn']}".replace("gelu_new", "gelu")
    return settings


def _origin(raw: Mapping[str, Any]) -> str:
    if raw.get("use_shallow_deep") or raw.get("shallow_exit_layer"):
        return "free"
    return "calm" if raw.get("exit_conf_type") else "t5"


def _classifier_name(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> str | None:
    """Which classifier ``cm_head.*`` is: told by the tensors, checked with the configuration."""
    found = {
        name.removeprefix(CLASSIFIER): value
        for name, value in tensors.items()
        if name.startswith(CLASSIFIER)
    }
    said = PUBLISHED_CLASSIFIERS.get(
        str(raw.get("exit_conf_type") or raw.get("shallow2deep_conf_type"))
    )
    if not found:
        if said is not None:
            raise EexitError(
                f"{folder}: config.json names the classifier '{said}', but no {CLASSIFIER}* "
                "tensor is there",
                hint="Set exit_conf_type to 'softmax' in its config.json to use it without",
            )
        return None
    if "query_proj.weight" in found:
        head = "mlp" if "classifier.2.weight" in found else "linear"
        seen = f"transformer_{head}_{found['query_proj.weight'].shape[0]}"
    else:
        seen = "mlp" if "2.weight" in found else "linear"
    if seen not in PUBLISHED_CLASSIFIERS.values():
        raise EexitError(
            f"{folder}: {CLASSIFIER}* is a classifier of no known width ({seen})",
            hint="Known widths are 64 and 512",
        )
    if said is not None and said != seen:
        raise EexitError(
            f"{folder}: config.json names the classifier '{said}', but {CLASSIFIER}* is '{seen}'",
            hint="Correct exit_conf_type in config.json if the tensors are right",
        )
    return seen


def _drop_known(tensors: dict[str, Tensor], folder: Path, config: MultiExitT5Config) -> None:
    """Remove what a file holds twice or for training only."""
    for name in [n for n in tensors if n in _UNUSED or n.startswith(_TRAINING_ONLY)]:
        del tensors[name]
    if EMBEDDING not in tensors:  # files that name the embedding after one of its users
        for name in EMBEDDING_COPIES:
            if name in tensors:
                tensors[EMBEDDING] = tensors[name]
                break
    _drop_copies(tensors, EMBEDDING, EMBEDDING_COPIES, folder)
    _drop_copies(tensors, HEAD, HEAD_COPIES, folder)
    if config.tied_head:
        _drop_copies(tensors, EMBEDDING, (HEAD,), folder)
    elif HEAD not in tensors and EMBEDDING in tensors:
        # transformers 5 ties every head in the file, and only leaves the scaling out.
        tensors[HEAD] = tensors[EMBEDDING]


def _drop_copies(
    tensors: dict[str, Tensor], name: str, copies: tuple[str, ...], folder: Path
) -> None:
    for copy in copies:
        if copy not in tensors or name not in tensors:
            continue
        if not torch.equal(tensors[copy], tensors[name]):
            raise EexitError(
                f"{folder}: {copy} differs from {name}, with which it should be one",
                hint="If the LM head is its own, set tie_word_embeddings to false in config.json",
            )
        del tensors[copy]
