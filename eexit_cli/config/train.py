"""Settings of ``eexit train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CommonConfig, DataConfig):
    """Training a multi-exit classifier. Here ``model`` is the family: deebert or pabee.

    Attributes:
        backbone: a folder or a hub id of a pretrained encoder.
        output: the folder that the finished model goes to.
        strategy: two-stage (DeeBERT), joint or alternating (BERxiT), weighted-joint (PABEE);
            None is the family's own.
        pooling: first (the papers') or mean.
        epochs: per stage.
        freeze_embeddings: keep the word embeddings as pretrained.
        vocabulary: keep only this many most frequent word pieces of the backbone; None keeps all.
        save_dtype: dtype of the stored weights; None is the training dtype.
        resume: go on from the newest checkpoint in ``output``.
    """

    model: str = "deebert"
    task: str | None = "movie-reviews"
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
    evaluations_per_epoch: int = 1
    gradient_accumulation: int = 1
    freeze_embeddings: bool = False
    vocabulary: int | None = None
    save_dtype: str | None = None
    resume: bool = False
