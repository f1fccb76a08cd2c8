"""Int8 weights, activations quantised as they come (dynamic quantisation).

Weights are symmetric with a scale per output channel; the scale of activations is that of a whole
tensor, of all rows of a batch: in a batch, an int8 model's answer depends on its companions.

Two things are done otherwise, chosen on the 900 validation texts of the bundled ``deebert``. What
goes into a feed-forward layer's second product has a few large numbers, which leave the others few
steps: its activations and weights have a scale per block, and 95 % of the texts instead of 92 %
leave where they left in float32. Embeddings have a scale per token: a scale per table cost 2.6
points of that. Exits' heads are int8 too: in float32 the share was the same.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eexit_cli.models.onnx.export import Flat
from eexit_cli.models.onnx.nesting import ROWS
from eexit_cli.models.onnx.runtime import package

BLOCK = 64
"""Numbers that share a scale in a product by blocks."""

LARGEST = 127

_VNNI = {"avx512_vnni", "avx_vnni"}
_X86 = ("x86_64", "AMD64", "i386", "i686")


def needs_reduced_range() -> bool:
    """Would products of 8-bit numbers overflow here? x86 processors without VNNI add pairs of them
    in 16 bits.

    Where nothing tells of VNNI (no Linux), True: it is right everywhere and costs one bit.
    """
    if platform.machine() not in _X86:
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _VNNI & set(flags.split())


def quantised(flat: Flat, *, reduce_range: bool | None = None) -> tuple[Flat, dict[str, Any]]:
    """The int8 twin of a flat graph, its outputs under the same names.

    Args:
        flat: float32.
        reduce_range: 7 bits per weight, and no products by blocks; None asks this processor, see
            :func:`needs_reduced_range`.

    Returns:
        The graph, and how it was made, for the file's entries.
    """
    import onnx

    package("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if reduce_range is None:
        reduce_range = needs_reduced_range()
    apart = [] if reduce_range else _narrowing(flat.model.graph)
    with tempfile.TemporaryDirectory(prefix="eexit-") as folder:
        path = Path(folder) / "model.onnx"
        # It recommends, through the root logger, a preparation that is not needed here.
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                flat.model,
                path,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=apart,
                per_channel=True,
                reduce_range=reduce_range,
                extra_options={"WeightSymmetric": True},
            )
        finally:
            logging.disable(before)
        model = onnx.load(path)
    _replace(model, set(apart))
    how = {"reduce_range": reduce_range, "block": BLOCK if apart else None}
    return dataclasses.replace(flat, model=model), how


def _narrowing(graph: Any) -> list[str]:
    """Products that make fewer numbers than they read."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    products = (node for node in graph.node if node.op_type == "MatMul")
    return [
        node.name
        for node in products
        if len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] > shape[1]
    ]


def _replace(model: Any, apart: set[str]) -> None:
    """These products by blocks, and every table of embeddings by rows, in place."""
    import onnx

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tables = _tables(graph.node, weights)
    nodes: list[Any] = []
    made: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name in apart:
            nodes.append(_by_blocks(node, weights[node.input[1]], made))
        elif node.op_type == "Gather" and node.input[0] in tables:
            nodes += _by_rows(node, weights[node.input[0]], made)
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    read = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *made.values()])
    if apart and not any(one.domain == "com.microsoft" for one in model.opset_import):
        model.opset_import.add(domain="com.microsoft", version=1)


def _tables(nodes: Iterable[Any], weights: Mapping[str, Any]) -> set[str]:
    """Embeddings; not those with a few rows, of positions and segments, which int8 only slows."""
    read = {node.input[0] for node in nodes if node.op_type == "Gather"}
    found = [one for name, one in weights.items() if name in read and len(one.dims) == 2]
    rows = {one.name: one.dims[0] for one in found if one.data_type == one.FLOAT}
    return {name for name, count in rows.items() if count >= max(rows.values()) / 10}


def _steps(values: Any, axis: int) -> tuple[Any, Any]:
    """Whole numbers within +-127 along an axis, and the size of a step."""
    import numpy as np

    scales = np.abs(values).max(axis=axis, keepdims=True) / LARGEST
    scales[scales == 0] = 1
    return np.round(values / scales), scales.astype(np.float32)


def _by_rows(node: Any, tensor: Any, made: dict[str, Any]) -> list[Any]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    table, scales, out = f"{tensor.name}_rows", f"{tensor.name}_scales", node.output[0]
    if table not in made:
        steps, sizes = _steps(numpy_helper.to_array(tensor), 1)
        made[table] = numpy_helper.from_array(steps.astype(np.int8), table)
        made[scales] = numpy_helper.from_array(sizes, scales)
    return [
        helper.make_node("Gather", [table, node.input[1]], [f"{out}{ROWS}"]),
        helper.make_node("Gather", [scales, node.input[1]], [f"{out}_scales"]),
        helper.make_node("Cast", [f"{out}{ROWS}"], [f"{out}_steps"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_steps", f"{out}_scales"], [out]),
    ]


def _by_blocks(node: Any, tensor: Any, made: dict[str, Any]) -> Any:
    """ONNX Runtime's own product: activations have a scale per block as well."""
    import numpy as np
    from onnx import helper, numpy_helper

    packed, scales = f"{tensor.name}_blocks", f"{tensor.name}_scales"
    rows, columns = tensor.dims
    if packed not in made:
        values = np.pad(numpy_helper.to_array(tensor), ((0, -rows % BLOCK), (0, 0)))
        # Shape: [columns, blocks, BLOCK]
        steps, sizes = _steps(values.T.reshape(columns, -1, BLOCK), 2)
        made[packed] = numpy_helper.from_array((steps + 128).astype(np.uint8), packed)
        made[scales] = numpy_helper.from_array(sizes.reshape(-1), scales)
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], packed, scales],
        list(node.output),
        domain="com.microsoft",
        K=rows,
        N=columns,
        bits=8,
        block_size=BLOCK,
        accuracy_level=4,
    )
