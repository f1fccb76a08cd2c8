"""A new multi-exit classifier on a pretrained encoder, for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.seed import derive_seed
from eexit_cli.models.checkpoints import find_folder, read_config, read_tensors, unwrapped
from eexit_cli.models.encoder.conversion import build_without_init, fill
from eexit_cli.models.encoder.heads import Pooler
from eexit_cli.models.encoder.layouts.base import backbone_settings
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

CLASSIFIER_STD = 0.02
"""BERT's own initialisation, and the originals'."""


def initialise_from_backbone(
    backbone: str,
    *,
    family: str,
    pooling: str,
    num_labels: int,
    head_dropout: float = 0.1,
    seed: int,
    label_names: Sequence[str] = (),
) -> MultiExitClassifier:
    """A classifier whose encoder is pretrained and whose exits are new, in float32, eval mode.

    With first-token pooling every pooler starts from the pretrained one where there is one, as in
    the public DeeBERT code. For mean pooling the pretrained pooler, made for one token, says
    nothing: poolers start from random orthogonal matrices, which keep the pooled vector's length.

    Args:
        backbone: a folder (also sentence-transformers') or a hub id of an encoder; files with a
            pretraining or task head around it are accepted, the head is left out.
        family: deebert or pabee.
        pooling: first or mean.
        num_labels: K; 1 is regression.
        seed: of the heads' initial values, and of nothing else.
        label_names: one per class, or empty.

    Raises:
        MissingArtifactError: no such folder or repository.
        UsageError: an architecture that is not supported, or a folder that already has exits.
        EexitError: tensors of the encoder are missing, unexpected or mis-shaped.
    """
    folder = find_folder(backbone)
    raw = read_config(folder)
    model_type = str(raw.get("model_type", ""))
    if model_type == MultiExitConfig.model_type:
        raise UsageError(
            f"{backbone} already has exits; a backbone is an encoder without",
            hint="Go on from it with continue_from, or give the encoder that it was made from",
        )
    config = MultiExitConfig(
        backbone=backbone_settings(model_type, raw),
        family=family,
        pooling=pooling,
        head_dropout=head_dropout,
        **label_settings(num_labels, label_names),
    )
    given, wrapped = unwrapped(read_tensors(folder))
    tensors = _encoder_tensors(given, model_type)
    model = build_without_init(config)
    pooler = {
        "weight": _take(tensors, "pooler.dense.weight", "pooler.weight"),
        "bias": _take(tensors, "pooler.dense.bias", "pooler.bias"),
    }
    fill(model.backbone, tensors, str, origin=backbone)
    start_exits(model, pooler, seed=seed)
    model.wrapped = wrapped
    return model.eval()


def start_exits(
    model: MultiExitClassifier, pooler: Mapping[str, Tensor | None], *, seed: int
) -> None:
    """Initial values of all poolers and classifiers, in place.

    Args:
        pooler: the pretrained one, ``weight`` and ``bias``; None where there is none. It counts
            with first-token pooling alone.
        seed: of the random ones.

    Raises:
        EexitError: the pretrained pooler has another shape.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "heads"))
    for head in model.poolers:
        assert isinstance(head, Pooler)
        _start_pooler(head, pooler, model.config.pooling, generator)
    for classifier in model.classifiers:
        assert isinstance(classifier, nn.Linear)
        nn.init.normal_(classifier.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(classifier.bias)


def _encoder_tensors(tensors: Mapping[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """The encoder's own tensors under their bare names.

    Files of a model with a head carry the architecture's prefix, and what lies outside it is the
    head; files of the bare encoder carry none. Google's original files call a norm's weight gamma.
    """
    prefix = f"{model_type}."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
    return {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        ): value
        for name, value in tensors.items()
    }


def _take(tensors: dict[str, Tensor], *names: str) -> Tensor | None:
    """Remove and return the first of these that is there."""
    for name in names:
        if name in tensors:
            return tensors.pop(name)
    return None


def _start_pooler(
    head: Pooler, pretrained: Mapping[str, Tensor | None], pooling: str, generator: torch.Generator
) -> None:
    weight, bias = pretrained["weight"], pretrained["bias"]
    if pooling == "first" and weight is not None and bias is not None:
        if weight.shape != head.dense.weight.shape or bias.shape != head.dense.bias.shape:
            raise EexitError(
                f"The backbone's pooler is {list(weight.shape)}, expected "
                f"{list(head.dense.weight.shape)}",
                hint="Its weights do not fit its config.json",
            )
        with torch.no_grad():
            head.dense.weight.copy_(weight)
            head.dense.bias.copy_(bias)
        return
    if pooling == "first":
        nn.init.normal_(head.dense.weight, std=CLASSIFIER_STD, generator=generator)
    else:
        nn.init.orthogonal_(head.dense.weight, generator=generator)
    nn.init.zeros_(head.dense.bias)


def label_settings(num_labels: int, label_names: Sequence[str]) -> dict[str, Any]:
    """The classes as ``config.json`` has them.

    Raises:
        UsageError: not one name per class.
    """
    if not label_names:
        return {"num_labels": num_labels}
    if len(label_names) != num_labels:
        raise UsageError(
            f"{len(label_names)} label names for {num_labels} classes",
            hint="Give one name per class",
        )
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
