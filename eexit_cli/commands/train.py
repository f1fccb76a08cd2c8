"""``eexit train``"""

from __future__ import annotations

from eexit_cli.config import TrainConfig
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit train --model deebert --backbone google-bert/bert-base-uncased --output my-model
  eexit train --model pabee --backbone ./encoder --task sst2 --epochs 3 --output my-model
  eexit train --backbone ./encoder --data-file reviews.csv --output my-model
  eexit train --backbone deebert --data-file adversarial/adversarial.parquet --output hardened
  eexit train --model calm --backbone google-t5/t5-small --task cnn_dailymail --limit 5000
  eexit train --model calm --confidence mlp,linear
  eexit train --output my-model --resume
"""


@from_config(TrainConfig)
def train(config: TrainConfig, output: Output, explicit: frozenset[str]) -> None:
    """Train a model with an exit after every layer."""
    from eexit_cli.ui.screens.train import show_training

    with output.progress() as progress:
        output_folder = config.completed().output
        if config.resume:
            progress.message(f"Resuming the training of {output_folder}")
        else:
            progress.message(f"Training {config.subject}; the model goes to {output_folder}")
        from eexit_cli.pipelines.train import run_training

        result = run_training(config, progress=progress, explicit=explicit)
    show_training(output, result)
