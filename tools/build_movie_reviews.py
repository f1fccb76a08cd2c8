"""Rebuild the bundled review sets from the source archive of vaderSentiment.

    python tools/build_movie_reviews.py vaderSentiment-3.3.2.tar.gz

The archive (``pip download --no-deps --no-binary :all: vaderSentiment==3.3.2``) holds sentences
with their mean human rating in -4..4. A sentence is kept when the rating is at
least 0.5 away from zero; its sign is the label. ``movie-reviews`` gets three splits; the other
domains are small test sets for a model that was trained on films. The result depends on the
archive alone: the place of a sentence comes from a hash of its text.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import io
import json
import os
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from near_duplicates import group, normalise

from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.data.bundled import ASSETS

NEUTRAL = 0.5
"""Mean ratings nearer to zero than this have no label."""

SIZES = {"test": 1100, "validation": 900}
"""Sentences held out; a group of near duplicates may overshoot by its size. The rest is train."""

SOURCES = {
    "movie-reviews": "movieReviewSnippets_GroundTruth.txt",
    "amazon-reviews": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
}

_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"


@dataclass(frozen=True)
class Sentence:
    """One rated sentence; ``label`` is ``negative`` or ``positive``."""

    id: str
    text: str
    label: str
    score: float


def parse(raw: str, prefix: str) -> list[Sentence]:
    """Read ``id<TAB>score<TAB>text`` lines and keep the ones with a clear label."""
    sentences = []
    for line in raw.split("\n"):
        if not line.strip():
            continue
        number, score, text = line.split("\t")
        if abs(float(score)) < NEUTRAL:
            continue
        # Some of the source's entities were escaped twice (&amp;amp;).
        plain = html.unescape(html.unescape(text))
        clean = " ".join(plain.replace("''", '"').split())
        label = "positive" if float(score) > 0 else "negative"
        sentences.append(Sentence(f"{prefix}-{number}", clean, label, round(float(score), 3)))
    return sentences


def without_duplicates(sentences: Sequence[Sentence]) -> list[Sentence]:
    """One sentence per normalised text; none where its copies disagree about the label."""
    labels: dict[str, set[str]] = defaultdict(set)
    for sentence in sentences:
        labels[normalise(sentence.text)].add(sentence.label)
    kept: dict[str, Sentence] = {}
    for sentence in sentences:
        key = normalise(sentence.text)
        if key and len(labels[key]) == 1:
            kept.setdefault(key, sentence)
    return list(kept.values())


def one_per_group(sentences: Sequence[Sentence]) -> list[Sentence]:
    """The first sentence of every group of near duplicates."""
    representatives = set(group([sentence.text for sentence in sentences]))
    return [sentence for index, sentence in enumerate(sentences) if index in representatives]


def split(
    sentences: Sequence[Sentence], sizes: Mapping[str, int] = SIZES
) -> dict[str, list[Sentence]]:
    """Split so that no group of near duplicates spans two splits and labels keep their shares.

    Args:
        sentences: without exact duplicates.
        sizes: sentences per held-out split; ``train`` gets the rest.

    Returns:
        ``train`` and the splits of ``sizes``, each in the order of the hash.
    """
    members: dict[int, list[Sentence]] = defaultdict(list)
    for sentence, root in zip(sentences, group([s.text for s in sentences]), strict=True):
        members[root].append(sentence)
    groups = sorted(members.values(), key=lambda group_: _digest(group_[0].text))
    share = Counter(sentence.label for sentence in sentences)
    quota = {
        (name, label): round(size * count / len(sentences))
        for name, size in sizes.items()
        for label, count in share.items()
    }
    splits: dict[str, list[Sentence]] = {"train": [], **{name: [] for name in sizes}}
    for group_ in groups:
        label = group_[0].label
        name = next((name for name in sizes if quota[name, label] > 0), "train")
        splits[name].extend(group_)
        for sentence in group_:
            if name != "train":
                quota[name, sentence.label] -= 1
    return {
        name: sorted(chosen, key=lambda sentence: _digest(sentence.text))
        for name, chosen in splits.items()
    }


def build(archive: Path, destination: Path) -> dict[str, dict[str, Counter[str]]]:
    """Write every bundled set and return its label counts by set and split.

    Raises:
        MissingArtifactError: the archive is not there.
        UsageError: the archive is not the expected one.
    """
    files, licence = _unpack(archive)
    counts: dict[str, dict[str, Counter[str]]] = {}
    for name, source in SOURCES.items():
        sentences = without_duplicates(parse(files[source], name.removesuffix("-reviews")))
        splits = split(sentences) if name == "movie-reviews" else {"test": one_per_group(sentences)}
        folder = destination / name
        folder.mkdir(parents=True, exist_ok=True)
        for split_name, chosen in splits.items():
            _write(folder / f"{split_name}.jsonl", _lines(chosen))
        _write(folder / "LICENSE", [licence])
        counts[name] = {
            split_name: Counter(sentence.label for sentence in chosen)
            for split_name, chosen in splits.items()
        }
    return counts


def _digest(text: str) -> bytes:
    return hashlib.blake2b(normalise(text).encode("utf-8"), digest_size=16).digest()


def _lines(sentences: Iterable[Sentence]) -> Iterable[str]:
    for sentence in sentences:
        yield json.dumps(vars(sentence), ensure_ascii=False) + "\n"


def _unpack(archive: Path) -> tuple[dict[str, str], str]:
    """The four rating files and the licence text of the archive."""
    if not archive.is_file():
        raise MissingArtifactError(
            f"No archive at {archive}",
            hint="pip download --no-deps --no-binary :all: vaderSentiment==3.3.2",
        )
    try:
        with tarfile.open(archive) as outer:
            root = outer.getnames()[0].split("/")[0]
            licence = _member(outer, f"{root}/LICENSE.txt")
            inner_bytes = _member(outer, f"{root}/{_INNER}")
        with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
            files = {
                source: _member(inner, f"hutto_ICWSM_2014/{source}").decode("utf-8")
                for source in SOURCES.values()
            }
    except (tarfile.TarError, KeyError) as error:
        raise UsageError(
            f"{archive} is not the source archive of vaderSentiment 3.3.2 ({error})",
            hint="pip download --no-deps --no-binary :all: vaderSentiment==3.3.2",
        ) from error
    return files, licence.decode("utf-8").rstrip() + "\n"


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream.read()


def _write(path: Path, lines: Iterable[str]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--output", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    for name, splits in build(arguments.archive, arguments.output).items():
        for split_name, labels in splits.items():
            print(f"{name} {split_name} {labels.total()} {dict(sorted(labels.items()))}")


if __name__ == "__main__":
    main()
