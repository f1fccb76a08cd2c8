"""``eexit evaluate``"""

from __future__ import annotations

from eexit_cli.config import EvaluateConfig
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit evaluate --model deebert
  eexit evaluate --model my-model --threshold 0.19
  eexit evaluate --model pabee --patience 3 --task movie-reviews --split validation
  eexit evaluate --model deebert --sweep --format csv
  eexit evaluate --model calm --confidence softmax --threshold 0.9
  eexit evaluate --model calm --static-layer 1,2,3,4,5,6
  eexit evaluate --model calm --threshold 0.9,0.5 --top-k-propagation none,10,20
  eexit evaluate --model calm --sweep --confidence softmax,saturation,linear,mlp
"""


@from_config(EvaluateConfig)
def evaluate(config: EvaluateConfig, output: Output) -> None:
    """Measure quality against speed, at one setting or at all of them."""
    from eexit_cli.ui.screens.evaluate import show_evaluation

    with output.progress() as progress:
        progress.message(f"Evaluating {config.model}")
        from eexit_cli.pipelines.evaluate import run_evaluation

        result = run_evaluation(config, progress=progress)
    show_evaluation(output, result)
