"""What is known of models without loading them: rows of ``eexit models list``.

A folder's ``config.json`` is read and, where that does not say whether a checkpoint has exits, the
names of its tensors; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.families import FAMILIES
from eexit_cli.store.models import Kind, ModelSummary, config_of, folders

if TYPE_CHECKING:
    from eexit_cli.core.family import Family


def family_with(config: Mapping[str, Any]) -> Family:
    """The family of a folder with this ``config.json``.

    Of several that recognise it the last one of the catalog has it, which is the more particular;
    those of other packages come after the own ones.
    """
    families: list[Family] = [family for _, family in FAMILIES.working()]
    return next(family for family in reversed(families) if family.recognises(config))


def summarise(name: str, kind: Kind, path: Path) -> ModelSummary | None:
    """One row from a folder's ``config.json``; None when it is no multi-exit model."""
    config = config_of(path)
    return None if config is None else family_with(config).summary(name, kind, path, config)


def list_models() -> list[ModelSummary]:
    """Bundled models, those in ``EEXIT_MODELS_DIR``, and cached hub repositories with exits."""
    found = (summarise(name, kind, path) for kind, name, path in folders())
    return [summary for summary in found if summary is not None]
