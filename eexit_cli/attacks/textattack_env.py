"""Importing TextAttack quietly, offline, and without writing to the user's home.

On its first import TextAttack makes ``~/.cache/textattack`` and downloads NLTK data; with no
network or a read-only home that prints, waits or fails. What the recipes here need of NLTK is
bundled. Call :func:`prepare` before the first ``import textattack`` of a process.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from eexit_cli.core.errors import MissingArtifactError

BUNDLED_NLTK_DATA = Path(__file__).resolve().parent.parent / "assets" / "nltk_data"
_INSTALL_MODULE = "textattack.shared.utils.install"
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
            "Attacks need TextAttack, which is not installed", hint="Run: pip install textattack"
        )
    _offer_bundled_nltk_data()
    if "textattack" in sys.modules:
        return
    if not _first_import_was_done():
        _load_installer_in_scratch_folder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
        import textattack

        _restore("TOKENIZERS_PARALLELISM", parallelism)
    textattack.shared.utils.logger.setLevel(logging.ERROR)
    logging.getLogger("flair").setLevel(logging.ERROR)
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


def textattack_cache() -> Path:
    """Where TextAttack keeps what it downloads."""
    return _default_cache()


def _default_cache() -> Path:
    return Path(
        os.environ.get("TA_CACHE_DIR", os.path.join(os.path.expanduser("~"), ".cache/textattack"))
    )


def _first_import_was_done() -> bool:
    return (_default_cache() / "post_install_check_3").is_file() and os.access(
        _default_cache(), os.W_OK
    )


def _load_installer_in_scratch_folder() -> None:
    """Run TextAttack's installer module alone, against a folder that says "already installed".

    Loading the one module first, rather than setting TA_CACHE_DIR for the whole import, keeps the
    caches of everything else that the import pulls in (matplotlib, transformers) where they are.
    Later downloads (other recipes' embeddings) go to TextAttack's usual folder.
    """
    package = importlib.util.find_spec("textattack")
    if package is None or package.origin is None:
        return  # the import below says so in its own words
    source = Path(package.origin).parent / "shared" / "utils" / "install.py"
    scratch = Path(tempfile.mkdtemp(prefix="eexit-textattack-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    (scratch / "post_install_check_3").touch()
    before = {name: os.environ.get(name) for name in _TOUCHED}
    usual = _default_cache()
    os.environ["TA_CACHE_DIR"] = str(scratch)
    try:
        module = _execute(source)
    finally:
        for name, value in before.items():
            _restore(name, value)
    module.TEXTATTACK_CACHE_DIR = str(usual)  # type: ignore[attr-defined]


def _execute(source: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_INSTALL_MODULE, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {source}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_INSTALL_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_INSTALL_MODULE]
        raise
    return module


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
