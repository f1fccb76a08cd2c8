"""The family of encoder-decoders, before anything of one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import SEQ2SEQ
from eexit_cli.core.answers import TEXTS
from eexit_cli.core.published import decoder_exit
from eexit_cli.store.models import (
    OWN_DECODER_TYPE,
    SEQ2SEQ_TYPES,
    Kind,
    ModelSummary,
    megabytes,
)

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


_PUBLISHED_EXITS = ("exit_conf_type", "static_exit_layer", "use_early_exit", "use_shallow_deep")


class Seq2SeqFamily:
    """See :class:`eexit_cli.core.family.Family`."""

    name = SEQ2SEQ
    trains = ("calm",)
    kind = TEXTS

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in SEQ2SEQ_TYPES

    def summary(
        self, name: str, kind: Kind, path: Path, config: Mapping[str, Any]
    ) -> ModelSummary | None:
        own = config.get("model_type") == OWN_DECODER_TYPE
        # DL2-CALM's and FREE's checkpoints say so in a T5's configuration; a plain T5 has none.
        if not own and not any(config.get(flag) for flag in _PUBLISHED_EXITS):
            return None
        return ModelSummary(
            name=name,
            kind=kind,
            family="calm",
            backbone="t5",
            layers=int(config.get("num_decoder_layers") or config.get("num_layers") or 0),
            labels=(),
            task=config.get("task"),
            megabytes=megabytes(path),
            default_exit=dict(config.get("exit_defaults") or {}) if own else decoder_exit(config),
            path=path,
            classifiers=tuple(config.get("classifiers") or ()),
        )

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        from eexit_cli.families.seq2seq.model import load_decoder

        return load_decoder(config, progress=progress)

    def plan(self, config: Any) -> Any:
        from eexit_cli.families.seq2seq.training import plan

        return plan(config)


FAMILY = Seq2SeqFamily()
