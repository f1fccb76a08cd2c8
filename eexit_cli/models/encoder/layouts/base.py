"""What every checkpoint layout provides, and what the two published ones share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from eexit_cli.core.errors import EexitError
from eexit_cli.core.published import encoder_exit
from eexit_cli.models import BACKBONES
from eexit_cli.models.encoder.model import MultiExitConfig

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How to fill a multi-exit classifier from a file.

    Attributes:
        config: of the classifier to build.
        file_name: our tensor's name -> the file's name for it.
    """

    config: MultiExitConfig
    file_name: Callable[[str], str]


class Layout(Protocol):
    """One way of naming tensors."""

    title: str

    def matches(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """Is this the layout of a folder with this ``config.json`` and these tensors?"""
        ...

    def plan(self, config: Mapping[str, Any], tensors: Tensors) -> Plan:
        """How to read it.

        Raises:
            EexitError: the configuration contradicts the tensors.
            UsageError: a backbone that the adapter table does not know.
        """
        ...


_GLUE_NAMES = {"sst-2": "sst2", "sts-b": "stsb", "mnli-mm": "mnli"}
"""The old scripts' spellings of GLUE tasks."""


def backbone_settings(model_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture's own settings of a ``config.json``, without labels, paths and old flags.

    Raises:
        UsageError: no backbone of this type; the hint lists those that exist.
    """
    BACKBONES.canonical(model_type)
    architecture = set(AutoConfig.for_model(model_type).to_dict()) - set(
        PretrainedConfig().to_dict()
    )
    # DistilBERT and others also accept the common names of their own settings.
    aliases = set(AutoConfig.for_model(model_type).attribute_map)
    # transformers 5 has dropped the key; it must still be seen, to refuse relative positions.
    wanted = architecture | aliases | {"pad_token_id", "position_embedding_type"}
    settings = {key: value for key, value in config.items() if key in wanted}
    return {"model_type": model_type, **settings}


def published_config(
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    prefix: str,
    family: str,
    classifier: str,
    **settings: Any,
) -> MultiExitConfig:
    """The configuration of a converted checkpoint.

    Args:
        prefix: the first part of the backbone's tensor names, an architecture's name.
        classifier: name of a classifier's weight, whose rows count the labels where an old
            ``config.json`` does not.

    Raises:
        EexitError: ``config.json`` names another architecture than the tensors.
    """
    model_type = config.get("model_type", prefix)  # transformers 2 did not write it
    if model_type != prefix:
        raise EexitError(
            f"config.json says '{model_type}', but the tensors are named '{prefix}.*'",
            hint=f"Correct 'model_type' in config.json to '{prefix}' if the tensors are right",
        )
    id2label = config.get("id2label")
    if "num_labels" in config:
        num_labels = int(config["num_labels"])
    elif isinstance(id2label, dict) and id2label:
        num_labels = len(id2label)
    elif classifier in tensors:
        num_labels = int(tensors[classifier].shape[0])
    else:
        num_labels = 2
    labels: dict[str, Any] = {"num_labels": num_labels}
    if isinstance(id2label, dict) and len(id2label) == num_labels:
        names = {int(key): str(value) for key, value in id2label.items()}
        labels = {"id2label": names, "label2id": {value: key for key, value in names.items()}}
    task = str(config.get("finetuning_task") or "").lower()
    backbone = backbone_settings(model_type, config)
    if model_type == "roberta" and "transformers_version" not in config:
        # Before transformers 3 the code fixed RoBERTa's padding index, from which positions
        # count, at 1, while the configuration could say 0.
        backbone["pad_token_id"] = 1
    made = MultiExitConfig(
        backbone=backbone,
        family=family,
        pooling="first",
        head_dropout=float(
            config.get("classifier_dropout_prob", config.get("hidden_dropout_prob", 0.1))
        ),
        task=_GLUE_NAMES.get(task, task) or None,
        training={"converted_from": family},
        **labels,
        **settings,
    )
    layers = int(made.backbone_config().num_hidden_layers)
    made.exit_defaults = encoder_exit(family, layers=layers, num_labels=num_labels)
    return made
