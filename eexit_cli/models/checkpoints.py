"""Reading what a model folder or hub repository holds: configuration and tensors, nothing built.

``model.safetensors`` is preferred; ``pytorch_model.bin`` is read with ``weights_only=True`` alone,
so no code in a file ever runs. Both may be sharded with an index.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eexit_cli.core.errors import EexitError, MissingArtifactError
from eexit_cli.core.published import EXPORTED_FILE, WRAPPERS
from eexit_cli.core.utf8_path import utf8_path

CONFIG_FILE = "config.json"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SMALL_FILES = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
)
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.*")
_CARDS = ("README.md", "calibration*.json")
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


def find_folder(name: str | Path, **hub_options: Any) -> Path:
    """The local folder behind a path or a hub repository id, downloading when needed.

    Args:
        name: a folder, ``owner/name``, or one of the hub's old one-part names.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``, as in huggingface_hub.

    Raises:
        MissingArtifactError: neither a folder nor a repository that can be reached.
        EexitError: the path is a file.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise EexitError(
            f"{name} is a file, not a model folder", hint="Give the folder that holds it"
        )
    if not _HUB_ID.fullmatch(str(name)):
        raise MissingArtifactError(
            f"No model folder {name}", hint="Check the path, or give a hub id such as owner/name"
        )
    folder = _download(
        str(name), (*_SMALL_FILES, *_VOCABULARIES, *_CARDS, *_SAFETENSORS), hub_options
    )
    if not _weight_files(folder):
        others = (EXPORTED_FILE,) if _is_exported(folder) else _PICKLES
        folder = _download(str(name), others, hub_options)
    return folder


def _is_exported(folder: Path) -> bool:
    """Does ``config.json`` tell of one ONNX file? One that is damaged is an error later on."""
    try:
        return read_config(folder).get("runtime") is not None
    except EexitError:
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` as a dictionary.

    Raises:
        EexitError: it is missing or is no JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise EexitError(
            f"{folder} is not a model folder: it has no {CONFIG_FILE}",
            hint="A model folder holds config.json, model.safetensors and the tokenizer's files",
        )
    return read_json(path)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's weight files, on the CPU, in the dtype they are stored in.

    Raises:
        EexitError: no weight file, a missing shard, or a file that cannot be read.
    """
    found = _weight_files(folder)
    if not found and (folder / EXPORTED_FILE).is_file():
        raise EexitError(
            f"{folder} has nothing but a {EXPORTED_FILE}, and its config.json does not say that "
            "eexit wrote it",
            hint="Give the model's own weights; eexit models export makes a file that leaves early",
        )
    if not found:
        raise EexitError(
            f"{folder} is not a model folder: it has neither model.safetensors nor "
            "pytorch_model.bin",
            hint="If it came from the hub, download it again: the weights are missing",
        )
    path = found[0]
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _reader(path)(path)


_AROUND = ("module.", "model.")
"""What DistributedDataParallel and training scripts put before every name."""


def unwrapped(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """The tensors under the names that they had before a wrapper saved them.

    Returns:
        The tensors, and one of the names that were longer; None where none was.
    """
    names = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in tensors
    }
    while names and (prefix := _around(names)):
        names = {name.removeprefix(prefix): old for name, old in names.items()}
    longer = next((old for name, old in names.items() if name != old), None)
    if longer is None or len(names) < len(tensors):
        return tensors, None
    return {name: tensors[old] for name, old in names.items()}, longer


def _around(names: Iterable[str]) -> str | None:
    return next((one for one in _AROUND if all(name.startswith(one) for name in names)), None)


def _weight_files(folder: Path) -> list[Path]:
    """The weight files or indexes present, best first."""
    names = (*_SAFETENSORS[:2], *_PICKLES[:2])
    return [folder / name for name in names if (folder / name).is_file()]


def _reader(path: Path) -> Callable[[Path], dict[str, Tensor]]:
    return _read_safetensors if path.suffix == ".safetensors" else _read_pickle


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise EexitError(f"{index} names no shards: 'weight_map' is missing", hint=_AGAIN)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        shard = (
            index.parent / Path(str(name)).name
        )  # a shard lies beside its index, never elsewhere
        if not shard.is_file():
            raise EexitError(f"{shard} is missing: {index.name} names it", hint=_AGAIN)
        tensors.update(_reader(shard)(shard))
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise EexitError(f"{index.parent}: the shards lack {some(lost)}", hint=_AGAIN)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with utf8_path(path.parent) as folder:
            return load_file(folder / path.name, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, f"truncated or not safetensors ({error})") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unreadable(
            path, "damaged, or it holds more than tensors, which is refused"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, and runs no code of ours
        raise _unreadable(path, "truncated or not a PyTorch file") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise _unreadable(path, "not a table of named tensors")
    return dict(content)


_AGAIN = "Download or copy the folder again"


def _unreadable(path: Path, why: str) -> EexitError:
    try:
        with path.open("rb") as stream:
            start = stream.read(20)
    except OSError as error:
        return EexitError(f"{path} cannot be read: {error.strerror}", hint="Check its permissions")
    if start.startswith(b"version https://git"):
        return EexitError(f"{path} is a Git LFS pointer, not the weights", hint="Run: git lfs pull")
    return EexitError(f"{path} cannot be read: {why}", hint=_AGAIN)


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        EexitError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EexitError(f"{path} is not valid JSON: {error}", hint=_AGAIN) from error
    if not isinstance(content, dict):
        raise EexitError(f"{path} is not a JSON object", hint=_AGAIN)
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of a model folder, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def some(names: list[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _download(repo_id: str, patterns: tuple[str, ...], options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns), **options))
    except GatedRepoError as error:
        raise MissingArtifactError(
            f"The hub's '{repo_id}' asks for permission first",
            hint=f"Accept its terms at https://huggingface.co/{repo_id}, then run: hf auth login",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise MissingArtifactError(
            f"No model '{repo_id}' on the hub, nor a folder of that name",
            hint="Check the spelling; for a private model run: hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise MissingArtifactError(
            f"The hub's '{repo_id}' has no revision '{options.get('revision')}'"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise MissingArtifactError(
            f"'{repo_id}' is not a local folder, not in the hub's cache, and the hub cannot be "
            "reached",
            hint=f"With a connection (and HF_HUB_OFFLINE unset), run: hf download {repo_id}",
        ) from error
    except HfHubHTTPError as error:
        raise EexitError(
            f"The hub did not hand out '{repo_id}': {str(error).splitlines()[0]}",
            hint="Try again later",
        ) from error
    except OSError as error:  # a full disk, a cache that cannot be written
        raise EexitError(
            f"'{repo_id}' could not be downloaded: {error.strerror or error}",
            hint="Check the hub cache's disk and permissions (HF_HOME names its place)",
        ) from error
