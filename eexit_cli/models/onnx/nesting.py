"""A flat graph's layers, each in the else-branch of the exit before it; and the way back.

Whatever needs layer i + 1 lies behind ``If(leave_i)``, so that a runtime that takes the other
branch does not run it. An initialiser lies in the outermost branch that reads it: with all of them
outside, ONNX Runtime took a quarter longer (bundled ``deebert``, float32).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import EexitError
from eexit_cli.models.onnx.about import AGAIN, graphs_within
from eexit_cli.models.onnx.export import Flat

_IDS = "input_ids"

ROWS = "_rows"
"""Behind the name of a value, that of the 8-bit numbers that it is made of."""

WRAPPING = "exit/"
"""How the names begin of nodes that only the nested form has."""


def answer_of(layer: int, names: Iterable[str]) -> str:
    """The value that a layer answers with: its logits, or what the criterion made of them."""
    answer = f"answer_{layer}"
    return answer if answer in names else f"logits_{layer}"


def levels_of(flat: Flat) -> list[list[Any]]:
    """Each node at the first layer whose logits or leave condition need it, in the graph's order.

    Nodes that nobody's logits need are left out.
    """
    graph = flat.model.graph
    places = {name: at for at, node in enumerate(graph.node) for name in node.output}
    taken: dict[int, int] = {}
    for layer in range(1, flat.layers + 1):
        targets = [f"logits_{layer}", answer_of(layer, places)]
        targets += [f"leave_{layer}"] if f"leave_{layer}" in places else []
        for at in ancestors(graph.node, places, targets):
            taken.setdefault(at, layer)
    levels: list[list[Any]] = [[] for _ in range(flat.layers)]
    for at in sorted(taken):
        levels[taken[at] - 1].append(graph.node[at])
    return levels


def ancestors(
    nodes: Sequence[Any], places: dict[str, int], targets: Iterable[str], given: Iterable[str] = ()
) -> set[int]:
    """Places of the nodes that make the targets, when ``given`` are there already."""
    known, found, waiting = set(given), set[int](), list(targets)
    while waiting:
        name = waiting.pop()
        at = places.get(name)
        if name in known or at is None or at in found:
            continue
        found.add(at)
        waiting += nodes[at].input
    return found


def nest(flat: Flat, default: Any = None) -> Any:
    """One file: ``logits`` and ``exit_layer`` of one input, layers behind the exit not run.

    Args:
        flat: see :func:`eexit_cli.models.onnx.export.flat_graph`.
        default: the knob's, in its type.

    Returns:
        An ``onnx.ModelProto`` whose inputs are the flat graph's for one row, the knob among them
        with its default; ``logits`` has Shape [1, classes], ``exit_layer`` Shape [1], int64.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = flat.model.graph
    made = {name for node in graph.node for name in node.output}
    classes = _width(graph, flat.layers)

    def outputs(logits: str, layer: str) -> list[Any]:
        return [
            helper.make_tensor_value_info(logits, TensorProto.FLOAT, [1, classes]),
            helper.make_tensor_value_info(layer, TensorProto.INT64, [1]),
        ]

    def leaving(layer: int, logits: str, number: str) -> list[Any]:
        value = numpy_helper.from_array(np.array([layer]), f"{number}/value")
        answer = answer_of(layer, made)
        return [
            helper.make_node("Identity", [answer], [logits], name=f"{WRAPPING}answer_{layer}"),
            helper.make_node(
                "Constant", [], [number], name=f"{WRAPPING}number_{layer}", value=value
            ),
        ]

    levels = levels_of(flat)
    # From the last layer outwards: the branches of each exit hold what is within.
    names = _result_names(flat.layers, flat.layers)
    inner = [*levels[-1], *leaving(flat.layers, *names)]
    for layer in range(flat.layers - 1, 0, -1):
        if f"leave_{layer}" not in made:
            inner = [*levels[layer - 1], *inner]
            continue
        here = (f"{WRAPPING}left_{layer}/logits", f"{WRAPPING}left_{layer}/layer")
        leave = helper.make_graph(leaving(layer, *here), f"leave_{layer}", [], outputs(*here))
        go_on = helper.make_graph(inner, f"layer_{layer + 1}", [], outputs(*names))
        names = _result_names(layer, flat.layers)
        branch = helper.make_node(
            "If",
            [f"leave_{layer}"],
            list(names),
            name=f"{WRAPPING}if_{layer}",
            then_branch=leave,
            else_branch=go_on,
        )
        inner = [*levels[layer - 1], branch]
    inner += [
        helper.make_node("Identity", [found], [name], name=f"{WRAPPING}{name}")
        for found, name in zip(names, ("logits", "exit_layer"), strict=True)
    ]
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in graph.input]
    for value in inputs:
        if value.name != flat.knob:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    whole = helper.make_graph(inner, "eexit", inputs, outputs("logits", "exit_layer"))
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for branch in graphs_within(whole):
        read = dict.fromkeys(name for node in branch.node for name in node.input)
        branch.initializer.extend(weights.pop(name) for name in read if name in weights)
    if flat.knob is not None:
        whole.initializer.append(numpy_helper.from_array(default, flat.knob))
    return helper.make_model(
        whole, opset_imports=flat.model.opset_import, ir_version=flat.model.ir_version
    )


