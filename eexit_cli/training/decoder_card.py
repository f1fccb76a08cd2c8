"""The card of a decoder with exits, from what its configuration says about its making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eexit_cli.core.digits import exact


def write_decoder_card(
    name: str,
    config: Mapping[str, Any],
    *,
    weights: int,
    stored_dtype: str,
    licence: str | None = None,
) -> str:
    """The content of README.md, with the hub's metadata header.

    Args:
        name: title, usually the folder's name.
        config: of the model; its ``training`` and ``exit_defaults`` hold the measured figures.
        weights: number of weights, classifiers included.
        stored_dtype: of the file.
        licence: of the weights; None where eexit cannot know.
    """
    training, exits = config["training"], config["exit_defaults"]
    depth = config["num_decoder_layers"]
    backbone = training.get("backbone")
    parts = [
        _header(name, config, backbone, licence),
        f"""# {name}

A T5 for `{config.get("task")}` whose tokens may leave the decoder early (CALM, NeurIPS 2022,
arXiv:2207.07061): a token that a layer is sure about leaves there, the rest goes on, at most to
layer {depth}.

- {config["num_layers"]} encoder and {depth} decoder layers, width {config["d_model"]}, \
vocabulary {config["vocab_size"]}, {weights / 1e6:.2f} M weights
  (classifiers included), stored in {stored_dtype}
- Started from: {backbone or "random weights"}
- Training: {training.get("strategy", "not known")} ({training.get("source", "not by eexit")}), \
{training.get("train_samples", "?")} samples
- Confidence classifiers: {", ".join(config["classifiers"]) or "none"}
- Licence: {licence or "not stated; the data's licence applies"}

## Use

```
eexit predict --model {name} "a text of yours"
eexit evaluate --model {name}
eexit calibrate --model {name} --delta 0.1
```
""",
        _made_by(training),
    ]
    if "validation" in training:
        parts.append(_layers(training, exits, depth))
    if training.get("classifiers"):
        parts.append(_classifiers(training["classifiers"]))
    parts.append(
        """## Intended use and limits

For research on early exit: its speed, its calibration, and attacks on it. The model was trained for
one task and writes something for any text, without saying that a text is out of its domain. A
confident early exit can be wrong, and inputs can be made to leave late on purpose (`eexit attack`).
"""
    )
    return "\n".join(parts)


def _header(name: str, config: Mapping[str, Any], backbone: str | None, licence: str | None) -> str:
    base = f"base_model: {backbone}\n" if backbone else ""
    return f"""---
library_name: eexit
license: {licence or "unknown"}
{base}datasets:
- {config.get("task")}
tags:
- early-exit
- multi-exit
- calm
---
"""


def _made_by(training: Mapping[str, Any]) -> str:
    commands = [training["command"]] if "command" in training else []
    commands += [entry["command"] for entry in training.get("classifiers", {}).values()]
    versions = {
        f"{program} {number}"
        for entry in (training, *training.get("classifiers", {}).values())
        for program, number in entry.get("versions", {}).items()
    }
    listed = "\n".join(dict.fromkeys(commands))
    return f"## Made by\n\n```\n{listed}\n```\n\n{', '.join(sorted(versions))}\n"


def _layers(training: Mapping[str, Any], exits: Mapping[str, Any], depth: int) -> str:
    values, metric = training["validation"], training["leading_metric"]
    rows = "\n".join(
        f"| {layer} | {values[f'{metric}_exit_{layer}']:.4f} |" for layer in range(1, depth + 1)
    )
    how = exits.get("provenance", {})
    share = 1 - values["mean_exit_layer"] / depth
    return f"""## Measured on validation data ({values["validation_samples"]} samples)

All tokens leaving at one layer:

| layer | {metric} |
|---|---|
{rows}

Default exit: **{exits["confidence"]} threshold {exact(exits["threshold"])}**, {metric} \
{values[metric]:.4f} against {values[f"{metric}_full"]:.4f}
of the full model, mean exit layer {values["mean_exit_layer"]:.2f} of {depth} \
({100 * share:.0f} % of the layers saved). Of the thresholds from
cautious to eager it is the {how.get("rule", "stored one")}. Since it was chosen on these data,
these figures flatter it slightly: test data were not touched.
"""


def _classifiers(classifiers: Mapping[str, Mapping[str, Any]]) -> str:
    depth = max(len(entry["auroc"]) for entry in classifiers.values())
    title = " | ".join(f"layer {layer}" for layer in range(1, depth + 1))
    rows = "\n".join(
        f"| {name} | {' | '.join(_written(value) for value in entry['auroc'])} |"
        for name, entry in classifiers.items()
    )
    samples = ", ".join(sorted({entry["data"] for entry in classifiers.values()}))
    return f"""## How well the classifiers rank

AUROC of "this layer says what the last one says" for the tokens of held-out samples ({samples});
0.5 is chance. The last layer agrees with itself.

| classifier | {title} |
|---|{"---|" * depth}
{rows}
"""


def _written(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
