"""What a deployed file says of itself, in the ``metadata_props`` of its ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eexit_cli import __version__
from eexit_cli.core.errors import EexitError, MissingArtifactError
from eexit_cli.models.onnx.runtime import package

FORMAT = 1
"""Of the graph's names and of these entries; a file with a larger number is refused."""

PREFIX = "eexit."
FLOAT32, INT8 = "float32", "int8"
AGAIN = "Copy the file again, or write it anew with eexit"


@dataclass(frozen=True)
class About:
    """Everything that is known of a deployed model beside its weights.

    Attributes:
        config: its ``config.json``.
        layers: exits in the file; fewer than the model's with a fixed exit.
        classes: their names, in order; empty for regression.
        max_tokens: the longest input, special tokens included.
        rule: the exit criterion, as it describes itself; ``{"criterion": "full"}`` is none.
        knob: the graph's optional input that turns the rule; None where it has none.
        provenance: where the rule's setting comes from.
        weights: ``float32`` or ``int8``.
        quantisation: how, for int8.
        version: of eexit, that wrote it.
    """

    config: dict[str, Any]
    layers: int
    classes: tuple[str, ...]
    max_tokens: int
    rule: dict[str, Any]
    knob: str | None
    provenance: dict[str, Any]
    weights: str = FLOAT32
    quantisation: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    def write(self, model: Any) -> None:
        """Put it into an ``onnx.ModelProto``, in place of what was there."""
        entries: dict[str, Any] = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "family": self.config["family"],
            "backbone": self.config["backbone"]["model_type"],
        }
        del model.metadata_props[:]
        for name, value in entries.items():
            entry = model.metadata_props.add()
            entry.key = PREFIX + name
            entry.value = value if name in _TEXTS else json.dumps(value)
        model.producer_name, model.producer_version = "eexit", self.version

    @classmethod
    def read(cls, model: Any, path: Path) -> About:
        """Of a file's graph.

        Raises:
            EexitError: the file is not one of eexit's, damaged, or of a newer format.
        """
        entries = {entry.key: entry.value for entry in model.metadata_props}
        outputs = {output.name for output in model.graph.output}
        if PREFIX + "format" not in entries or not {"logits", "exit_layer"} <= outputs:
            raise EexitError(
                f"{path} is an ONNX file, but not one with exits that eexit wrote",
                hint="It has no exit_layer output or no entries of eexit's",
            )
        try:
            found = int(entries[PREFIX + "format"])
            if found > FORMAT:
                raise EexitError(
                    f"{path} has format {found}, this eexit reads up to {FORMAT}",
                    hint="pip install --upgrade eexit",
                )
            text = {name: entries[PREFIX + name] for name in cls.__dataclass_fields__}
            values: dict[str, Any] = {
                name: value if name in _TEXTS else json.loads(value) for name, value in text.items()
            }
            _check_kinds(values)
        except (KeyError, ValueError) as error:
            raise EexitError(f"{path} is damaged: {error} in its entries", hint=AGAIN) from error
        return cls(**{**values, "classes": tuple(values["classes"])})

    def reads(self, criterion: Mapping[str, Any]) -> bool:
        """Is this description of a criterion the file's rule, whatever the knob's value?"""
        other = {k: v for k, v in criterion.items() if k != self.knob}
        return other == {k: v for k, v in self.rule.items() if k != self.knob}


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Raises a ValueError for a value of another kind than it must have."""
    kinds: dict[str, type] = {
        "config": dict,
        "rule": dict,
        "provenance": dict,
        "quantisation": dict,
    }
    kinds |= {"layers": int, "max_tokens": int, "classes": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(values[name], kind)]
    config = values["config"]
    if wrong or "criterion" not in values["rule"]:
        raise ValueError(", ".join(wrong) or "rule")
    if not isinstance(config.get("family"), str) or not isinstance(config.get("backbone"), dict):
        raise ValueError("config")


_TEXTS = ("weights", "version", "family", "backbone")


def graphs_within(graph: Any) -> Iterator[Any]:
    """The graph and all branches of its nodes, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_within(attribute.g)


def read_file(path: Path) -> tuple[Any, About]:
    """A deployed file: its ``onnx.ModelProto`` and what it says of itself.

    Raises:
        MissingArtifactError: there is no such file.
        EexitError: it is damaged, foreign or of a newer format, or a part of it is missing.
    """
    onnx = package("onnx")
    if not path.is_file():
        raise MissingArtifactError(f"No file {path}", hint="Check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has a different home in each release
        raise EexitError(f"{path} is damaged, or no ONNX file", hint=AGAIN) from error
    about = About.read(model, path)
    for tensor in (one for graph in graphs_within(model.graph) for one in graph.initializer):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            beside = next((e.value for e in tensor.external_data if e.key == "location"), "?")
            raise EexitError(
                f"{path} keeps its weights elsewhere, in {beside}; eexit writes whole files",
                hint=AGAIN,
            )
    return model, about
