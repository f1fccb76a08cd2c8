"""A model's weights as decoding reads them, made once per model and state."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

Made = TypeVar("Made")

_MADE: weakref.WeakKeyDictionary[nn.Module, dict[bool, tuple[tuple[object, ...], Any]]]
_MADE = weakref.WeakKeyDictionary()


def rearranged(model: nn.Module, make: Callable[..., Made], *, pack: bool = True) -> Made:
    """What ``make`` makes of the model, again only when a parameter has changed, or what
    ``weights`` says of them.

    Args:
        model: not referenced by the result's cache, so that it can be freed, copied and pickled.
        make: called with the model and ``pack``.
        pack: False keeps the plain products.
    """
    key = (getattr(model, "weights", None), *_fingerprint(model))
    made = _MADE.setdefault(model, {})
    if pack not in made or made[pack][0] != key:
        # Normal tensors, not inference ones, so that they outlive this call's mode.
        with torch.inference_mode(False), torch.no_grad():
            made[pack] = (key, make(model, pack=pack))
    found: Made = made[pack][1]
    return found


def _fingerprint(model: nn.Module) -> Iterator[object]:
    # Module.parameters() makes a name for each, which costs a short output a tenth of its time.
    waiting = [model]
    while waiting:
        module = waiting.pop()
        for parameter in module._parameters.values():
            if parameter is not None:
                yield parameter.data_ptr()
                yield parameter.dtype
                yield 0 if parameter.is_inference() else parameter._version
        waiting.extend(each for each in module._modules.values() if each is not None)
