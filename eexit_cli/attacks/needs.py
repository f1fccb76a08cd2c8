"""What other people's recipes need beyond a package, and whether this machine has it.

Nothing here downloads or imports anything large: a need is looked up in the folders where the
library that uses it would find it, so ``eexit attack --list-recipes`` answers at once.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eexit_cli.attacks import wordnet_env


@dataclass(frozen=True)
class Need:
    """A file or package that a recipe cannot do without.

    Attributes:
        words: what it is, with the command that gets it.
        present: is it here?
    """

    words: str
    present: Callable[[], bool]


def missing(needs: Sequence[Need]) -> str | None:
    """The needs that this machine lacks, in words; None where it has all."""
    lacking = [need.words for need in needs if not need.present()]
    return "; ".join(lacking) if lacking else None


def _textattack_cache() -> Path:
    default = os.path.join(os.path.expanduser("~"), ".cache", "textattack")
    return Path(os.environ.get("TA_CACHE_DIR", default))


def _package(*names: str) -> Callable[[], bool]:
    return lambda: all(importlib.util.find_spec(name) is not None for name in names)


def _hub_model(repository: str) -> Callable[[], bool]:
    def present() -> bool:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(repository, "config.json"), str)

    return present


def _nltk(*paths: str) -> Callable[[], bool]:
    def present() -> bool:
        import nltk

        for path in paths:
            try:
                nltk.data.find(path)
            except LookupError:
                return False
        return True

    return present


WORDNET = Need(wordnet_env.HOW_TO_GET, wordnet_env.wordnet_is_there)
EMBEDDINGS = Need(
    "counter-fitted vectors, 481 MB (python -c 'from textattack.shared import WordEmbedding as W; "
    "W.counterfitted_GLOVE_embedding()')",
    lambda: (_textattack_cache() / "word_embeddings" / "paragramcf").is_dir(),
)
TAGGER = Need(
    "NLTK's tagger (python -m nltk.downloader averaged_perceptron_tagger_eng universal_tagset)",
    _nltk("taggers/averaged_perceptron_tagger_eng", "taggers/universal_tagset"),
)
UNIVERSAL_SENTENCE_ENCODER = Need(
    "the universal sentence encoder (pip install tensorflow tensorflow-hub; the model is fetched "
    "on first use)",
    _package("tensorflow", "tensorflow_hub"),
)
SENTENCE_BERT = Need(
    "a sentence encoder (pip install sentence-transformers; hf download "
    "sentence-transformers/stsb-distilbert-base)",
    lambda: (
        _package("sentence_transformers")()
        and _hub_model("sentence-transformers/stsb-distilbert-base")()
    ),
)
MASKED_LANGUAGE_MODEL = Need(
    "a masked language model (hf download bert-base-uncased)", _hub_model("bert-base-uncased")
)
