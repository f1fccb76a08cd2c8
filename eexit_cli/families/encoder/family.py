"""The family of classifiers, before anything of one is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import ENCODER
from eexit_cli.core.answers import CLASSES
from eexit_cli.core.published import WRAPPERS, encoder_exit
from eexit_cli.families.exported import exported
from eexit_cli.store.models import OWN_MODEL_TYPE, Kind, ModelSummary, megabytes, tensor_names

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


class EncoderFamily:
    """See :class:`eexit_cli.core.family.Family`."""

    name = ENCODER
    trains = ("deebert", "pabee")
    kind = CLASSES

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Published classifiers are known by their tensors, not by their configuration: what no
        other family has is read as one, and loading refuses it by name where it has no exits."""
        return True

    def summary(
        self, name: str, kind: Kind, path: Path, config: Mapping[str, Any]
    ) -> ModelSummary | None:
        own = config.get("model_type") == OWN_MODEL_TYPE
        family = str(config.get("family")) if own else _published_family(path)
        if family is None:
            return None
        backbone = config.get("backbone") if own else config
        backbone = backbone if isinstance(backbone, Mapping) else {}
        layers = int(backbone.get("num_hidden_layers") or backbone.get("n_layers") or 0)
        runtime = exported(config) if own else None
        if runtime is not None:
            layers = int(config.get("exits") or layers)
        # As the layouts count them: a number, else names, else two.
        num_labels = int(config.get("num_labels") or len(config.get("id2label") or ()) or 2)
        published = {} if own else encoder_exit(family, layers=layers, num_labels=num_labels)
        return ModelSummary(
            name=name,
            kind=kind,
            family=family,
            backbone=str(backbone.get("model_type", "")),
            layers=layers,
            labels=_labels(config),
            task=config.get("task") or config.get("finetuning_task"),
            megabytes=megabytes(path),
            default_exit=dict(config.get("exit_defaults") or {}) if own else published,
            path=path,
            runtime=runtime,
        )

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        from eexit_cli.families.encoder.model import load_model

        return load_model(config, progress=progress)

    def plan(self, config: Any) -> Any:
        from eexit_cli.families.encoder.training import plan

        return plan(config)


def _published_family(path: Path) -> str | None:
    """deebert or pabee by the names of the tensors; None for a model without exits."""
    names = tensor_names(path)
    for wrapper in WRAPPERS:
        names = names.replace(f"{wrapper}.", "")
    if ".encoder.highway." in names:
        return "deebert"
    return "pabee" if re.search(r"\bclassifiers\.0\.weight", names) else None


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label")
    if isinstance(names, dict) and names:
        labels = [str(names[key]) for key in sorted(names, key=int)]
    else:
        labels = [f"LABEL_{index}" for index in range(int(config.get("num_labels", 2)))]
    return tuple(labels) if len(labels) > 1 else ()


FAMILY = EncoderFamily()
