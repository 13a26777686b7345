"""Operations as a card runs them."""

from __future__ import annotations

from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch.utils._python_dispatch import TorchDispatchMode

FUSED = (torch.ops.aten.scaled_dot_product_attention,)  # one kernel on a card; torch would take it apart without one

CPU = torch.device("cpu")


class Primitives(TorchDispatchMode):
    """Hands the parts of composite operations and quantised tensors on, which other modes would only see as a whole."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        if any(issubclass(kind, QuantizedTensor) for kind in types):
            return NotImplemented  # it comes again, with the tensors inside
        kwargs = kwargs or {}
        if kwargs.get("device", CPU) != CPU:
            _forget_values(args)
        if function.namespace == "aten" and function.overloadpacket not in FUSED and function._can_decompose():
            with self:
                out = function.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return function(*args, **kwargs)


def _forget_values(args: tuple) -> None:
    """Fake tensors remember the values of small constants, and would compute with them on the real card."""
    for argument in args:
        if getattr(argument, "constant", None) is not None:
            argument.constant = None
