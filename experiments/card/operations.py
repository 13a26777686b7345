"""Operations as a card runs them, each seen once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from experiments.card.memory import CardMemory
from experiments.card.rules import check
from experiments.card.waits import READS, Waits

FUSED = (torch.ops.aten.scaled_dot_product_attention,)  # one kernel on a card; torch would take it apart without one

FROM_NUMBERS = (torch.ops.aten.lift_fresh, torch.ops.aten.lift_fresh_copy)  # what torch.tensor ends with

CPU = torch.device("cpu")

with_values = _disable_current_modes  # tensors that are made within it on the CPU have values, as schedules need them


class Operations(TorchDispatchMode):
    """Takes composite operations apart, and has each part checked and counted. Quantised tensors are seen by their contents.

    All this is one mode, since each mode that torch calls takes a good part of a fake operation's own time.
    """

    def __init__(self, memory: CardMemory, waits: Waits) -> None:
        super().__init__()
        self.memory, self.waits = memory, waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        tensors = [*_tensors((*args, *kwargs.values()))]
        if _have_values(function, tensors, kwargs):
            with with_values():
                return function(*args, **kwargs)
        if any(issubclass(kind, QuantizedTensor) for kind in types):
            return NotImplemented  # it comes again, with the tensors inside
        if kwargs.get("device", CPU) != CPU:
            _forget_values(args)
        if _is_composite(function):
            with self:
                out = function.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return self._run(function, args, kwargs, tensors)

    def _run(self, function: Any, args: tuple, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        if function in READS:
            return self.waits.read(function, args)
        check(function, tensors)
        out = function(*args, **kwargs)
        self.memory.count(function, args, _tensors([out]))
        self.waits.count(function, args, kwargs, out)
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among values, lists and tuples of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@cache
def _is_composite(function: Any) -> bool:
    return function.namespace == "aten" and function.overloadpacket not in FUSED and function._can_decompose()


def _have_values(function: Any, tensors: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether all that an operation takes was made `with_values`, and what it makes stays on the CPU."""
    if not tensors or any(isinstance(tensor, FakeTensor) or tensor.device != CPU for tensor in tensors):
        return False
    return torch.device(kwargs.get("device") or CPU) == CPU and function.overloadpacket not in FROM_NUMBERS


def _forget_values(args: tuple) -> None:
    """Fake tensors remember the values of small constants, and would compute with them on the real card."""
    for argument in args:
        if getattr(argument, "constant", None) is not None:
            argument.constant = None
