"""One multi-exit encoder classifier: DeeBERT and PABEE are two settings of it.

DeeBERT (arXiv:2004.12993) gives every exit its own pooler and classifier; PABEE
(arXiv:2006.04152) shares one pooler. The last exit is the ordinary final classifier.
:meth:`MultiExitClassifier.forward` is the full pass (every exit's logits, differentiable);
:meth:`MultiExitClassifier.infer` leaves early for real, by dropping the samples that left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from eexit_cli.core.errors import UsageError
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.stepping import ExitCursor
from eexit_cli.core.types import Decision
from eexit_cli.models.encoder.backbones import Backbone, LayerAux, backbone_for
from eexit_cli.models.encoder.heads import POOLINGS, Pooler, UntrainedRamp, pool
from eexit_cli.models.finite import Finite, not_finite

ExitHook = Callable[[int, Tensor, Tensor], None]
"""Called after each executed exit with (layer, rows, logits)."""


class MultiExitConfig(PretrainedConfig):
    """Configuration of a multi-exit classifier.

    Args:
        backbone: the encoder's own configuration, as a dictionary with ``model_type``.
        family: ``deebert`` (a pooler per exit) or ``pabee`` (one shared pooler).
        pooling: ``first`` or ``mean``.
        head_dropout: dropout before each classifier, in training.
        untrained_ramp: the folder keeps DeeBERT's untrained last highway.
        exit_defaults: criterion and settings used when the user gives none, for instance
            ``{"criterion": "threshold", "confidence": "entropy", "threshold": 0.19}``.
        task: name of the task that the model was trained on.
        training: how the model was made, in the names of ``eexit train``'s options.
    """

    model_type = "multi_exit_classifier"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        family: str = "deebert",
        pooling: str = "first",
        head_dropout: float = 0.1,
        untrained_ramp: bool = False,
        exit_defaults: dict[str, Any] | None = None,
        task: str | None = None,
        training: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone or {}
        self.family = family
        self.pooling = pooling
        self.head_dropout = head_dropout
        self.untrained_ramp = untrained_ramp
        self.exit_defaults = exit_defaults or {}
        self.task = task
        self.training = training or {}

    @property
    def shared_pooler(self) -> bool:
        return self.family == "pabee"

    def backbone_config(self) -> PretrainedConfig:
        """The encoder's configuration, without the dtype of the file that it was read from."""
        settings = {k: v for k, v in self.backbone.items() if k not in ("dtype", "torch_dtype")}
        return AutoConfig.for_model(settings.pop("model_type"), **settings)


@dataclass
class MultiExitOutput(ModelOutput):
    """A full pass.

    Attributes:
        logits: every exit's logits. Shape: [batch, exits, classes].
    """

    logits: Tensor | None = None


FAMILIES = ("deebert", "pabee")


