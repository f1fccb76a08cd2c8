"""The folder that is deployed: ``model.onnx``, its tokenizer, and ten lines that run them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eexit_cli import __version__
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.folders import whole_folder
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.published import EXPORTED_FILE
from eexit_cli.models.checkpoints import CONFIG_FILE
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx.about import AGAIN, FLOAT32, INT8, About
from eexit_cli.models.onnx.export import KNOBS, flat_graph
from eexit_cli.models.onnx.nesting import nest
from eexit_cli.models.onnx.quantise import quantised
from eexit_cli.models.onnx.runtime import session
from eexit_cli.models.onnx.sessions import OnnxClassifier

TOKENIZER_FILE = "tokenizer.json"
WEIGHTS = (FLOAT32, INT8)

PROGRAM = """\
import json, sys
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(int(about["eexit.max_tokens"]))
text = tokenizer.encode(*sys.argv[1:])  # one text, or the two of a pair
given = {"input_ids": text.ids, "attention_mask": text.attention_mask}
given["token_type_ids"] = text.type_ids
asked = [value.name for value in session.get_inputs()]
feed = {name: np.array([given[name]], dtype=np.int64) for name in asked}
logits, exit_layer = session.run(["logits", "exit_layer"], feed)
classes = json.loads(about["eexit.classes"])
answer = classes[logits[0].argmax()] if classes else float(logits[0, 0])
print(json.dumps({"answer": answer, "exit_layer": int(exit_layer[0])}))
"""
"""Runs in the folder, on ``onnxruntime`` and ``tokenizers`` alone."""


def deployed_model(
    model: MultiExitClassifier,
    criterion: ExitCriterion | None,
    *,
    weights: str = FLOAT32,
    provenance: Mapping[str, Any] | None = None,
    reduce_range: bool | None = None,
) -> tuple[Any, About]:
    """The file's content.

    Args:
        model: float32, on the CPU.
        criterion: the rule; None is the full model.
        weights: ``float32`` or ``int8``.
        provenance: where the rule's setting comes from, as JSON: ``{"from": "model's default"}``,
            or a calibration's run, delta and epsilon.
        reduce_range: see :func:`~eexit_cli.models.onnx.quantise.quantised`.

    Returns:
        An ``onnx.ModelProto`` with its entries, and these.

    Raises:
        UsageError: other weights than these, or as :func:`flat_graph`.
        EexitError: as :func:`flat_graph`.
    """
    if weights not in WEIGHTS:
        raise UsageError(f"Unknown weights '{weights}'", hint=f"Available: {', '.join(WEIGHTS)}")
    flat = flat_graph(model, criterion)
    how: dict[str, Any] = {}
    if weights == INT8:
        flat, how = quantised(flat, reduce_range=reduce_range)
    default = None
    if flat.knob is not None:
        import torch

        default = torch.tensor(getattr(criterion, flat.knob), dtype=KNOBS[flat.knob]).numpy()
    whole = nest(flat, default)
    names = model.config.id2label if model.num_classes > 1 else {}
    about = About(
        config=json.loads(model.config.to_json_string()),
        layers=flat.layers,
        classes=tuple(names[at] for at in sorted(names)),
        max_tokens=model.max_tokens,
        rule={},
        knob=flat.knob,
        provenance={},
        weights=weights,
        quantisation=how,
    )
    return _finished(whole, about, criterion, provenance)


def turned_model(
    file: OnnxClassifier,
    criterion: ExitCriterion | None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Any, About]:
    """A deployed file with another number for its rule, which is the default from then on.

    Args:
        file: the deployed file, which stays as it is.
        criterion: the file's rule with that number.
        provenance: where it comes from, see :func:`deployed_model`.

    Returns:
        As :func:`deployed_model`.

    Raises:
        UsageError: another rule than the file's, or the number that it has.
        EexitError: the file is damaged.
    """
    import onnx
    import torch

    about, rule = file.about, rule_of(criterion)
    if rule == about.rule:
        raise UsageError(
            f"The file has this exit already: {rule_words(rule)}",
            hint="Copy its folder, or give another --threshold or --patience",
        )
    if about.knob is None or not about.reads(rule):
        only = "" if about.knob is None else f", of which only the {about.knob} can be set anew"
        raise UsageError(
            f"The file holds one exit, {rule_words(about.rule)}{only}",
            hint="Export the model that it was exported from",
        )
    whole = onnx.ModelProto.FromString(file.graph.SerializeToString())
    value = next((one for one in whole.graph.initializer if one.name == about.knob), None)
    if value is None:
        raise EexitError(f"The file is damaged: its {about.knob} has no default", hint=AGAIN)
    number = torch.tensor(getattr(criterion, about.knob), dtype=KNOBS[about.knob]).numpy()
    value.CopyFrom(onnx.numpy_helper.from_array(number, about.knob))
    return _finished(whole, about, criterion, provenance)


def _finished(
    whole: Any,
    about: About,
    criterion: ExitCriterion | None,
    provenance: Mapping[str, Any] | None,
) -> tuple[Any, About]:
    """With its rule among its entries, and tried."""
    rule, told = rule_of(criterion), dict(provenance or {})
    default = {} if criterion is None else {**rule, "provenance": told}
    about = dataclasses.replace(
        about,
        config={**about.config, "exit_defaults": default},
        rule=rule,
        provenance=told,
        version=__version__,
    )
    about.write(whole)
    session(whole, "the finished graph")
    return whole, about


def write_deployment(
    model: MultiExitClassifier | OnnxClassifier,
    tokenizer: Any,
    criterion: ExitCriterion | None,
    folder: Path,
    *,
    weights: str = FLOAT32,
    provenance: Mapping[str, Any] | None = None,
    reduce_range: bool | None = None,
    name: str = "The model",
) -> About:
    """Write ``model.onnx``, ``config.json``, the tokenizer's files and a ``README.md``.

    The folder appears whole or not at all. ``config.json`` is the model's with ``runtime`` and
    ``weights``, and with the deployed rule as the default exit.

    Args:
        model, criterion, weights, provenance, reduce_range: see :func:`deployed_model`; of a
            deployed file, whose weights stay, see :func:`turned_model`.
        tokenizer: the model's, a fast one.
        folder: must not be there yet, or be empty.
        name: of the model, for the README.

    Raises:
        UsageError: something is in the folder already, or the tokenizer is not a fast one; as
            :func:`deployed_model`.
        EexitError: as :func:`deployed_model`.
        OSError: the folder cannot be written.
    """
    check_free(folder)
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"{type(tokenizer).__name__} is not a fast tokenizer",
            hint="Save the fast one beside the model: a tokenizer.json in its folder",
        )
    if isinstance(model, OnnxClassifier):
        graph, about = turned_model(model, criterion, provenance)
    else:
        graph, about = deployed_model(
            model, criterion, weights=weights, provenance=provenance, reduce_range=reduce_range
        )
    content = graph.SerializeToString()
    with whole_folder(folder) as made:
        tokenizer.save_pretrained(made)
        (made / EXPORTED_FILE).write_bytes(content)
        settings = json.dumps(_config(about), indent=2, sort_keys=True) + "\n"
        (made / CONFIG_FILE).write_text(settings, encoding="utf-8")
        readme = deployed_readme(name, about, len(content))
        (made / "README.md").write_text(readme, encoding="utf-8")
    return about


def check_free(folder: Path) -> None:
    """Can a folder be made here?

    Raises:
        UsageError: there is something already, or its parent cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already", hint="Choose another --output")
    if folder.resolve() == Path.cwd():
        raise UsageError("The present folder cannot be replaced", hint="Choose another --output")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}", hint="Choose another --output"
        ) from error


