"""What published checkpoints come with, where their files do not say it in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch's wrappers of a model, or of a part, add to tensors' names; nothing else does."""

EXPORTED_FILE = "model.onnx"
"""The weights of an exported model; beside others' weights it is another project's copy of them."""

DEEBERT_EXIT = {"criterion": "threshold", "confidence": "entropy", "threshold": 0.19}
"""The setting that the SAME authors publish for ``mattymchen/deebert-base-sst2``."""

PABEE_EXIT: dict[str, Any] = {"criterion": "patience", "patience": 4}
"""The setting that the SAME authors publish for ``mattymchen/pabee-bert-base-sst2``."""

PUBLISHED_CLASSIFIERS = {
    # exit_conf_type in DL2-CALM's config.json; "meta" is FREE's
    "vanilla_classifier": "linear",
    "MLP": "mlp",
    "meta": "mlp",
    "transformer_linear_64": "transformer_linear_64",
    "transformer_linear_512": "transformer_linear_512",
    "transformer_MLP_64": "transformer_mlp_64",
    "transformer_MLP_512": "transformer_mlp_512",
}


def encoder_exit(family: str, *, layers: int, num_labels: int) -> dict[str, Any]:
    """The default exit of a converted classifier; empty is the full model.

    Args:
        family: deebert or pabee.
        layers: L.
        num_labels: K; 1 is regression.
    """
    if family == "pabee":
        # A patience of L is the full model; beyond it there is nothing to count.
        return {**PABEE_EXIT, "patience": min(PABEE_EXIT["patience"], layers)}
    # One logit's entropy is always 0: no threshold exists.
    return {} if num_labels == 1 else dict(DEEBERT_EXIT)


def decoder_exit(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The exit that a published ``config.json`` asks for, in the names of our options."""
    if raw.get("static_exit_layer"):
        return {"static_layer": int(raw["static_exit_layer"])}
    shallow = bool(raw.get("use_shallow_deep"))
    kind = raw.get("shallow2deep_conf_type") if shallow else raw.get("exit_conf_type")
    if kind is None:
        return {}
    threshold = raw.get("shallow2deep_conf_threshold" if shallow else "exit_conf_threshold")
    settings: dict[str, Any] = {
        "confidence": PUBLISHED_CLASSIFIERS.get(kind, kind),
        "threshold": float(1.0 if threshold is None else threshold),
    }
    optional = (
        {"shallow_layer": "shallow_exit_layer", "adaptive_threshold": "use_adapt_threshold"}
        if shallow
        else {
            "min_layer": "exit_min_layer",
            "decay_temperature": "exit_position_temp",
            "top_k_propagation": "top_propagation",
        }
    )
    settings |= {ours: raw[theirs] for ours, theirs in optional.items() if raw.get(theirs)}
    if "decay_temperature" in settings:
        settings["decay"] = "code"
    return settings
