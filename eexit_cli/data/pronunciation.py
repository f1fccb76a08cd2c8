"""Letters to phonemes: the bundled task of the decoder, and its tokenizer of 69 symbols.

A sample is a word (``queue``) and its phonemes with spaces between (``K Y UW``); see
``assets/data/pronunciation/README.md`` for what was kept of CMU's dictionary and how it is split.
"""

from __future__ import annotations

import gzip
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eexit_cli.core.protocols import Progress
from eexit_cli.core.types import TaskInfo
from eexit_cli.data.bundled import ASSETS, bundled_file, refuse_data_dir
from eexit_cli.data.samples import Samples

LETTERS = (*string.ascii_lowercase, "'")

# fmt: off
PHONEMES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH",
    "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH",
    "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
"""CMU's 39, without marks of stress."""

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

SYMBOLS = (PAD, END, UNKNOWN, *LETTERS, *PHONEMES)
"""The vocabulary, in the order of the ids; T5 keeps the same three special tokens in front."""

LONGEST = 64
"""Tokens; the longest word of the dictionary has 28 letters."""


@dataclass(frozen=True)
class PronunciationTask:
    """The set in ``assets/data/pronunciation``; ``<split>.tsv.gz`` holds words and phonemes."""

    info: TaskInfo
    splits: tuple[str, ...] = ("train", "validation", "calibration", "test")
    hidden: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return ASSETS / self.info.name

    def read(self, split: str, *, data_dir: Path | None, progress: Progress) -> Samples:
        refuse_data_dir(self.info, data_dir, "Leave --data-dir out, or use --data-file")
        path = bundled_file(self.folder / f"{split}.tsv.gz")
        with gzip.open(path, "rt", encoding="ascii") as stream:
            rows = [line.rstrip("\n").split("\t") for line in stream]
        words = [word for word, _ in rows]
        return Samples(
            ids=words,
            texts=words,
            pairs=None,
            labels=None,
            targets=[phonemes for _, phonemes in rows],
        )


PRONUNCIATION = PronunciationTask(
    TaskInfo(
        "pronunciation",
        "generation",
        metrics=("phoneme_error_rate", "exact_match"),
        extra={"source_prefix": ""},
    )
)


BETWEEN = "="
PROMPT = f"{{source}}{BETWEEN}"
"""What a decoder-only model reads of a word; one token says that the word is whole."""


def prompt_tokenizer() -> Any:
    """The task's tokenizer for a decoder-only model: one symbol more, and nothing behind a text."""
    return _tokenizer((*SYMBOLS, BETWEEN), ends=False)


def pronunciation_tokenizer() -> Any:
    """A new tokenizer of the task, for words and phonemes alike.

    Lower-case letters and apostrophes are tokens of their own; a run of capitals is one phoneme, so
    ``queue`` and ``K Y UW`` need no different treatment. Everything else, accented letters among
    it, is ``<unk>``; a word in capitals is taken for a phoneme: words must be in lower case.
    ``</s>`` ends every sequence. Decoded phonemes have single spaces between, as the targets have.

    Returns:
        A ``transformers.PreTrainedTokenizerFast`` of 69 symbols that saves and loads as any other.
    """
    return _tokenizer(SYMBOLS, ends=True)


def _tokenizer(symbols: Sequence[str], *, ends: bool) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[A-Z]+|[^A-Z]"), "isolated"),
        ]
    )
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[(END, ids[END])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
        # It would join a phoneme and an apostrophe.
        clean_up_tokenization_spaces=False,
    )
