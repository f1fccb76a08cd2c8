"""``eexit predict``"""

from __future__ import annotations

from eexit_cli.config import PredictConfig
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit predict --model deebert "a gripping, beautifully shot film"
  eexit predict --model pabee --patience 2 "dull" "never boring" --format csv
  eexit predict --model calm queue knight
  eexit predict --model deebert --file reviews.txt --json
"""


@from_config(PredictConfig)
def predict(config: PredictConfig, output: Output) -> None:
    """Show what each exit thinks of a text, and where the text, or each token, leaves."""
    from eexit_cli.ui.screens.predict import show_prediction

    with output.progress() as progress:
        from eexit_cli.pipelines.predict import run_prediction, with_piped

        document = run_prediction(with_piped(config), progress=progress)
    show_prediction(output, document)
