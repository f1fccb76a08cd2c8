"""Our own layout, as ``save_pretrained`` writes it: the classifier's names as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.layouts.base import Plan, Tensors
from eexit_cli.models.encoder.model import MultiExitConfig


class OwnLayout:
    """``model_type`` is ``multi_exit_classifier``."""

    title = "eexit's own"

    def matches(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        return config.get("model_type") == MultiExitConfig.model_type

    def plan(self, config: Mapping[str, Any], tensors: Tensors) -> Plan:
        backbone = config.get("backbone")
        if not isinstance(backbone, dict) or "model_type" not in backbone:
            raise EexitError(
                "config.json does not describe the backbone: 'backbone.model_type' is missing",
                hint="Download or copy the folder again",
            )
        BACKBONES.canonical(str(backbone["model_type"]))
        return Plan(config=MultiExitConfig.from_dict(dict(config)), file_name=str)


LAYOUT = OwnLayout()
