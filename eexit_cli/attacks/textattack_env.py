"""Importing TextAttack quietly, offline, without flair, and without writing a file.

On its first import TextAttack makes ``~/.cache/textattack`` and downloads NLTK data; with no
network or a read-only home that prints, waits or fails. What the recipes here need of NLTK is
bundled, and for flair something stands in. Call :func:`prepare` before the first
``import textattack`` of a process, in each worker too.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eexit_cli.attacks.flair_stand_in import standing_in_for_flair
from eexit_cli.core.environment import environment_kept
from eexit_cli.core.errors import MissingArtifactError
from eexit_cli.core.matplotlib_import import import_matplotlib

BUNDLED_NLTK_DATA = Path(__file__).resolve().parent.parent / "assets" / "nltk_data"
_INSTALL_MODULE = "textattack.shared.utils.install"
_DOWNLOADS = "_post_install_if_needed()"
# TextAttack points these at its own cache folder as a side effect of TA_CACHE_DIR.
_TOUCHED = (
    "TA_CACHE_DIR",
    "TFHUB_CACHE_DIR",
    "PYTORCH_TRANSFORMERS_CACHE",
    "HF_HOME",
    "XDG_CACHE_HOME",
    "TOKENIZERS_PARALLELISM",
)


def prepare() -> None:
    """Make ``import textattack`` safe; cheap when it was imported already.

    Raises:
        MissingArtifactError: TextAttack is not installed.
    """
    if importlib.util.find_spec("textattack") is None:
        raise MissingArtifactError(
            "Attacks need TextAttack, which is not installed",
            # Without the bounds a newer flair would come along and take transformers 5 away.
            hint="Run: pip install 'textattack<0.4' 'flair<0.6' langdetect",
        )
    _offer_bundled_nltk_data()
    if "textattack" in sys.modules:
        return
    import_matplotlib()  # as its metrics do, with whatever the user has set
    # By itself, so that what the import pulls in (transformers, matplotlib) sees its usual folders.
    with environment_kept(_TOUCHED):
        _load_installer()
    with warnings.catch_warnings(), standing_in_for_flair():
        warnings.simplefilter("ignore")
        import textattack
    textattack.shared.utils.logger.setLevel(logging.ERROR)
    if _INSTALL_MODULE in sys.modules:
        textattack.shared.utils.install = sys.modules[_INSTALL_MODULE]


def _offer_bundled_nltk_data() -> None:
    import nltk

    folder = str(BUNDLED_NLTK_DATA)
    if folder not in nltk.data.path:
        # Last, so that a user's own, fuller data win.
        nltk.data.path.append(folder)


@contextmanager
def without_nltk_downloads() -> Iterator[None]:
    """TextAttack's parts ask NLTK to download what they need whenever they are made, present or
    not; without a network that prints, or waits. What is missing is found out beforehand."""
    import nltk

    download = nltk.download
    nltk.download = lambda *args, **kwargs: True
    try:
        yield
    finally:
        nltk.download = download


def _load_installer() -> None:
    """Run TextAttack's installer module, which the package imports, without what it downloads.

    Later downloads (other recipes' embeddings) go to TextAttack's usual folder.
    """
    package = importlib.util.find_spec("textattack")
    if package is None or package.origin is None:
        return  # the import says so in its own words
    source = Path(package.origin).parent / "shared" / "utils" / "install.py"
    program = ast.parse(source.read_text(encoding="utf-8"), str(source))
    program.body = [step for step in program.body if ast.unparse(step) != _DOWNLOADS]
    spec = importlib.util.spec_from_file_location(_INSTALL_MODULE, source)
    if spec is None:
        raise ImportError(f"cannot load {source}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_INSTALL_MODULE] = module
    try:
        exec(compile(program, str(source), "exec"), vars(module))
    except BaseException:
        del sys.modules[_INSTALL_MODULE]
        raise
