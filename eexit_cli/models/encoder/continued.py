"""A multi-exit classifier that goes on from the weights of another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eexit_cli.models.encoder.conversion import build_without_init
from eexit_cli.models.encoder.heads import Pooler
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig
from eexit_cli.models.encoder.pretrained import label_settings, start_exits


def why_new_exits(
    given: MultiExitClassifier, *, family: str, pooling: str, num_labels: int
) -> str | None:
    """Why the exits of a model cannot go on as they are; None where they can.

    Args:
        given: the model with exits.
        family, pooling, num_labels: what is asked for, as in
            :func:`eexit_cli.models.encoder.pretrained.initialise_from_backbone`.
    """
    config = given.config
    if config.family != family:
        return f"its are {config.family}'s, {family}'s are asked for"
    if given.num_classes != num_labels:
        return f"its have {_outputs(given.num_classes)}, the data {_outputs(num_labels)}"
    if config.pooling != pooling:
        return f"its read the {_READ[config.pooling]}, those asked for the {_READ[pooling]}"
    return None


_READ = {"first": "first token", "mean": "mean of all tokens"}


def _outputs(number: int) -> str:
    return "one value" if number == 1 else f"{number} classes"


def continue_from(
    given: MultiExitClassifier,
    *,
    family: str,
    pooling: str,
    num_labels: int,
    head_dropout: float = 0.1,
    seed: int,
    label_names: Sequence[str] = (),
    new_exits: bool,
) -> MultiExitClassifier:
    """A classifier with the backbone of ``given`` and, where they fit, its exits; eval mode.

    Nothing else goes on: the default exit, the task and the history belong to the old weights.
    New exits start as on a pretrained encoder, with the last exit's pooler as the pretrained one.

    Args:
        given: in float32, on the CPU; not changed.
        family, pooling, num_labels, head_dropout, seed, label_names: as in
            :func:`eexit_cli.models.encoder.pretrained.initialise_from_backbone`.
        new_exits: must be true where :func:`why_new_exits` gives a reason.

    Raises:
        UsageError: an unknown family or pooling.
    """
    config = MultiExitConfig(
        backbone=dict(given.config.backbone),
        family=family,
        pooling=pooling,
        head_dropout=head_dropout,
        # Published attack code reads DeeBERT's untrained ramp, so it stays with its exits.
        untrained_ramp=given.config.untrained_ramp and not new_exits,
        **label_settings(num_labels, label_names),
    )
    model = build_without_init(config)
    if not new_exits:
        model.load_state_dict(given.state_dict())
        return model.eval()
    model.backbone.load_state_dict(given.backbone.state_dict())
    last = given.poolers[-1]
    assert isinstance(last, Pooler)
    fits = given.config.pooling == pooling
    weights: dict[str, torch.Tensor | None] = {
        "weight": last.dense.weight if fits else None,
        "bias": last.dense.bias if fits else None,
    }
    start_exits(model, weights, seed=seed)
    return model.eval()
