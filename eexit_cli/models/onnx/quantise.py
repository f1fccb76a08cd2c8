"""Int8 weights, activations quantised as they come (dynamic quantisation).

Weights are symmetric with a scale per output channel; the scale of activations is that of a whole
tensor, of all rows of a batch: in a batch, an int8 model's answer depends on its companions.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import tempfile
from pathlib import Path
from typing import Any

from eexit_cli.models.onnx.export import Flat
from eexit_cli.models.onnx.runtime import package

OPERATORS = ("MatMul", "Gather")
"""The layers' products and the embeddings; exits' heads, a product of one row, stay float32."""

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
        reduce_range: 7 bits per weight; None asks this processor, see
            :func:`needs_reduced_range`.

    Returns:
        The graph, and how it was made, for the file's entries.
    """
    import onnx

    package("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if reduce_range is None:
        reduce_range = needs_reduced_range()
    settings: dict[str, Any] = {"per_channel": True, "reduce_range": reduce_range}
    with tempfile.TemporaryDirectory(prefix="eexit-") as folder:
        path = Path(folder) / "model.onnx"
        # It recommends, through the root logger, a preparation that is not needed here.
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                flat.model,
                path,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(OPERATORS),
                extra_options={"WeightSymmetric": True},
                **settings,
            )
        finally:
            logging.disable(logging.NOTSET)
        model = onnx.load(path)
    return dataclasses.replace(flat, model=model), {**settings, "operators": list(OPERATORS)}
