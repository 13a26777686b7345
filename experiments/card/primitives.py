"""Operations as a card runs them."""

from __future__ import annotations

from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

FUSED = (torch.ops.aten.scaled_dot_product_attention,)  # one kernel on a card; torch would take it apart without one

FROM_NUMBERS = (torch.ops.aten.lift_fresh, torch.ops.aten.lift_fresh_copy)  # what torch.tensor ends with

CPU = torch.device("cpu")

with_values = _disable_current_modes  # tensors that are made within it on the CPU have values, as schedules need them


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


class Values(TorchDispatchMode):
    """Computes what is made of tensors `with_values` alone, as long as it stays on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = tensors and not any(isinstance(tensor, FakeTensor) or tensor.device != CPU for tensor in tensors)
        if not known or torch.device(kwargs.get("device") or CPU) != CPU or function.overloadpacket in FROM_NUMBERS:
            return function(*args, **kwargs)
        with with_values():
            return function(*args, **kwargs)
