"""The family of decoder-only models, before anything of one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import CAUSAL
from eexit_cli.core.answers import TEXTS
from eexit_cli.store.models import Kind, ModelSummary, is_causal, megabytes

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress

BALCONY = "nested_llama"
PUBLISHED = "layerskip"
"""In the names of published checkpoints whose layers were trained to answer early."""


class CausalFamily:
    """See :class:`eexit_cli.core.family.Family`."""

    name = CAUSAL
    trains = ("layerskip",)
    kind = TEXTS

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return is_causal(config)

    def summary(
        self, name: str, kind: Kind, path: Path, config: Mapping[str, Any]
    ) -> ModelSummary | None:
        # Exits have no tensors: a plain model has as many, but was not trained for them.
        own = config.get("exit_defaults") or config.get("exit_modules")
        if not own and PUBLISHED not in name.lower() and config.get("model_type") != BALCONY:
            return None
        layers = config.get("num_hidden_layers") or config.get("n_layer") or 0
        return ModelSummary(
            name=name,
            kind=kind,
            family="layerskip",
            backbone=str(config.get("model_type")),
            layers=int(layers),
            labels=(),
            task=config.get("task"),
            megabytes=megabytes(path),
            default_exit=dict(config.get("exit_defaults") or {}),
            path=path,
            classifiers=tuple(config.get("classifiers") or ()),
        )

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        from eexit_cli.families.causal.model import load_causal_model

        return load_causal_model(config, progress=progress)

    def plan(self, config: Any) -> Any:
        from eexit_cli.families.causal.training import plan

        return plan(config)


FAMILY = CausalFamily()
