"""``eexit evaluate``"""

from __future__ import annotations

from eexit_cli.config import EvaluateConfig
from eexit_cli.ui import options_evaluation
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit evaluate --model deebert
  eexit evaluate --model my-model --threshold 0.19
  eexit evaluate --model pabee --patience 3 --task movie-reviews --split validation
  eexit evaluate --model deebert --sweep --format csv
"""


@from_config(EvaluateConfig, **options_evaluation.OPTIONS)
def evaluate(config: EvaluateConfig, output: Output) -> None:
    """Measure quality against speed, at one setting or at all of them."""
    from eexit_cli.ui.screens.evaluate import show_evaluation

    with output.progress() as progress:
        progress.message(f"Evaluating {config.model}")
        from eexit_cli.pipelines.evaluate import run_evaluation

        result = run_evaluation(config, progress=progress)
    show_evaluation(output, result)
