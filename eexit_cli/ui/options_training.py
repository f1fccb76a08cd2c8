"""The options that only ``eexit train`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from eexit_cli.ui import completion
from eexit_cli.ui.help import mention
from eexit_cli.ui.option_types import DATA, DECODER, MODEL, TRAINING, choice, option

Family = Annotated[
    str,
    choice(
        "model family",
        "--model",
        panel=MODEL,
        help="The kind of exits; auto is that of the backbone's own, else deebert.",
        show=True,
    ),
]
Backbone = Annotated[
    str | None,
    option(
        "--backbone",
        panel=MODEL,
        metavar="FOLDER|ID",
        help="What to start from: a folder or a hub id of an encoder (by default an installed "
        "MiniLM) or, for calm, of a T5 (by default a new one), or a model with exits, to go on.",
    ),
]
Pooling = Annotated[
    str | None,
    choice(
        "pooling",
        "--pooling",
        panel=MODEL,
        help="What the exits read: the first token (the papers', and the default) or the mean of "
        "all tokens; by default as the backbone's exits, where it has some.",
        show=True,
    ),
]
Vocabulary = Annotated[
    int | None,
    option(
        "--vocabulary",
        panel=MODEL,
        metavar="N",
        min=1,
        help="Keep only the N most frequent word pieces of the backbone.",
    ),
]
VocabularyKeep = Annotated[
    str,
    choice(
        "vocabulary rule",
        "--vocabulary-keep",
        panel=MODEL,
        help="With --vocabulary: those of the training texts first, or the most frequent alone.",
        show=True,
    ),
]
TrainTask = Annotated[
    str | None,
    choice(
        "task",
        "--task",
        panel=DATA,
        help="Which data; by default movie-reviews, for calm pronunciation.",
    ),
]

Strategy = Annotated[
    str | None,
    choice(
        "any training strategy",
        "--strategy",
        panel=TRAINING,
        help="How the exits are trained; by default the family's own.",
        show=True,
    ),
]
Epochs = Annotated[
    float,
    option("--epochs", panel=TRAINING, metavar="N", min=0, help="Passes over the data, per stage."),
]
LearningRate = Annotated[
    float | None,
    option(
        "--learning-rate",
        panel=TRAINING,
        metavar="X",
        min=0,
        help="The largest one; by default 3e-5, for calm 1e-4, from scratch and for classifiers "
        "1e-3.",
    ),
]
Optimizer = Annotated[
    str,
    choice("optimizer", "--optimizer", panel=TRAINING, help="What moves the weights.", show=True),
]
WeightDecay = Annotated[
    float,
    option("--weight-decay", panel=TRAINING, metavar="X", min=0, help="The optimizer's decay."),
]
ValidationLimit = Annotated[
    int | None,
    option(
        "--validation-limit",
        panel=DATA,
        metavar="N",
        min=1,
        help="Validation samples to read; by default all.",
    ),
]
Classifiers = Annotated[
    str | None,
    option(
        "--confidence",
        panel=DECODER,
        metavar="NAME,...|all",
        help="Train these confidence classifiers and leave the decoder as it is. "
        f"Of {mention('confidence classifier')}.",
        autocompletion=completion.of_catalog("confidence classifier"),
    ),
]
ShallowLayer = Annotated[
    int | None,
    option(
        "--shallow-layer",
        panel=DECODER,
        metavar="K",
        min=1,
        help="FREE's early exit, with --strategy free.",
    ),
]
Distillation = Annotated[
    str | None,
    choice(
        "distillation",
        "--distillation",
        panel=DECODER,
        help="FREE: which deep layers the shallow ones learn from; by default dynamic.",
        show=True,
    ),
]
DistillationWeight = Annotated[
    float | None,
    option(
        "--distillation-weight",
        panel=DECODER,
        metavar="X",
        min=0,
        help="FREE: what that counts beside the losses of the two exits; by default 1.",
    ),
]
Dropout = Annotated[
    float | None,
    option(
        "--dropout",
        panel=DECODER,
        metavar="X",
        min=0,
        max=1,
        help="In all layers; by default the backbone's, 0.1 from scratch.",
    ),
]
MaxTargetLength = Annotated[
    int | None,
    option(
        "--max-target-length",
        panel=DECODER,
        metavar="N",
        min=2,
        help="Tokens per target; by default 128.",
    ),
]


def _shape(flag: str, meaning: str, default: int) -> Any:
    return Annotated[
        int | None,
        option(
            flag,
            panel=DECODER,
            metavar="N",
            min=1,
            help=f"{meaning} of a T5 trained from scratch; by default {default}.",
        ),
    ]


SHAPE = {
    "num_layers": _shape("--num-layers", "Encoder layers", 6),
    "num_decoder_layers": _shape("--num-decoder-layers", "Decoder layers", 6),
    "d_model": _shape("--d-model", "Width", 128),
    "d_ff": _shape("--d-ff", "Inner width", 512),
    "num_heads": _shape("--num-heads", "Attention heads", 4),
}
WarmupRatio = Annotated[
    float,
    option(
        "--warmup-ratio",
        panel=TRAINING,
        metavar="X",
        min=0,
        max=1,
        help="Share of the steps in which the learning rate rises.",
    ),
]
HeadDropout = Annotated[
    float,
    option(
        "--head-dropout",
        panel=TRAINING,
        metavar="X",
        min=0,
        max=1,
        help="Dropout before each classifier.",
    ),
]
Licence = Annotated[
    str | None,
    option("--licence", panel=TRAINING, metavar="NAME", help="Of the weights, for the model card."),
]
EvaluationsPerEpoch = Annotated[
    int,
    option(
        "--evaluations-per-epoch",
        panel=TRAINING,
        metavar="N",
        min=1,
        help="How often every exit is measured, and a checkpoint kept.",
    ),
]
GradientAccumulation = Annotated[
    int,
    option(
        "--gradient-accumulation",
        panel=TRAINING,
        metavar="N",
        min=1,
        help="Batches per step of the optimizer.",
    ),
]
FreezeEmbeddings = Annotated[
    bool,
    option("--freeze-embeddings", panel=TRAINING, help="Keep the word embeddings as pretrained."),
]
SaveDtype = Annotated[
    str | None,
    choice(
        "dtype",
        "--save-dtype",
        panel=TRAINING,
        help="Precision of the stored weights; by default the training's.",
    ),
]
ModelFolder = Annotated[
    Path | None,
    option("--output", panel=TRAINING, metavar="DIR", help="Where the finished model goes."),
]
ResumeTraining = Annotated[
    bool,
    option("--resume", panel=TRAINING, help="Go on from the newest checkpoint in --output."),
]

OPTIONS: dict[str, Any] = {
    "model": Family,
    "backbone": Backbone,
    "pooling": Pooling,
    "vocabulary": Vocabulary,
    "vocabulary_keep": VocabularyKeep,
    "task": TrainTask,
    "strategy": Strategy,
    "epochs": Epochs,
    "learning_rate": LearningRate,
    "optimizer": Optimizer,
    "weight_decay": WeightDecay,
    "validation_limit": ValidationLimit,
    "confidence": Classifiers,
    "shallow_layer": ShallowLayer,
    "distillation": Distillation,
    "distillation_weight": DistillationWeight,
    "dropout": Dropout,
    "max_target_length": MaxTargetLength,
    **SHAPE,
    "warmup_ratio": WarmupRatio,
    "head_dropout": HeadDropout,
    "evaluations_per_epoch": EvaluationsPerEpoch,
    "gradient_accumulation": GradientAccumulation,
    "freeze_embeddings": FreezeEmbeddings,
    "save_dtype": SaveDtype,
    "licence": Licence,
    "output": ModelFolder,
    "resume": ResumeTraining,
}
"""Field of the configuration -> its option, where it is not one that other commands share."""
