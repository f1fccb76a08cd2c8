"""Every field is an option, and every family refuses the options that it does not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden.golden_models import write_causal
from tiny_decoders import save_decoder

from eexit_cli.config import (
    AttackConfig,
    CalibrateConfig,
    EvaluateConfig,
    PredictConfig,
    TrainConfig,
)
from eexit_cli.config.field import CAUSAL, ENCODER, FAMILIES, PANELS, SEQ2SEQ, flag, option_of
from eexit_cli.config.plot import PlotConfig
from eexit_cli.config.report import ReportConfig
from eexit_cli.config.results import (
    ConvertConfig,
    ExportConfig,
    ListConfig,
    ModelConfig,
    OutputConfig,
)
from eexit_cli.core.errors import UsageError
from eexit_cli.ui import catalogs, completion
from eexit_cli.ui.option_types import CHECKS, PARSERS

OF_MODELS = (AttackConfig, CalibrateConfig, EvaluateConfig, PredictConfig, TrainConfig)
OF_STORES = (ExportConfig, ListConfig, ModelConfig, ConvertConfig, OutputConfig)
EVERY = (*OF_MODELS, PlotConfig, ReportConfig, *OF_STORES)
FIELDS = [(config, item) for config in EVERY for item in dataclasses.fields(config)]


def _id(value: Any) -> str:
    return getattr(value, "name", None) or getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("config", "item"), FIELDS, ids=_id)
def test_what_a_field_says_can_be_found(config: type, item: dataclasses.Field[Any]) -> None:
    told = option_of(item)
    assert told.help.endswith((".", "?"))
    assert told.argument or told.panel in PANELS
    names = {other.name for other in dataclasses.fields(config)} | {"quiet", "format"}
    others = {name for one in EVERY for name in (f.name for f in dataclasses.fields(one))}
    assert {*told.excludes, *([told.needs] if told.needs else [])} <= others
    assert told.needs is None or told.needs in names
    assert set(told.families) <= set(FAMILIES)
    for kind in (told.names, told.suggests):
        assert kind is None or catalogs.names(kind)
    assert told.completes is None or callable(getattr(completion, told.completes))
    assert told.parse is None or told.parse in {**PARSERS, **CHECKS}


def test_a_field_without_an_option_is_a_mistake() -> None:
    @dataclasses.dataclass
    class Forgotten:
        name: str = "x"

    with pytest.raises(TypeError, match="'name' was made without"):
        option_of(dataclasses.fields(Forgotten)[0])


def _other_value(item: dataclasses.Field[Any]) -> Any:
    """Some value that is not the default."""
    if isinstance(item.default, bool) or "bool" in str(item.type):
        return not item.default
    if isinstance(item.default, float):
        return item.default / 2
    if isinstance(item.default, int):
        return item.default + 1
    kind = str(item.type).split(" | ")[0]
    return {"int": 2, "float": 0.5, "Path": Path("somewhere")}.get(kind, "other")


def _unread() -> Iterator[Any]:
    for config in OF_MODELS:
        for item in dataclasses.fields(config):
            for family in [name for name in FAMILIES if not option_of(item).read_by(name)]:
                yield pytest.param(config, item, family, id=f"{config.__name__}-{item.name}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of each family."""
    folder = tmp_path_factory.mktemp("families")
    write_causal(folder / "causal")
    return {
        ENCODER: "deebert",
        SEQ2SEQ: str(save_decoder(folder / "decoder")),
        CAUSAL: str(folder / "causal"),
    }


def _runs() -> dict[type, Callable[[Any], Any]]:
    from eexit_cli.pipelines.attack.run import run_attack
    from eexit_cli.pipelines.calibrate.run import run_calibration
    from eexit_cli.pipelines.evaluate import run_evaluation
    from eexit_cli.pipelines.predict import run_prediction
    from eexit_cli.pipelines.train import run_training

    return {
        AttackConfig: run_attack,
        CalibrateConfig: run_calibration,
        EvaluateConfig: run_evaluation,
        PredictConfig: run_prediction,
        TrainConfig: run_training,
    }


@pytest.mark.parametrize(("config", "item", "family"), list(_unread()))
def test_an_option_that_a_family_does_not_read_is_refused(
    config: type,
    item: dataclasses.Field[Any],
    family: str,
    models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = models[family]
    if config is TrainConfig:
        model = {ENCODER: "deebert", SEQ2SEQ: "calm", CAUSAL: "layerskip"}[family]
    given: dict[str, Any] = {"model": model, item.name: _other_value(item)}
    if config is PredictConfig:
        given["texts"] = ("a",)
    with pytest.raises(UsageError, match=f"^{flag(item.name)} ") as refused:
        _runs()[config](config(**given))
    said = str(refused.value)
    assert FAMILIES[family][1] in said or "says nothing to same-token" in said  # the recipe's word
    assert not list(tmp_path.iterdir())
