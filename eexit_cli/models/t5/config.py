"""Configuration of a T5 with early exit in the decoder."""

from __future__ import annotations

from typing import Any

from transformers import T5Config

HEAD = "lm_head.weight"
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""T5's names of tensors that a file may hold under another one alone."""


class MultiExitT5Config(T5Config):
    """T5's own configuration and what early exit adds.

    Args:
        tied_head: the LM head is the word embedding, and states are scaled by d**-0.5 before it.
            None takes ``tie_word_embeddings``. A key of its own, because transformers 5 sets that
            one to True for every T5, v1.1 included.
        classifiers: names of the confidence classifiers in the folder, side by side.
        exit_defaults: criterion and settings used when the user gives none, for instance
            ``{"confidence": "softmax", "threshold": 0.9, "min_layer": 1}``.
        task: name of the task that the model was trained on.
        source_prefix: text put before each source ("summarize: ").
        max_source_length, max_target_length: in tokens; what the model was trained with.
        training: how the model was made, in the names of ``eexit train``'s options.
    """

    model_type = "multi_exit_t5"

    def __init__(
        self,
        tied_head: bool | None = None,
        classifiers: list[str] | None = None,
        exit_defaults: dict[str, Any] | None = None,
        task: str | None = None,
        source_prefix: str = "",
        max_source_length: int | None = None,
        max_target_length: int | None = None,
        training: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        tied = bool(kwargs.get("tie_word_embeddings", True)) if tied_head is None else tied_head
        kwargs["tie_word_embeddings"] = tied
        kwargs.pop("scale_decoder_outputs", None)
        super().__init__(**kwargs)
        self.tied_head = tied
        # transformers 4 scales the state when the first is set, transformers 5 when the second is.
        self.tie_word_embeddings = tied
        self.scale_decoder_outputs = tied
        self.classifiers = list(classifiers or [])
        self.exit_defaults = exit_defaults or {}
        self.task = task
        self.source_prefix = source_prefix
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.training = training or {}
        if getattr(self, "decoder_start_token_id", None) is None:
            self.decoder_start_token_id = self.pad_token_id

    @property
    def depth(self) -> int:
        """L: decoder layers, so exit layers count from 1 to this."""
        return int(self.num_decoder_layers)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an output."""
        ids = self.eos_token_id
        if ids is None:
            return frozenset()
        return frozenset(ids if isinstance(ids, (list, tuple)) else (ids,))
