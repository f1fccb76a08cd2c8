"""What TextAttack touches of ``flair`` while it is imported, so that flair itself never is.

TextAttack imports flair for the tags of three of its parts, which none of the recipes here uses
(theirs come from NLTK). Every flair that resolves beside transformers 5 is too old to be imported
with it. So TextAttack binds these classes instead, on transformers 4.57 too, which also spares
the seconds that flair takes. They are taken away again at once: a later ``import flair`` finds the
user's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from eexit_cli.core.errors import MissingArtifactError


def _refuse() -> NoReturn:
    raise MissingArtifactError(
        "Part-of-speech and entity tags from flair are not available: eexit imports TextAttack "
        "without it",
        hint='Take tags from another tagger: PartOfSpeech(tagger_type="nltk") or "stanza"',
    )


class Sentence:
    """A text to be tagged; only ever made for a tagger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse()


class SequenceTagger:
    """A tagger, which there is none of."""

    @classmethod
    def load(cls, name: str) -> NoReturn:
        _refuse()


class Tokenizer:
    """The base class of TextAttack's tokenizer for flair."""


@contextmanager
def standing_in_for_flair() -> Iterator[None]:
    """``import flair``, ``flair.data`` and ``flair.models`` give the classes above in this block.

    A flair that was imported before is put back, its submodules untouched.
    """
    flair, data, models = (ModuleType(name) for name in ("flair", "flair.data", "flair.models"))
    vars(data).update(Sentence=Sentence, Tokenizer=Tokenizer)
    vars(models).update(SequenceTagger=SequenceTagger)
    vars(flair).update(data=data, models=models)
    stand_ins = {module.__name__: module for module in (flair, data, models)}
    own = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(own)