def _config(about: About) -> dict[str, Any]:
    return {
        **about.config,
        "runtime": "onnx",
        "weights": about.weights,
        "exits": about.layers,
    }


def rule_of(criterion: ExitCriterion | None) -> dict[str, Any]:
    """As a criterion describes itself; None is the full model."""
    return {"criterion": "full"} if criterion is None else criterion.describe()


def rule_words(rule: Mapping[str, Any]) -> str:
    """A rule, as a person reads it."""
    return ", ".join(f"{key} {value}" for key, value in rule.items())


def deployed_readme(name: str, about: About, size: int) -> str:
    """The folder's ``README.md``.

    Args:
        name: of the model.
        about: what the file says of itself.
        size: bytes of the file.
    """
    rule = rule_words(about.rule)
    origin = ", ".join(f"{key} {value}" for key, value in about.provenance.items()) or "not stated"
    reduced = ", 7 bits of them used" if about.quantisation.get("reduce_range") else ""
    knob = ""
    if about.knob is not None:
        kind = "float32" if about.knob == "threshold" else "int64"
        knob = (
            f"\nThe optional input `{about.knob}` ({kind}, a scalar) turns the rule; its default "
            f"is {about.rule[about.knob]}.\n"
        )
    return f"""\
# {name}, deployed

`{EXPORTED_FILE}` ({size / 1e6:.1f} MB) is a classifier of {about.layers} layers that leaves early,
in one ONNX file: layers behind the exit are not run. It takes one text at a time and gives
`logits` [1, classes] and `exit_layer` [1].

- Exit: {rule}
- Its setting: {origin}
- Weights: {about.weights}{reduced}
- Classes: {", ".join(about.classes) or "none, one number"}
- Longest input: {about.max_tokens} tokens
- Written by eexit {about.version}
{knob}
    pip install onnxruntime tokenizers

Save this as `classify.py` in this folder and run `python classify.py "a text"`:

```python
{PROGRAM}```
"""
