"""The commands as functions: options are keywords, runs come back with their rows as a table.

>>> import eexit_cli as eexit
>>> model = eexit.load("deebert")
>>> early = model.answers(["a gripping, beautifully shot film", "dull"])
>>> [model.label_names[answer] for answer in early.outputs]
['positive', 'negative']
>>> early.exit_layers
[[1], [3]]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.attack import AttackConfig
from eexit_cli.config.calibrate import CalibrateConfig
from eexit_cli.config.common import CommonConfig
from eexit_cli.config.decoder import DecoderExitConfig
from eexit_cli.config.evaluate import EvaluateConfig, PredictConfig
from eexit_cli.config.keywords import config_of
from eexit_cli.config.plot import PlotConfig
from eexit_cli.config.runtime import RuntimeConfig
from eexit_cli.config.train import TrainConfig

if TYPE_CHECKING:
    from eexit_cli.core.family import Model
    from eexit_cli.core.protocols import Progress
    from eexit_cli.core.types import RunResult


def load(model: str, *, progress: Progress | None = None, **options: Any) -> Model:
    """A model that answers: a bundled one, a local folder or a hub repository.

    Args:
        model: its name.
        progress: told how an upstream checkpoint was read; None is silent.
        options: how it is opened: ``device``, ``dtype``, ``max_length``, ``lower_case``,
            ``label_names``, for classifiers ``runtime``, for decoders ``weights``,
            ``max_new_tokens`` and ``greedy``.

    Raises:
        EexitError: as :func:`eexit_cli.families.opening.open_model`.
    """
    from eexit_cli.families.opening import open_model

    return open_model(config_of(_Opened, {"model": model, **options}), progress=progress)


@dataclass(frozen=True, kw_only=True)
class _Opened(CommonConfig, DecoderExitConfig, RuntimeConfig):
    """What opening a model reads."""


def evaluate(*, progress: Progress | None = None, **options: Any) -> RunResult:
    """``eexit evaluate``; see :class:`eexit_cli.config.evaluate.EvaluateConfig`.

    >>> import eexit_cli as eexit
    >>> run = eexit.evaluate(model="deebert", patience=[1, 2], limit=20, latency_samples=0)
    >>> run.rows[["patience", "speedup_layers"]].shape
    (2, 2)
    """
    from eexit_cli.pipelines.evaluate import run_evaluation

    return run_evaluation(config_of(EvaluateConfig, options), progress=progress)


def predict(
    texts: str | Iterable[str], *, progress: Progress | None = None, **options: Any
) -> dict[str, Any]:
    """``eexit predict``: what every layer makes of texts.

    >>> import eexit_cli as eexit
    >>> said = eexit.predict("never boring", model="pabee", patience=2)
    >>> [exit["executed"] for exit in said["results"][0]["exits"]]
    [True, True, True, False, False, False]
    """
    from eexit_cli.pipelines.predict import run_prediction

    given = (texts,) if isinstance(texts, str) else tuple(texts)
    return run_prediction(config_of(PredictConfig, {**options, "texts": given}), progress=progress)


def attack(*, progress: Progress | None = None, **options: Any) -> RunResult:
    """``eexit attack``; see :class:`eexit_cli.config.attack.AttackConfig`."""
    from eexit_cli.pipelines.attack.run import run_attack

    config = config_of(AttackConfig, options)
    return run_attack(config, progress=progress, explicit=frozenset(options))


def calibrate(*, progress: Progress | None = None, **options: Any) -> RunResult:
    """``eexit calibrate``; see :class:`eexit_cli.config.calibrate.CalibrateConfig`."""
    from eexit_cli.pipelines.calibrate.run import run_calibration

    config = config_of(CalibrateConfig, options)
    return run_calibration(config, progress=progress, explicit=frozenset(options))


def train(*, progress: Progress | None = None, **options: Any) -> RunResult:
    """``eexit train``; see :class:`eexit_cli.config.train.TrainConfig`."""
    from eexit_cli.pipelines.train import run_training

    config = config_of(TrainConfig, options)
    return run_training(config, progress=progress, explicit=frozenset(options))


def plot(figure: str, *, progress: Progress | None = None, **options: Any) -> list[Path]:
    """``eexit plot``; the files written. See :class:`eexit_cli.config.plot.PlotConfig`."""
    from eexit_cli.pipelines.plot import run_plot

    return run_plot(config_of(PlotConfig, {**options, "figure": figure}), progress=progress)
