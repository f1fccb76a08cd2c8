"""What runs a classifier's layers: torch, or one file in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import values_of
from eexit_cli.config.runtime import ONNX_INT8, TORCH, WEIGHTS
from eexit_cli.core.answers import Exit
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.published import EXPORTED_FILE
from eexit_cli.families.exported import exported, runtime_of
from eexit_cli.store.conditions import WEIGHT_WIDTH
from eexit_cli.store.models import config_of

if TYPE_CHECKING:
    import torch

    from eexit_cli.core.protocols import Progress


def asked_runtimes(config: Any, settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The runtimes that the options ask for, the first one the model's own in every pass.

    Args:
        config: any configuration; ``runtime`` is read where it has one.
        settings: the folder's ``config.json``.
        name: the model's.

    Raises:
        UsageError: an unknown runtime, or one that the folder does not hold.
    """
    asked = _asked(config)
    for each in asked:
        if each not in (TORCH, *WEIGHTS):
            raise UsageError(
                f"Unknown runtime '{each}'", hint=f"Available: {', '.join((TORCH, *WEIGHTS))}"
            )
    own = exported(settings)
    if own is None:
        return asked or (TORCH,)
    if any(each != own for each in asked):
        raise UsageError(
            f"Model '{name}' is one file for {own} and nothing else",
            hint="Leave --runtime out, or name the model that it was exported from",
        )
    return (own,)


def _asked(config: Any) -> tuple[str, ...]:
    return tuple(values_of(config, "runtime")) if hasattr(config, "runtime") else ()


def check_runtimes(runtimes: Sequence[str], config: Any) -> str:
    """Can the device and the precision be had? The device to ask for.

    Raises:
        UsageError: ONNX Runtime on another device than the CPU, or in another precision.
    """
    if tuple(runtimes) == (TORCH,):
        return str(config.device)
    name = next(each for each in runtimes if each != TORCH)
    other = ", or leave --runtime out" if _asked(config) else ""
    if config.device not in ("auto", "cpu"):
        raise UsageError(
            f"ONNX Runtime ({name}) runs on the CPU alone, not on {config.device}",
            hint=f"Add --device cpu{other}",
        )
    if config.dtype != "float32":
        raise UsageError(
            f"ONNX Runtime ({name}) computes in float32, not in {config.dtype}",
            hint=f"Leave --dtype out{other}",
        )
    # Side by side all of them run where the one that has no choice does.
    return "cpu"


def load_exported(folder: Path, progress: Progress | None) -> Any:
    """An exported folder's classifier, ``models.onnx.sessions.OnnxClassifier``.

    Raises:
        MissingArtifactError: the folder has no such file.
        EexitError: as ``OnnxClassifier.load``.
    """
    from eexit_cli.models.onnx.quantise import needs_reduced_range
    from eexit_cli.models.onnx.sessions import OnnxClassifier

    model = OnnxClassifier.load(folder / EXPORTED_FILE)
    told = config_of(folder) or {}
    if (told.get("weights"), told.get("exits")) != (model.about.weights, model.about.layers):
        raise EexitError(
            f"{folder / EXPORTED_FILE} is not the file that {folder / 'config.json'} speaks of",
            hint="Copy the whole folder again, or export it anew",
        )
    full_range = model.about.quantisation.get("reduce_range") is False
    if progress is not None and full_range and needs_reduced_range():
        progress.message(
            f"{folder.name}: this processor has no VNNI, so products of its 8-bit weights may "
            "overflow: export it here, which takes 7 bits, or evaluate before you rely on it"
        )
    return model


def runner(model: torch.nn.Module, runtimes: Sequence[str], default: Any) -> Callable[[Exit], Any]:
    """What gives the classifier that runs an exit.

    A file holds one rule, whose number alone can be turned, so each kind of rule has its own.

    Args:
        model: of torch.
        runtimes: the first is that of exits that name none.
        default: the rule of a file for exits that need no branches.
    """
    files: dict[str, list[Any]] = {}

    @cache
    def running(exit: Exit) -> Any:
        runtime = runtime_of(exit, runtimes)
        if runtime == TORCH:
            return model
        branches = exit.rule is not None and exit.rule.reads_input
        rule = exit.rule if branches else default
        made = files.setdefault(runtime, [])
        for each in made:
            if rule is None or each.about.reads(rule.describe()):
                return each
        made.append(_file(model, rule, runtime))
        return made[-1]

    return running


def _file(model: Any, rule: Any, runtime: str) -> Any:
    from eexit_cli.models.onnx.deployment import deployed_model
    from eexit_cli.models.onnx.sessions import OnnxClassifier

    graph, about = deployed_model(model, rule, weights=WEIGHTS[runtime])
    return OnnxClassifier(graph, about, Path(model.config.name_or_path or EXPORTED_FILE))


def rounding(model: Any) -> dict[str, Any]:
    """What of a processor an 8-bit model depends on; see ``store.conditions``."""
    if model.runtimes[0] != ONNX_INT8:
        return {}
    from eexit_cli.models.onnx.quantise import needs_reduced_range

    return {WEIGHT_WIDTH: 63 if needs_reduced_range() else 127}
