"""The options that only ``eexit train`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from eexit_cli.ui.option_types import DATA, MODEL, TRAINING, choice, option

Family = Annotated[str, choice("model family", "--model", panel=MODEL, help="The kind of exits.")]
Backbone = Annotated[
    str | None,
    option(
        "--backbone",
        panel=MODEL,
        metavar="FOLDER|ID",
        help="The pretrained encoder: a folder or a hub id; by default an installed MiniLM.",
    ),
]
Pooling = Annotated[
    str,
    choice(
        "pooling",
        "--pooling",
        panel=MODEL,
        help="What the exits read: the first token (the papers') or the mean of all tokens.",
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
        help="Which data; movie-reviews where no file or folder is given.",
    ),
]

Strategy = Annotated[
    str | None,
    choice(
        "training strategy",
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
    float,
    option("--learning-rate", panel=TRAINING, metavar="X", min=0, help="Peak learning rate."),
]
WeightDecay = Annotated[
    float, option("--weight-decay", panel=TRAINING, metavar="X", min=0, help="AdamW's decay.")
]
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
    "weight_decay": WeightDecay,
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
