"""What each exit thinks of a text, and where the text leaves."""

from __future__ import annotations

import sys
from codecs import BOM_UTF8
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eexit_cli.config.evaluate import PredictConfig
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.progress import SilentProgress
from eexit_cli.core.text import REPLACEMENT, is_whole, made_whole
from eexit_cli.families.calibrated import with_calibrated
from eexit_cli.families.opening import open_model

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress


def run_prediction(config: PredictConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Classify texts, or decode them, and show what every exit thinks.

    Args:
        config: see :class:`PredictConfig`.
        progress: told of texts that are no valid Unicode, how a checkpoint was converted, what its
            classes are called where it does not say, what a stored threshold promises, and that a
            model of pairs of texts got single ones.

    Returns:
        ``model``, ``num_layers``, ``runtime`` (of a classifier) or ``weights`` (of a decoder),
        ``criterion`` and ``results``, one per text. A classifier adds ``label_names``; its results
        have the text's exit layer, its answer and all ``exits``:
        prediction, probability, confidence, and whether the exit was executed. A decoder's have
        ``output``, ``output_full`` (all layers), ``mean_exit_layer`` and ``tokens``: of each its
        text, ``exit_layer``, ``confidence`` (None where none was asked) and ``layers``, the token
        that each layer would choose after the same tokens, had all of those gone through every
        layer.

    Raises:
        UsageError: no text, an empty text, options that cannot be.
        MissingArtifactError: no such file.
    """
    config = _with_file(config)
    if not config.texts:
        raise UsageError("No text given", hint='eexit predict --model deebert "a fine film"')
    for text in config.texts:
        if not text.strip():
            raise UsageError("A text is empty", hint="Give at least one word")
    progress = progress or SilentProgress()
    config = _valid(config, progress)
    model = open_model(config, progress=progress)
    model.settle_texts(config, progress)
    config = with_calibrated(config, model, task=None, prefix=model.prefix(None), progress=progress)
    exit = model.exit(config)
    names = model.label_names
    # What rounds the numbers: a classifier's runtime, a decoder's weights.
    told = model.conditions(model.prefix(None))
    ways: dict[str, Any] = {name: told[name] for name in ("runtime", "weights") if name in told}
    return {
        "model": model.name,
        "num_layers": model.num_layers,
        **({} if names is None else {"label_names": list(names)}),
        **ways,
        "criterion": exit.described,
        "results": model.opinions(config, exit, progress),
    }


def with_piped(config: PredictConfig) -> PredictConfig:
    """The configuration with the lines of standard input where '-' stands for them, or where no
    text is given and something is piped in."""
    piped = not (config.texts or config.file or sys.stdin is None or sys.stdin.isatty())
    texts: list[str] = []
    for text in ("-",) if piped else config.texts:
        texts += _lines(sys.stdin.buffer.read()) if text == "-" else [text]
    return replace(config, texts=tuple(texts))


def _with_file(config: PredictConfig) -> PredictConfig:
    if config.file is None:
        return config
    if not config.file.is_file():
        raise MissingArtifactError(f"No file {config.file}", hint="Check the path")
    return replace(config, texts=(*config.texts, *_lines(config.file.read_bytes())))


def _lines(content: bytes) -> list[str]:
    """Lines that say something; bytes that are no UTF-8 stay visible as such."""
    lines = content.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape").split("\n")
    return [line.rstrip("\r") for line in lines if line.strip()]


def _valid(config: PredictConfig, progress: Progress) -> PredictConfig:
    """Arguments may hold bytes of another encoding, which no tokenizer takes."""
    given = [*config.texts, *([] if config.text_pair is None else [config.text_pair])]
    broken = [text for text in given if not is_whole(text)]
    if not broken:
        return config
    progress.message(f"Not valid UTF-8, and read with {REPLACEMENT} in its place: {broken[0]}")
    pair = None if config.text_pair is None else made_whole(config.text_pair)
    return replace(config, texts=tuple(map(made_whole, config.texts)), text_pair=pair)