class MultiExitClassifier(PreTrainedModel):
    """An encoder with a classifier after every layer.

    Args:
        config: see :class:`MultiExitConfig`.

    Raises:
        UsageError: an unknown backbone architecture, family or pooling.
    """

    config_class = MultiExitConfig
    wrapped: str | None = None
    """A tensor's name in the file that a wrapper of the model had saved; None for others."""
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__(config)
        if config.pooling not in POOLINGS:
            raise UsageError(f"Unknown pooling '{config.pooling}'", hint="Available: first, mean")
        if config.family not in FAMILIES:
            raise UsageError(
                f"Unknown model family '{config.family}'", hint="Available: deebert, pabee"
            )
        inner = config.backbone_config()
        self.adapter: Backbone = backbone_for(inner)
        inner._attn_implementation = self.adapter.attention
        self.backbone = AutoModel.from_config(inner, attn_implementation=self.adapter.attention)
        # The heads own the poolers; the backbone's would be a second, unused one.
        self.backbone.pooler = None
        hidden = inner.hidden_size
        layers = self.adapter.num_layers(inner)
        self.poolers = nn.ModuleList(
            Pooler(hidden) for _ in range(1 if config.shared_pooler else layers)
        )
        self.classifiers = nn.ModuleList(
            nn.Linear(hidden, config.num_labels) for _ in range(layers)
        )
        self.dropout = nn.Dropout(config.head_dropout)
        self.last_ramp = UntrainedRamp(hidden, config.num_labels) if config.untrained_ramp else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        **hub_options: Any,
    ) -> MultiExitClassifier:
        """Load a folder or a hub repository, strictly: transformers' own would only warn about
        tensors that are missing, and leave them random.

        Args:
            pretrained_model_name_or_path: any layout that
                :func:`eexit_cli.models.encoder.conversion.load_classifier` knows.
            dtype, torch_dtype: of the weights; float32 when None, whatever the file's.
            **hub_options: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
                ``force_download``.

        Raises:
            TypeError: an option of transformers that has no meaning here.
            EexitError: as :func:`~eexit_cli.models.encoder.conversion.load_classifier`.
        """
        from eexit_cli.models.encoder.conversion import load_classifier

        known = {"revision", "cache_dir", "token", "local_files_only", "force_download"}
        if unknown := sorted(set(hub_options) - known):
            raise TypeError(f"from_pretrained() does not take {', '.join(unknown)}")
        return load_classifier(
            pretrained_model_name_or_path, dtype=dtype or torch_dtype or "float32", **hub_options
        )

    @property
    def num_exits(self) -> int:
        """L: exit layers count from 1 to this."""
        return len(self.classifiers)

    @property
    def num_classes(self) -> int:
        """K; 1 for regression."""
        return int(self.config.num_labels)

    @property
    def max_tokens(self) -> int:
        """The longest input, in tokens, special tokens included."""
        return self.adapter.max_positions(self.backbone.config)

    @property
    def word_embeddings(self) -> nn.Embedding:
        return self.backbone.get_input_embeddings()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def exit_logits(self, index: int, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits of exit ``index`` (0-based).

        Args:
            hidden: Shape: [batch, tokens, hidden].
            attention_mask: Shape: [batch, tokens], or None when nothing is padded.

        Returns:
            Shape: [batch, classes].
        """
        pooler = self.poolers[0 if self.config.shared_pooler else index]
        pooled = pooler(pool(hidden, attention_mask, self.config.pooling))
        return self.classifiers[index](self.dropout(pooled))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> MultiExitOutput:
        """The full pass through all layers, differentiable.

        Args:
            input_ids: Shape: [batch, tokens], int64.
            attention_mask: 1 for tokens, 0 for padding (on the right). Shape: [batch, tokens].
            token_type_ids: segment of each token; ignored by backbones without segments.
            inputs_embeds: word embeddings in place of ``input_ids``.
                Shape: [batch, tokens, embedding].

        Returns:
            Every exit's logits, Shape: [batch, exits, classes].

        Raises:
            NotFiniteError: in eval mode, a logit is NaN or infinite.
        """
        hidden, mask, aux = self._enter(input_ids, attention_mask, token_type_ids, inputs_embeds)
        kept = None if mask is None else attention_mask
        logits = []
        for index in range(self.num_exits):
            hidden = self.adapter.run_layer(self.backbone, index, hidden, mask, aux)
            logits.append(self.exit_logits(index, hidden, kept))
        output = torch.stack(logits, dim=1)
        # In training the loss tells, at the step where it happens.
        if not self.training and not bool(output.isfinite().all()):
            raise not_finite(self)
        return MultiExitOutput(logits=output)

    @torch.inference_mode()
    def infer(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        criterion: ExitCriterion | None = None,
        on_exit: ExitHook | None = None,
    ) -> Decision:
        """Leave early for real: after each layer the samples that left are dropped.

        Args:
            input_ids, attention_mask, token_type_ids: as for :meth:`forward`.
            criterion: None runs the full model; only the last exit's head is then computed.
            on_exit: called after each executed exit with (layer, rows, logits): ``rows`` are the
                original batch indices of the samples still running, Shape: [rows]; ``logits``
                theirs, Shape: [rows, classes].

        Returns:
            Exit layer and answering logits per sample.

        Raises:
            NotFiniteError: a logit of an executed exit is NaN or infinite.
        """
        finite = Finite()
        hidden, mask, aux = self._enter(input_ids, attention_mask, token_type_ids, None)
        kept = None if mask is None else attention_mask
        cursor = ExitCursor(criterion, self.num_exits)
        for index in range(self.num_exits):
            hidden = self.adapter.run_layer(self.backbone, index, hidden, mask, aux)
            if criterion is None and on_exit is None and index < self.num_exits - 1:
                continue
            logits = self.exit_logits(index, hidden, kept)
            finite.see(logits.flatten())
            if on_exit is not None:
                rows = cursor.rows_before(logits)
                on_exit(index + 1, rows, logits)
            keep = cursor.advance(index + 1, logits)
            if keep is None:
                continue
            if keep.numel() == 0:
                break
            hidden, kept, mask = self._drop(hidden, kept, mask, keep)
        if not finite.all():
            raise not_finite(self)
        return cursor.decision()

    def _enter(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, LayerAux]:
        hidden = self.adapter.embed(
            self.backbone,
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
        )
        mask = self.adapter.mask(attention_mask, hidden.dtype)
        return hidden, mask, self.adapter.aux(self.backbone, hidden)

    @staticmethod
    def _drop(
        hidden: Tensor, kept: Tensor | None, mask: Tensor | None, keep: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Keep these rows, and no more columns than the longest of them needs."""
        hidden = hidden[keep]
        if kept is None or mask is None:
            return hidden, None, None
        kept = kept[keep]
        positions = torch.arange(1, kept.shape[1] + 1, device=kept.device)
        tokens = int((kept.to(torch.int64) * positions).max())
        if bool(kept[:, :tokens].all()):
            return hidden[:, :tokens], None, None
        return hidden[:, :tokens], kept[:, :tokens], mask[keep][..., :tokens]
