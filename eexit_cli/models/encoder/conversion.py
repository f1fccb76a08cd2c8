"""From a folder or a hub repository to a multi-exit classifier, strictly.

Every tensor of the model comes from the file, and every tensor of the file goes into the model:
a missing, unexpected or mis-shaped one is an error that names it, never random weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.models.checkpoints import find_folder, read_config, read_tensors, some, unwrapped
from eexit_cli.models.encoder.layouts import LAYOUTS
from eexit_cli.models.encoder.layouts.base import Layout
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

_KNOWN_BUFFER = re.compile(r"(.*\.)?embeddings\.(position_ids|token_type_ids)")
"""Constants that old transformers wrote into its files; the model makes its own."""


def load_classifier(
    folder_or_repo: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    **hub_options: Any,
) -> MultiExitClassifier:
    """A multi-exit classifier from any known layout, in eval mode.

    The layout (our own, DeeBERT's, PABEE's) is recognised from the configuration and the tensors'
    names. Converted checkpoints get the exit that was published for them as their default
    (``config.exit_defaults``), and say so in ``config.training["converted_from"]``.

    Args:
        folder_or_repo: a local folder or a hub repository id.
        dtype: of the loaded weights, whatever the file's.
        **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``.

    Raises:
        MissingArtifactError: no such folder, and no such repository in reach.
        EexitError: the folder is no model, a file is damaged, or the tensors do not fit.
        UsageError: the backbone's architecture is not supported.
    """
    folder = find_folder(folder_or_repo, **hub_options)
    config = read_config(folder)
    tensors, wrapped = unwrapped(read_tensors(folder))
    plan = _detect(folder, config, tensors).plan(config, tensors)
    model = build_without_init(plan.config)
    model.to(as_dtype(dtype))
    fill(model, tensors, plan.file_name, origin=str(folder_or_repo))
    model.config.name_or_path = str(folder_or_repo)
    model.wrapped = wrapped
    return model.to(device).eval()


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A torch dtype from its name.

    Raises:
        UsageError: not one of the four that models here run in.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype '{dtype}'", hint=f"Available: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _detect(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Layout:
    for name in LAYOUTS:
        layout: Layout = LAYOUTS.load(name)
        if layout.matches(config, tensors):
            return layout
    kind = config.get("model_type", "unknown type")
    if prefix := next((match[1] for match in map(_EXIT.match, tensors) if match), None):
        raise _prefixed(folder, prefix)
    raise EexitError(
        f"{folder} holds a model without early exits ({kind})",
        hint=f"Train some on it: eexit train --model deebert --backbone {folder}",
    )


_EXIT = re.compile(r"(.+?\.)(?:\w+\.encoder\.highway\.\d+\.|classifiers\.\d+\.(?:weight|bias)$)")
"""An exit of a published layout below some other name."""


def _prefixed(origin: str | Path, prefix: str) -> EexitError:
    return EexitError(
        f"{origin} was saved from a wrapper: tensors of the model are named '{prefix}...', "
        "others are not",
        hint=f"Save the wrapped model's own state_dict, or take '{prefix}' from the names in the "
        "weight file and drop what is not the model's",
    )


def _prefix_of(missing: list[str], unexpected: list[str]) -> str | None:
    """What stands before the missing names, if they are all there but for that."""
    for found in unexpected:
        if found.endswith(f".{missing[0]}"):
            prefix = found.removesuffix(missing[0])
            if {prefix + name for name in missing} <= set(unexpected):
                return prefix
    return None


def build_without_init(config: MultiExitConfig) -> MultiExitClassifier:
    """The classifier with memory for its weights but no values: the caller fills every one.

    Drawing random numbers only to overwrite them takes seconds for a BERT-base, and would move
    the global random stream.
    """
    with SkipDraws():
        return MultiExitClassifier(config)


class SkipDraws(TorchFunctionMode):
    """Answers calls that would draw random values with the tensor as it is."""

    # By name: transformers 5 puts functions of its own in place of torch.nn.init's.
    draws = frozenset(
        {"normal_", "uniform_", "trunc_normal_", "orthogonal_"}
        | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}
    )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in self.draws:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    file_name: Callable[[str], str],
    *,
    origin: str,
) -> None:
    """Copy a file's tensors into a model, all of both.

    Args:
        model: its parameters and persistent buffers are overwritten in place.
        tensors: the file's.
        file_name: the model's name of a tensor -> the file's.
        origin: what the error message calls the file.

    Raises:
        EexitError: tensors are missing, unexpected, mis-shaped or not floating point.
    """
    targets = model.state_dict()
    sources = {name: file_name(name) for name in targets}
    missing = [source for source in sources.values() if source not in tensors]
    used = set(sources.values())
    unexpected = [
        name for name in tensors if name not in used and not _KNOWN_BUFFER.fullmatch(name)
    ]
    unfit = [
        f"{source} {list(tensors[source].shape)}, expected {list(targets[name].shape)}"
        for name, source in sources.items()
        if source in tensors and tensors[source].shape != targets[name].shape
    ]
    integers = [
        f"{source} ({tensors[source].dtype})"
        for name, source in sources.items()
        if source in tensors
        and targets[name].is_floating_point()
        and not tensors[source].is_floating_point()
    ]
    if missing and (prefix := _prefix_of(missing, unexpected)):
        raise _prefixed(origin, prefix)
    problems = [
        f"{len(names)} {what}: {some(names)}"
        for names, what in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (unfit, "mis-shaped"),
            (integers, "not floating point"),
        )
        if names
    ]
    if problems:
        raise EexitError(
            f"The tensors of {origin} do not fit its config.json ({'; '.join(problems)})",
            hint="The weights are damaged, of another model, or of a layout that is not known",
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[sources[name]])
