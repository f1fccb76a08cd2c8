"""The model registry: bundled names, local folders and hub repositories, by one name each.

Nothing here builds or loads a model: listing reads ``config.json`` and, where that does not say
whether a checkpoint has exits, the names of its tensors.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.core.published import EXPORTED_FILE

BUNDLED = Path(__file__).resolve().parent.parent / "assets" / "models"
"""The models that come with the package, one folder each."""

MODELS_DIR_VARIABLE = "EEXIT_MODELS_DIR"
"""Environment variable: a folder whose sub-folders are models known by their names."""

OWN_MODEL_TYPE = "multi_exit_classifier"
OWN_DECODER_TYPE = "multi_exit_t5"
SEQ2SEQ_TYPES = (OWN_DECODER_TYPE, "t5", "mt5", "umt5", "longt5")
"""``model_type`` of encoder-decoders; those that are no T5 are refused when they load."""

CAUSAL_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "olmo2", "gpt2", "gpt_neox", "opt",
    "nested_llama",
)  # fmt: skip
"""``model_type`` of decoder-only models with a row in ``models.causal.architectures``."""

Kind = Literal["bundled", "folder", "hub"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    EXPORTED_FILE,
)


@dataclass(frozen=True)
class ModelRef:
    """What a name given to ``--model`` means.

    Attributes:
        name: as the user gave it.
        kind: bundled, folder or hub.
        path: the local folder; None for a hub repository, which loading fetches.
        repo_id: the hub's id; None for local ones.
    """

    name: str
    kind: Kind
    path: Path | None = None
    repo_id: str | None = None


@dataclass(frozen=True)
class ModelSummary:
    """One row of ``eexit models list``.

    Attributes:
        name: what ``--model`` takes.
        kind: bundled, folder or hub (cached).
        family: deebert, pabee or calm.
        backbone: the architecture.
        layers: L; of a decoder's own layers.
        labels: the class names; empty for regression and for decoders.
        task: the task that it was trained on, where known.
        megabytes: size of its weights.
        default_exit: criterion and settings used when none are given.
        path: its folder.
        classifiers: the confidence classifiers of a decoder.
        runtime: what an exported model runs in; None is torch.
    """

    name: str
    kind: Kind
    family: str
    backbone: str
    layers: int
    labels: tuple[str, ...]
    task: str | None
    megabytes: float
    default_exit: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    classifiers: tuple[str, ...] = ()
    runtime: str | None = None


def resolve(name: str) -> ModelRef:
    """What a name means: a bundled model, else a local folder, else a hub repository.

    Raises:
        UsageError: a plain name that is none of these; the hint lists the nearest.
        MissingArtifactError: a path that does not exist.
        EexitError: a path that exists but is no model folder.
    """
    if name in (shipped := bundled()):
        return ModelRef(name=name, kind="bundled", path=shipped[name])
    if name in (own := _named(_models_dir())):
        return ModelRef(name=name, kind="folder", path=own[name])
    path = Path(name).expanduser()
    if path.exists():
        _check_folder(path)
        return ModelRef(name=name, kind="folder", path=path)
    if _HUB_ID.fullmatch(name):
        return ModelRef(name=name, kind="hub", repo_id=name)
    if path.is_absolute() or len(path.parts) > 1 or name.startswith((".", "~")):
        raise MissingArtifactError(f"No model folder {name}", hint="Check the path")
    known = sorted({*shipped, *own})
    close = nearest(name, known)
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    listed = f"Available: {', '.join(known)}; or" if known else "Give"
    raise UsageError(
        f"Unknown model '{name}'", hint=f"{meant}{listed} a folder or a hub id (owner/name)"
    )


def folders() -> Iterator[tuple[Kind, str, Path]]:
    """Every model folder that has a name here: bundled, in ``EEXIT_MODELS_DIR``, in the hub's
    cache."""
    yield from (("bundled", name, path) for name, path in sorted(bundled().items()))
    yield from (("folder", name, path) for name, path in sorted(_named(_models_dir()).items()))
    yield from (("hub", name, path) for name, path in cached_repositories())


def registered() -> dict[str, Path]:
    """The models that have a name of their own: bundled, or in ``EEXIT_MODELS_DIR``."""
    return {**_named(_models_dir()), **bundled()}


def bundled() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return _named(BUNDLED)


def is_seq2seq(folder: Path) -> bool:
    """Does this model folder hold an encoder-decoder? Read from ``config.json`` alone."""
    config = config_of(folder)
    return config is not None and config.get("model_type") in SEQ2SEQ_TYPES


def is_causal(config: Mapping[str, Any]) -> bool:
    """Is this the ``config.json`` of a decoder-only language model, of whatever architecture?"""
    named = config.get("architectures") or [""]
    head = named[0] if isinstance(named, list) and isinstance(named[0], str) else ""
    if head.endswith("ForCausalLM"):
        return True
    # Without a name, or with the body's alone (GPT2LMHeadModel, LlamaModel).
    return config.get("model_type") in CAUSAL_TYPES and "For" not in head


def _named(directory: Path | None) -> dict[str, Path]:
    """The model folders directly below a directory, by name."""
    if directory is None or not directory.is_dir():
        return {}
    return {entry.name: entry for entry in directory.iterdir() if (entry / "config.json").is_file()}


def _models_dir() -> Path | None:
    value = os.environ.get(MODELS_DIR_VARIABLE)
    return Path(value).expanduser() if value else None


def _check_folder(path: Path) -> None:
    """A path that exists must look like a model folder.

    Raises:
        EexitError: one line saying what it lacks.
    """
    shape = "A model folder holds config.json, model.safetensors and the tokenizer's files"
    if not path.is_dir():
        raise EexitError(f"{path} is a file, not a model folder", hint=shape)
    if not (path / "config.json").is_file():
        if any(path.glob("**/model_optim_rng.pt")):
            raise EexitError(
                f"{path} is a checkpoint of Megatron (EE-LLM), not a model folder",
                hint=f"Convert it: eexit models convert {path} --output FOLDER",
            )
        raise EexitError(f"{path} is not a model folder: it has no config.json", hint=shape)
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise EexitError(
            f"{path} is not a model folder: it has neither model.safetensors nor pytorch_model.bin "
            f"(nor {EXPORTED_FILE})",
            hint=shape,
        )


def cached_repositories() -> Iterator[tuple[str, Path]]:
    """Repositories in the hub's cache with the folder of their newest snapshot."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return
    for repository in sorted(cache.repos, key=lambda repo: repo.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest = max(repository.revisions, key=lambda revision: revision.last_modified)
            yield repository.repo_id, newest.snapshot_path


def config_of(path: Path) -> dict[str, Any] | None:
    """A folder's ``config.json``; None where it cannot be read."""
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # a listing shows what can be read
    return content if isinstance(content, dict) else None


def tensor_names(path: Path) -> str:
    """The names of a checkpoint's tensors in one text, from headers alone; nothing is unpickled."""
    for name in _WEIGHTS:
        file = path / name
        if not file.is_file():
            continue
        try:
            if name.endswith(".json"):
                return file.read_text(encoding="utf-8")
            if name.endswith(".safetensors"):
                with file.open("rb") as stream:
                    (length,) = struct.unpack("<Q", stream.read(8))
                    return stream.read(min(length, 1 << 24)).decode("utf-8", "replace")
            with zipfile.ZipFile(file) as archive:
                (table,) = (item for item in archive.namelist() if item.endswith("/data.pkl"))
                return archive.read(table).decode("latin-1")
        except (OSError, ValueError, struct.error, zipfile.BadZipFile):
            return ""
    return ""


def megabytes(path: Path) -> float:
    """Of the weight files that loading would read."""
    patterns = ("model*.safetensors", "pytorch_model*.bin", EXPORTED_FILE)
    for pattern in patterns:
        size = sum(file.stat().st_size for file in path.glob(pattern))
        if size:
            return round(size / 1e6, 1)
    return 0.0
