"""Pruning a backbone's WordPiece vocabulary, so that a small model is mostly layers.

BERT's word pieces are numbered roughly by frequency, so the smallest ids are the most frequent
pieces. Kept are the special tokens, all single characters (alone and inside words), so that any
word can still be spelt, on request every piece that occurs in the task's training texts, and then
the most frequent others. Greedy longest-match over fewer pieces splits a text differently only
where a removed piece matched; with their pieces kept the training texts keep their tokens, which is
verified.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eexit_cli.core.catalog import unknown_name
from eexit_cli.core.errors import UsageError

_UNUSED = ("[unused", "[UNUSED")


@dataclass(frozen=True)
class Pruning:
    """A smaller vocabulary.

    Attributes:
        tokenizer: the pruned tokenizer.
        kept: old id of each new id, ascending. Shape: [vocabulary].
        most_frequent: the vocabulary contains at least this many of the old one's first pieces,
            special and unused ones not counted.
        before: size of the old vocabulary.
    """

    tokenizer: Any
    kept: tuple[int, ...]
    most_frequent: int
    before: int


KEEP = ("texts", "frequency")


def prune(tokenizer: Any, texts: Sequence[str], size: int, *, keep: str = "texts") -> Pruning:
    """Keep ``size`` pieces of a WordPiece tokenizer.

    Args:
        tokenizer: a fast transformers tokenizer.
        texts: the training texts.
        size: pieces kept, special tokens included.
        keep: ``texts``: the tokens of the training texts must not change; ``frequency``: they
            may, so that more of the frequent pieces stay.

    Raises:
        UsageError: an unknown ``keep``, a tokenizer that is not WordPiece, or a ``size`` below
            what is needed (the message names that number) or above what there is.
    """
    if keep not in KEEP:
        raise unknown_name("choice of word pieces", keep, KEEP)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"].get("type") != "WordPiece":
        raise UsageError(
            f"--vocabulary prunes WordPiece vocabularies only, not "
            f"{backend['model'].get('type') or 'an unknown kind'}",
            hint="Leave --vocabulary out for this backbone",
        )
    pieces: dict[str, int] = backend["model"]["vocab"]
    prefix = backend["model"].get("continuing_subword_prefix", "##")
    special = {pieces[token] for token in tokenizer.all_special_tokens if token in pieces}
    special |= {token["id"] for token in backend.get("added_tokens", ())}
    protected = texts if keep == "texts" else ()
    used = {piece for row in _ids(tokenizer, protected) for piece in row}
    letters = {index for piece, index in pieces.items() if len(piece.removeprefix(prefix)) == 1}
    needed = special | used | letters
    by_id = sorted(pieces.values())
    unused = {index for piece, index in pieces.items() if piece.startswith(_UNUSED)} - needed
    available = len(by_id) - len(unused)
    if not len(needed) <= size <= available:
        raise UsageError(
            f"--vocabulary {size} is outside {len(needed)}..{available}",
            hint=f"{'The training texts, single' if protected else 'Single'} characters and "
            f"special tokens need {len(needed)} pieces; the backbone has {available} in use",
        )
    fill = [index for index in by_id if index not in needed and index not in unused]
    chosen = fill[: size - len(needed)]
    kept = tuple(sorted(needed | set(chosen)))
    first_left_out = fill[len(chosen)] if len(chosen) < len(fill) else by_id[-1] + 1
    most_frequent = sum(index < first_left_out for index in kept if index not in special)
    pruned = _rebuild(tokenizer, backend, kept)
    _check_same_tokens(tokenizer, pruned, protected)
    return Pruning(pruned, kept, most_frequent, len(by_id))


def prune_embeddings(model: Any, kept: Sequence[int]) -> None:
    """Keep these rows of the model's word embeddings, and say so in its configuration.

    Args:
        model: with ``word_embeddings`` (an ``nn.Embedding``), ``set_input_embeddings``, and the
            backbone's settings in ``config.backbone``.
        kept: old ids in the order of the new ones. Shape: [vocabulary].
    """
    old: nn.Embedding = model.word_embeddings
    position = {index: new for new, index in enumerate(kept)}
    padding = None if old.padding_idx is None else position[old.padding_idx]
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=padding)
    with torch.no_grad():
        # Shape: [vocabulary, hidden]
        new.weight = nn.Parameter(old.weight[torch.tensor(kept, device=old.weight.device)].clone())
    model.set_input_embeddings(new)
    settings: dict[str, Any] = {**model.config.backbone, "vocab_size": len(kept)}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if settings.get(name) is not None:
            settings[name] = position.get(settings[name])
    model.config.backbone = settings
    for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"):
        if name in settings:
            setattr(model.backbone.config, name, settings[name])


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), truncation=False, padding=False, return_attention_mask=False, verbose=False
    )
    rows: list[list[int]] = encoded["input_ids"]
    return rows


def _rebuild(tokenizer: Any, backend: dict[str, Any], kept: Iterable[int]) -> Any:
    """The same tokenizer over the kept pieces, renumbered in order."""
    from transformers import AutoTokenizer

    position = {old: new for new, old in enumerate(kept)}
    pieces = {index: piece for piece, index in backend["model"]["vocab"].items()}
    # Added tokens outside the vocabulary come after it, so they stay last.
    kept_pieces = {pieces[old]: new for old, new in position.items() if old in pieces}
    backend["model"]["vocab"] = kept_pieces
    for token in backend.get("added_tokens", ()):
        token["id"] = position[token["id"]]
    if backend.get("post_processor"):
        backend["post_processor"] = _renumber(backend["post_processor"], position)
    with tempfile.TemporaryDirectory(prefix="eexit-vocabulary-") as folder:
        tokenizer.save_pretrained(folder)
        root = Path(folder)
        (root / "tokenizer.json").write_text(json.dumps(backend), encoding="utf-8")
        (root / "vocab.txt").write_text("\n".join(kept_pieces) + "\n", encoding="utf-8")
        settings_file = root / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        added = settings.get("added_tokens_decoder")
        if added is not None:
            settings["added_tokens_decoder"] = {
                str(position[int(old)]): token for old, token in added.items()
            }
        settings_file.write_text(json.dumps(settings), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)


def _renumber(processor: dict[str, Any], position: dict[int, int]) -> dict[str, Any]:
    """Ids of the special tokens in a post-processor (template, BERT's, or a sequence of them)."""
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [_renumber(item, position) for item in changed["processors"]]
    for end in ("sep", "cls"):
        if isinstance(changed.get(end), list):
            token, index = changed[end]
            changed[end] = [token, position[index]]
    if isinstance(changed.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: {**entry, "ids": [position[index] for index in entry["ids"]]}
            for name, entry in changed["special_tokens"].items()
        }
    return changed


def _check_same_tokens(before: Any, after: Any, texts: Sequence[str]) -> None:
    for text, old, new in zip(texts, _ids(before, texts), _ids(after, texts), strict=True):
        if before.convert_ids_to_tokens(old) != after.convert_ids_to_tokens(new):
            raise RuntimeError(f"pruning changed the tokens of {text!r}")