def _result_names(layer: int, layers: int) -> tuple[str, str]:
    return f"{WRAPPING}from_{layer}/logits", f"{WRAPPING}from_{layer}/layer"


def _width(graph: Any, layers: int) -> int:
    value = next(value for value in graph.output if value.name == f"logits_{layers}")
    return int(value.type.tensor_type.shape.dim[1].dim_value)


@dataclass(frozen=True)
class Layers:
    """A nested graph taken apart again.

    Attributes:
        model: the ``onnx.ModelProto`` that it was.
        nodes: of all layers, in order.
        weights: the initialisers of all branches.
    """

    model: Any
    nodes: list[Any]
    weights: list[Any]

    @classmethod
    def of(cls, model: Any, layers: int, path: Path) -> Layers:
        """Take it apart.

        Raises:
            EexitError: the graph has not the values that it must have.
        """
        nodes = list(_unwrapped(model.graph))
        made = {name for node in nodes for name in node.output}
        for layer in range(1, layers + 1):
            for name in (f"hidden_{layer}", f"logits_{layer}"):
                if name not in made:
                    raise EexitError(f"{path} is damaged: its graph has no {name}", hint=AGAIN)
        weights = [one for graph in graphs_within(model.graph) for one in graph.initializer]
        return cls(model, nodes, weights)

    @property
    def looked_up(self) -> str | None:
        """The value that holds the inputs' word embeddings, Shape: [rows, tokens, embedding]."""
        found = next((n for n in self.nodes if n.op_type == "Gather" and n.input[1] == _IDS), None)
        if found is None:
            return None
        return str(found.output[0]).removesuffix(ROWS)

    def piece(self, targets: Sequence[str], given: Sequence[str] = ()) -> Any:
        """What makes the targets of the file's inputs and of the values that are given.

        Rows and tokens are free. What follows from the inputs alone is made anew, so that it
        fits when rows were dropped.

        Args:
            targets: names of values, the outputs of the piece.
            given: names of hidden states, Shape: [rows, tokens, hidden], float32.

        Returns:
            An ``onnx.ModelProto``.
        """
        import onnx
        from onnx import TensorProto, helper

        places = {name: at for at, node in enumerate(self.nodes) for name in node.output}
        chosen = [self.nodes[at] for at in sorted(ancestors(self.nodes, places, targets, given))]
        used = {name for node in chosen for name in node.input}
        inputs = []
        for value in self.model.graph.input:
            if value.name in used:
                free = onnx.ValueInfoProto.FromString(value.SerializeToString())
                dims = free.type.tensor_type.shape.dim
                if len(dims):
                    dims[0].dim_param = "batch"
                inputs.append(free)
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", None])
            for name in given
        ]
        weights = [tensor for tensor in self.weights if tensor.name in used]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in targets]
        graph = helper.make_graph(chosen, "eexit", inputs, outputs, weights)
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )


def _unwrapped(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        if node.op_type == "If" and node.name.startswith(WRAPPING):
            yield from _unwrapped(next(a.g for a in node.attribute if a.name == "else_branch"))
        elif not node.name.startswith(WRAPPING):
            yield node
