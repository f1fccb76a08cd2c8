"""One frozen dataclass per command; the only place where defaults are written.

A pipeline takes its dataclass, so a run from Python and a run from the command line have the
same defaults, and ``all_results.json`` records exactly what was used.
"""

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.common import CommonConfig, DataConfig, ExitConfig
from eexit_cli.config.evaluate import EvaluateConfig, PredictConfig
from eexit_cli.config.train import TrainConfig

__all__ = [
    "AttackConfig",
    "CalibrateConfig",
    "CommonConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExitConfig",
    "PredictConfig",
    "TrainConfig",
]
