"""From a source to the prompt that a decoder-only model goes on from, and to its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eexit_cli.core.errors import UsageError
from eexit_cli.models.batching import Encoded

SOURCE = "{source}"
DEFAULT_TEMPLATE = f"{SOURCE}\n"
"""Where neither the user, the model nor the task says."""


@dataclass(frozen=True)
class Prompting:
    """What stands around a source.

    Attributes:
        template: text with ``{source}``.
        chat: the filled template is the user's turn in the tokenizer's chat template.
    """

    template: str = DEFAULT_TEMPLATE
    chat: bool = False


def prompting(
    template: str | None, chat: bool | None, config: Any, task_template: str | None, tokenizer: Any
) -> Prompting:
    r"""What the user says, else the model, else the task.

    Args:
        template, chat: the user's; ``\n`` in the template is a new line.
        config: the model's, with ``prompt_template`` and ``chat``.
        task_template: the task's own; None where it has none.

    Raises:
        UsageError: a template without ``{source}``, or a tokenizer without a chat template.
    """
    if template is not None:
        template = template.replace("\\n", "\n").replace("\\t", "\t")
        if template.count(SOURCE) != 1:
            raise UsageError(
                f"--prompt-template {template!r} does not hold {SOURCE} once",
                hint=f"For instance --prompt-template 'Q: {SOURCE}\\nA:'",
            )
    asked = bool(config.chat) if chat is None else chat
    if asked and not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            "The model's tokenizer has no chat template",
            hint="Drop --chat, or use a model that was trained for chats",
        )
    stored = config.prompt_template
    found = template or stored or task_template or (SOURCE if asked else DEFAULT_TEMPLATE)
    return Prompting(found, asked)


class PromptBatcher:
    """Tokenises prompts, padded on the right to the longest; see ``models.batching.TextBatcher``.

    The text is tokenised as a whole, as a user's program would; an end token that the tokenizer
    puts behind every text is left out, since the model is to go on. What is too long loses its
    beginning (but for a start token), since a completion follows its end.

    Args:
        tokenizer: a fast tokenizer with a padding token.
        max_length: tokens per prompt.
        prompting: what stands around each source.

    Attributes:
        truncated: prompts cut so far.
    """

    def __init__(self, tokenizer: Any, max_length: int, prompting: Prompting) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prompting = prompting
        self.truncated = 0

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``. Shape of each: [batch, tokens], int64."""
        rows = self.rows(texts)
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[number, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def encoded(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Prompts without padding, with the characters of the source that each token stands for."""
        before = len(self.text("\0").split("\0")[0])
        found = []
        for text, each in zip(texts, self.encode(texts).encodings, strict=True):
            kept = self._kept(each.ids)
            spans = [each.offsets[place] for place in kept]
            offsets = [(start - before, end - before) for start, end in spans]
            columns = [0 if end > 0 and start < len(text) else None for start, end in offsets]
            found.append(Encoded([each.ids[place] for place in kept], offsets, columns))
        return found

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt."""
        found = []
        for ids in self.encode(texts)["input_ids"]:
            kept = self._kept(ids)
            self.truncated += kept[-1] - kept[0] >= len(kept) or kept[0] > 0
            found.append([ids[place] for place in kept])
        return found

    def encode(self, texts: Sequence[str], **others: Any) -> Any:
        """The prompts through the tokenizer, as they are."""
        return self.tokenizer(
            [self.text(text) for text in texts],
            add_special_tokens=not self.prompting.chat,
            return_attention_mask=False,
            verbose=False,
            **others,
        )

    def text(self, source: str) -> str:
        """The whole prompt of a source."""
        filled = self.prompting.template.replace(SOURCE, source)
        if not self.prompting.chat:
            return filled
        turn = [{"role": "user", "content": filled}]
        found: str = self.tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True
        )
        return found

    def _kept(self, ids: Sequence[int]) -> list[int]:
        """Places of the tokens that are read."""
        tokenizer, most = self.tokenizer, self.max_length
        end = len(ids)
        if end > 1 and ids[-1] == tokenizer.eos_token_id:
            end -= 1
        if end <= most:
            return list(range(end))
        starts = most > 1 and ids[0] == tokenizer.bos_token_id
        first = [0] if starts else []
        return [*first, *range(end - most + len(first), end)]
