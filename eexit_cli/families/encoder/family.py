"""The family of classifiers, before anything of one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import ENCODER

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


class EncoderFamily:
    """See :class:`eexit_cli.core.family.Family`."""

    name = ENCODER

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Published classifiers are known by their tensors, not by their configuration: what no
        other family has is read as one, and loading refuses it by name where it has no exits."""
        return True

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        from eexit_cli.families.encoder.model import load_model

        return load_model(config, progress=progress)


FAMILY = EncoderFamily()
