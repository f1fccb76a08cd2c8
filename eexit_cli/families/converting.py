"""From another project's checkpoint to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eexit_cli.confidence.decoder import build_classifier
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.families.causal.model import load_causal_tokenizer
from eexit_cli.families.loading import check_vocabulary
from eexit_cli.models.causal.layouts import load_causal


def convert(checkpoint: Path, output: Path, tokenizer: Path | None = None) -> dict[str, Any]:
    """Write a checkpoint of EE-LLM (or of any layout that loads) as a folder of this project's.

    Args:
        checkpoint: its folder, with a file per pipeline stage.
        output: must not hold a model yet.
        tokenizer: a folder with the tokenizer; None is the checkpoint's own.

    Returns:
        What the model is: ``model``, ``layers``, ``exits``, ``vocabulary``, ``tokenizer``.

    Raises:
        UsageError: there is a model already, or the tokenizer has more tokens than the model.
        MissingArtifactError: no such folder.
        EexitError: the checkpoint is damaged or of a kind that is not known.
    """
    if (output / "config.json").is_file():
        raise UsageError(f"{output} holds a model already", hint="Choose another --output")
    if not checkpoint.is_dir():
        raise MissingArtifactError(f"No folder {checkpoint}", hint="Check the path")
    model = load_causal(checkpoint, build_classifier=build_classifier)
    source = tokenizer or checkpoint
    try:
        found = load_causal_tokenizer(source)
    except (EexitError, MissingArtifactError):
        if tokenizer is not None:
            raise
        found = None
    if found is not None:
        check_vocabulary(found, model.config.vocab_size, source)
    model.save_pretrained(output)
    if found is not None:
        found.save_pretrained(output)
    return {
        "model": str(output),
        "layers": model.depth,
        "exits": ", ".join(map(str, model.config.exit_layers)),
        "vocabulary": model.config.vocab_size,
        "tokenizer": "missing: copy one into the folder" if found is None else str(source),
    }
