"""The model card: what a model is, the command that made it, what it measured."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eexit_cli.core.digits import exact
from eexit_cli.core.option import flag

FAMILY_TITLES = {
    "deebert": "DeeBERT (ACL 2020, arXiv:2004.12993): a pooler and a classifier after every layer",
    "pabee": "PABEE (NeurIPS 2020, arXiv:2006.04152): one pooler, a classifier after every layer",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        name: title, usually the folder's name.
        family: deebert or pabee.
        backbone: what it was trained from.
        start: of a model that went on from another one with exits, ``exits`` (kept or new) and
            ``backbone`` (that one's own); else None.
        task: its name.
        label_names: the classes; empty for regression.
        strategy, source: of the training, with its paper.
        pooling: first or mean.
        num_layers: L.
        weights: number of weights.
        vocabulary: word pieces.
        stored_dtype: of the file.
        command: the exact command.
        train_samples, validation_samples: counts.
        metric: the task's leading metric.
        per_exit: that metric at exits 1..L, on validation data.
        default_exit: the stored setting.
        default_quality, full_quality: the metric at that setting and of the full model.
        mean_exit_layer: at that setting.
        tolerance: what the choice of the default was allowed to give up.
        versions: of the programs.
        licence: of the weights; None where eexit cannot know.
    """

    name: str
    family: str
    backbone: str
    task: str
    label_names: Sequence[str]
    strategy: str
    source: str
    pooling: str
    num_layers: int
    weights: int
    vocabulary: int
    stored_dtype: str
    command: str
    train_samples: int
    validation_samples: int
    metric: str
    per_exit: Sequence[float]
    default_exit: Mapping[str, Any]
    default_quality: float
    full_quality: float
    mean_exit_layer: float
    tolerance: float
    versions: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    start: Mapping[str, Any] | None = None


def command_line(options: Mapping[str, Any]) -> str:
    """The ``eexit train`` command with these options.

    Args:
        options: option names (with underscores) to values; True is a bare flag, False its
            ``--no-`` form, None is left out, a list has commas between.
    """
    words = ["eexit", "train"]
    for name, value in options.items():
        if value is None:
            continue
        if value is True or value is False:
            words.append(flag(name if value else f"no_{name}"))
        else:
            said = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [flag(name), said]
    return shlex.join(words)


def describe_exit(settings: Mapping[str, Any]) -> str:
    """``entropy threshold 0.19`` or ``patience 3``, as a person says it."""
    if settings["criterion"] == "threshold":
        return f"{settings['confidence']} threshold {exact(settings['threshold'])}"
    if settings["criterion"] == "patience" and settings["patience"] == 0:
        return "patience 0 (the full model)"
    return f"{settings['criterion']} {settings[settings['criterion']]}"


def _started(facts: CardFacts) -> str:
    """A line about the model that this one went on from."""
    if facts.start is None:
        return ""
    exits = "and its exits" if facts.start["exits"] == "kept" else "with new exits"
    made = facts.start["backbone"]
    history = f" (which was trained from {made})" if made else ""
    return f"- Went on from: {facts.backbone}{history}, its layers {exits}\n"


def write_card(facts: CardFacts) -> str:
    """The content of README.md, with the hub's metadata header."""
    classes = ", ".join(facts.label_names) if facts.label_names else "one value (regression)"
    rows = "\n".join(
        f"| {layer} | {value:.4f} |" for layer, value in enumerate(facts.per_exit, start=1)
    )
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    saved = 1 - facts.mean_exit_layer / facts.num_layers
    return f"""---
library_name: eexit
license: {facts.licence or "unknown"}
base_model: {facts.backbone}
datasets:
- {facts.task}
tags:
- early-exit
- multi-exit
- {facts.family}
---

# {facts.name}

A multi-exit classifier for `{facts.task}` ({classes}): {FAMILY_TITLES[facts.family]}. Samples that
an early exit is sure about leave there; the rest goes on, at most to layer {facts.num_layers}.

- Backbone: {facts.backbone}, {facts.num_layers} layers, {facts.weights / 1e6:.1f} M weights,
  {facts.vocabulary} word pieces, stored in {facts.stored_dtype}
{_started(facts)}- Pooling before each head: {facts.pooling}
- Training: {facts.strategy} ({facts.source}), {facts.train_samples} samples
- Licence: {facts.licence or "not stated; the backbone's and the data's licences apply"}

## Use

```
eexit predict --model {facts.name} "a text of yours"
eexit evaluate --model {facts.name}
eexit attack --model {facts.name}
```

## Made by

```
{facts.command}
```

{versions}

## Measured on validation data ({facts.validation_samples} samples)

| exit layer | {facts.metric} |
|---|---|
{rows}

Default exit: **{describe_exit(facts.default_exit)}**, {facts.metric} {facts.default_quality:.4f}
against {facts.full_quality:.4f} of the full model, mean exit layer {facts.mean_exit_layer:.2f} of
{facts.num_layers} ({100 * saved:.0f} % of the layers saved). Going from the full
model to more eager settings, it is the last one before more than {facts.tolerance:g} in
{facts.metric} is lost on these data. Since it was chosen on them, these figures flatter it
slightly: test data were not touched.

## Intended use and limits

For research on early exit: its speed, its calibration, and attacks on it. The model was trained for
`{facts.task}` alone and answers with one of its classes for any text, in any language, without
saying that a text is out of its domain. It has the biases of its backbone and its data. A confident
early exit can be wrong, and inputs can be made to leave late on purpose (`eexit attack`).
"""
