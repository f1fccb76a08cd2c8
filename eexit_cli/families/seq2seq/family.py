"""The family of encoder-decoders, before anything of one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import SEQ2SEQ
from eexit_cli.store.models import DECODER_TYPES

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress


class Seq2SeqFamily:
    """See :class:`eexit_cli.core.family.Family`."""

    name = SEQ2SEQ

    def recognises(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in DECODER_TYPES

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        from eexit_cli.families.seq2seq.model import load_decoder

        return load_decoder(config, progress=progress)


FAMILY = Seq2SeqFamily()
