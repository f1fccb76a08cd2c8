"""The two packages of ``eexit[onnx]``, imported on first use, and sessions made of graphs."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from eexit_cli.core.errors import EexitError

OLDEST = {"onnx": (1, 17), "onnxruntime": (1, 22)}
"""The oldest releases that were tried; those before 1.22 have no products by blocks of 8 bits."""

INSTALL = "pip install 'eexit[onnx]'"


def package(name: str) -> Any:
    """``onnx`` or ``onnxruntime``.

    Raises:
        EexitError: it is not installed, does not load, or is too old.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise EexitError(f"This needs the package {name}: {error}", hint=INSTALL) from error
    version = getattr(module, "__version__", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST[name]:
        least = ".".join(map(str, OLDEST[name]))
        raise EexitError(
            f"{name} {version} is too old, {least} is the oldest that will do",
            hint=f"{INSTALL} --upgrade",
        )
    return module


def session(model: Any, what: str) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU, with as many threads as torch has.

    Threads do not spin: a waiting session would take the processor from the one that works.

    Args:
        model: an ``onnx.ModelProto``.
        what: it is, for the error.

    Raises:
        EexitError: the runtime does not take the graph.
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's own classes have no common base below this
        raise _refused(error, what, runtime.__version__) from error


def _refused(error: Exception, what: str, version: str) -> EexitError:
    reason = str(error).strip().splitlines()[0]
    if "opset" in reason.lower() or "ir version" in reason.lower():
        return EexitError(
            f"{what} is written for a newer ONNX Runtime than {version}",
            hint="pip install --upgrade onnxruntime",
        )
    return EexitError(
        f"ONNX Runtime {version} refuses {what}: {reason}", hint="Write the file anew"
    )
