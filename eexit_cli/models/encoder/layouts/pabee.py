"""PABEE's published layout (JetRunner/PABEE, the SAME authors' checkpoints): BERT and ALBERT.

``bert.*`` and ``classifiers.N.*``; ALBERT's pooler is the bare ``albert.pooler.{weight,bias}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.layouts.base import Plan, Tensors, published_config

_CLASSIFIER = re.compile(r"classifiers\.\d+\.(weight|bias)")


class PabeeLayout:
    """One pooler, a classifier per layer."""

    title = "PABEE's"

    def matches(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        return any(_CLASSIFIER.fullmatch(name) for name in tensors)

    def plan(self, config: Mapping[str, Any], tensors: Tensors) -> Plan:
        firsts = {name.partition(".")[0] for name in tensors}
        prefix = next((name for name in BACKBONES if name in firsts), None)
        if prefix is None:
            raise EexitError(
                "The file holds 'classifiers.*' but no backbone: its tensors begin with "
                + ", ".join(sorted(firsts)),
                hint=f"Known backbones: {', '.join(BACKBONES)}",
            )
        settings = published_config(
            config,
            tensors,
            prefix=prefix,
            family="pabee",
            classifier="classifiers.0.weight",
        )
        # ALBERT's pooler is a linear without a name of its own.
        bare = any(f"{prefix}.pooler.{tensor}" in tensors for tensor in ("weight", "bias"))

        def file_name(name: str) -> str:
            part, _, rest = name.partition(".")
            if part == "backbone":
                return f"{prefix}.{rest}"
            if part == "poolers":
                tensor = rest.partition(".")[2]
                return f"{prefix}.pooler." + (tensor.removeprefix("dense.") if bare else tensor)
            return name

        return Plan(config=settings, file_name=file_name)


LAYOUT = PabeeLayout()
