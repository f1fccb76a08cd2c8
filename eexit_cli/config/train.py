"""Settings of ``eexit train``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eexit_cli.config.common import CommonConfig, DataConfig
from eexit_cli.config.decoder import PromptConfig
from eexit_cli.config.field import (
    CAUSAL,
    DATA,
    DECODER,
    DECODERS,
    ENCODER,
    MODEL,
    SEQ2SEQ,
    TRAINING,
    like,
    opt,
)

ENCODER_TASK, DECODER_TASK = "movie-reviews", "pronunciation"
"""What is trained on where nothing says so."""

OF_FAMILY = {"calm": SEQ2SEQ, "layerskip": CAUSAL}
"""Families of models that write text, by what ``--model`` of a training calls their exits."""

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

SHAPE_OPTIONS = ("num_layers", "num_decoder_layers", "d_model", "d_ff", "num_heads")
"""Of a decoder that is trained from scratch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CommonConfig, DataConfig, PromptConfig):
    """Training a multi-exit model. Here ``model`` is the kind of exits.

    Each stage's learning rate rises over the warm-up and falls linearly to 0; biases and norms are
    spared the weight decay. bfloat16 and float16 run the model under autocast over float32 weights.
    ``vocabulary_keep``: both rules keep special tokens and single characters.
    """

    model: str = opt(
        OF_BACKBONE,
        "The kind of exits; auto is that of the backbone's own, else deebert.",
        MODEL,
        names="model family",
        listed=True,
    )
    backbone: str | None = opt(
        None,
        "What to start from: a folder or a hub id of an encoder (by default an installed MiniLM) "
        "or, for calm, of a T5 (by default a new one), for layerskip of a decoder-only model (by "
        "default a new one), or a model with exits, to go on.",
        MODEL,
        metavar="FOLDER|ID",
    )
    pooling: str | None = opt(
        None,
        "What the exits read: the first token (the papers', and the default) or the mean of all "
        "tokens; by default as the backbone's exits, where it has some.",
        MODEL,
        names="pooling",
        listed=True,
        families=(ENCODER,),
    )
    vocabulary: int | None = opt(
        None,
        "Keep only the N most frequent word pieces of the backbone.",
        MODEL,
        least=1,
        families=(ENCODER,),
    )
    vocabulary_keep: str = opt(
        "texts",
        "With --vocabulary: those of the training texts first, or the most frequent alone.",
        MODEL,
        names="vocabulary rule",
        listed=True,
        needs="vocabulary",
        families=(ENCODER,),
    )
    task: str | None = like(
        DataConfig,
        "task",
        help="Which data; by default movie-reviews, for calm and layerskip pronunciation.",
    )
    label_kind: str | None = opt(
        None,
        "What the labels of --data-file are: classes, or numbers to predict (regression); by "
        "default numbers where some have fractions, else classes.",
        DATA,
        names="label kind",
        listed=True,
        needs="data_file",
        excludes=("task", "label_names"),
        families=(ENCODER,),
    )
    validation_limit: int | None = opt(
        None, "Validation samples to read; by default all.", DATA, least=1
    )
    confidence: str | None = opt(
        None,
        "Train these confidence classifiers and leave the decoder as it is. Of {{confidence "
        "classifier}}.",
        DECODER,
        metavar="NAME,...|all",
        suggests="confidence classifier",
        families=DECODERS,
    )
    shallow_layer: int | None = opt(
        None,
        "FREE's early exit, with --strategy free.",
        DECODER,
        least=1,
        metavar="K",
        families=(SEQ2SEQ,),
    )
    distillation: str | None = opt(
        None,
        "FREE: which deep layers the shallow ones learn from; by default dynamic.",
        DECODER,
        names="distillation",
        listed=True,
        families=(SEQ2SEQ,),
    )
    distillation_weight: float | None = opt(
        None,
        "FREE: what that counts beside the losses of the two exits; by default 1.",
        DECODER,
        least=0,
        families=(SEQ2SEQ,),
    )
    layer_dropout: float | None = opt(
        None,
        "LayerSkip: how often the last layer is dropped, earlier ones less; by default 0.1.",
        DECODER,
        least=0,
        most=1,
        families=(CAUSAL,),
    )
    early_exit_scale: float | None = opt(
        None,
        "LayerSkip: what the losses of early layers count; by default 1.",
        DECODER,
        least=0,
        families=(CAUSAL,),
    )
    curriculum: str | None = opt(
        None,
        "LayerSkip: which layers' losses count at a step; by default rotating.",
        DECODER,
        names="curriculum",
        listed=True,
        families=(CAUSAL,),
    )
    curriculum_interval: int | None = opt(
        None,
        "LayerSkip: with the rotating curriculum every N-th layer counts; by default 2.",
        DECODER,
        least=1,
        metavar="N",
        families=(CAUSAL,),
    )
    exit_layers: tuple[int, ...] = opt(
        (),
        "Balcony: after which layers exits of their own come; by default a quarter, a half and "
        "three quarters of them.",
        DECODER,
        parse="layers",
        metavar="K,K,...",
        families=(CAUSAL,),
    )
    dropout: float | None = opt(
        None,
        "In all layers; by default the backbone's, 0.1 from scratch.",
        DECODER,
        least=0,
        most=1,
        families=DECODERS,
    )
    max_target_length: int | None = opt(
        None, "Tokens per target; by default 128.", DECODER, least=2, families=DECODERS
    )
    num_layers: int | None = opt(
        None,
        "Layers of a model trained from scratch, of a T5 its encoder's; by default 6, for "
        "layerskip 8.",
        DECODER,
        least=1,
        families=DECODERS,
    )
    num_decoder_layers: int | None = opt(
        None,
        "Decoder layers of a T5 trained from scratch; by default 6.",
        DECODER,
        least=1,
        families=(SEQ2SEQ,),
    )
    d_model: int | None = opt(
        None,
        "Width of a model trained from scratch; by default 128.",
        DECODER,
        least=1,
        families=DECODERS,
    )
    d_ff: int | None = opt(
        None,
        "Inner width of a model trained from scratch; by default 512.",
        DECODER,
        least=1,
        families=DECODERS,
    )
    num_heads: int | None = opt(
        None,
        "Attention heads of a model trained from scratch; by default 4.",
        DECODER,
        least=1,
        families=DECODERS,
    )
    strategy: str | None = opt(
        None,
        "How the exits are trained; by default the family's own.",
        TRAINING,
        names="any training strategy",
        listed=True,
    )
    epochs: float = opt(3.0, "Passes over the data, per stage.", TRAINING, least=0, metavar="N")
    learning_rate: float | None = opt(
        None,
        "The largest one; by default 3e-5, for calm and layerskip 1e-4, from scratch and for "
        "classifiers 1e-3.",
        TRAINING,
        least=0,
    )
    optimizer: str = opt(
        "adamw", "What moves the weights.", TRAINING, names="optimizer", listed=True
    )
    weight_decay: float = opt(0.01, "The optimizer's decay.", TRAINING, least=0)
    warmup_ratio: float = opt(
        0.1, "Share of the steps in which the learning rate rises.", TRAINING, least=0, most=1
    )
    head_dropout: float = opt(
        0.1, "Dropout before each classifier.", TRAINING, least=0, most=1, families=(ENCODER,)
    )
    evaluations_per_epoch: int = opt(
        1, "How often every exit is measured, and a checkpoint kept.", TRAINING, least=1
    )
    gradient_accumulation: int = opt(1, "Batches per step of the optimizer.", TRAINING, least=1)
    freeze_embeddings: bool = opt(
        False, "Keep the word embeddings as pretrained.", TRAINING, families=(ENCODER,)
    )
    save_dtype: str | None = opt(
        None, "Precision of the stored weights; by default the training's.", TRAINING, names="dtype"
    )
    licence: str | None = opt(None, "Of the weights, for the model card.", TRAINING, metavar="NAME")
    output: Path | None = opt(None, "Where the finished model goes.", TRAINING, metavar="DIR")
    resume: bool = opt(False, "Go on from the newest checkpoint in --output.", TRAINING)

    @property
    def subject(self) -> str:
        """What is trained, in a word: the family or, where none is given, what it starts from."""
        if self.model != OF_BACKBONE:
            return self.model
        return DEFAULT_FAMILY if self.backbone is None else Path(self.backbone).resolve().name

    @property
    def default_task(self) -> str:
        """What the family is trained on where nothing says so."""
        return DECODER_TASK if self.model in OF_FAMILY else ENCODER_TASK

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
