"""DeeBERT's published layout (castorini/deebert, the SAME authors' checkpoints): BERT and RoBERTa.

``bert.embeddings.*``, ``bert.encoder.layer.N.*``,
``bert.encoder.highway.N.{pooler.dense,classifier}.*``, ``bert.pooler.dense.*``, ``classifier.*``,
and the same with ``roberta.``: its final head too is a plain linear on the pooled output, not the
two-layer head of transformers' own RoBERTa classifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eexit_cli.models.encoder.layouts.base import Plan, Tensors, published_config

_HIGHWAY = re.compile(r"(\w+)\.encoder\.highway\.\d+\.")


class DeeBertLayout:
    """Ramps are named ``highway``.

    The last highway (N = L - 1) was never trained. It becomes ``last_ramp``, which never answers;
    the answer at layer L is the final classifier's.
    """

    title = "DeeBERT's"

    def matches(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        return any(_HIGHWAY.match(name) for name in tensors)

    def plan(self, config: Mapping[str, Any], tensors: Tensors) -> Plan:
        prefix = next(match[1] for match in map(_HIGHWAY.match, tensors) if match)
        settings = published_config(
            config,
            tensors,
            prefix=prefix,
            family="deebert",
            classifier="classifier.weight",
        )
        layers = int(settings.backbone_config().num_hidden_layers)
        last = f"{prefix}.encoder.highway.{layers - 1}."
        settings.untrained_ramp = any(name.startswith(last) for name in tensors)

        def file_name(name: str) -> str:
            part, _, rest = name.partition(".")
            if part == "backbone":
                return f"{prefix}.{rest}"
            if part == "last_ramp":
                return last + rest
            index, _, tensor = rest.partition(".")
            if int(index) == layers - 1:
                return {"poolers": f"{prefix}.pooler.", "classifiers": "classifier."}[part] + tensor
            ramp = {"poolers": "pooler.", "classifiers": "classifier."}[part]
            return f"{prefix}.encoder.highway.{index}.{ramp}{tensor}"

        return Plan(config=settings, file_name=file_name)


LAYOUT = DeeBertLayout()
