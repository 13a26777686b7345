"""Where the computer waits for the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
VALUE, UNIQUE = aten._local_scalar_dense.default, aten.unique_consecutive.default
READS = (VALUE, aten.equal.default, aten.is_nonzero.default, UNIQUE)


class Waits:
    """Counts blocking copies between the CPU and the card, and reads of values.

    Values that are not there read as numbers between 0 and 1, each smaller than those before it, like sigmas.
    """

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._reads = 0

    def read(self, function: Any, args: Sequence[Any]) -> Any:
        """What one of READS gives."""
        if function is UNIQUE:
            self.counted["read"] += _on_card(args[0])
            return args[0].clone(), *(torch.empty(0, dtype=torch.int64, device=args[0].device) for _ in range(2))
        return self._value(function, args)

    def count(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """After an operation, whether it was a copy that blocks."""
        if function is aten._to_copy.default and not kwargs.get("non_blocking"):
            self._copied(args[0], out)
        if function is aten.copy_.default and not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking"):
            self._copied(args[1], args[0])

    def _value(self, function: Any, args: Sequence[Any]) -> Any:
        constant = getattr(args[0], "constant", None)
        if constant is not None and function is VALUE:
            return constant.item()
        self.counted["read"] += any(map(_on_card, args))
        self._reads += 1
        return args[0].dtype.is_floating_point and 1 / (1 + self._reads)

    def _copied(self, source: Tensor, target: Tensor) -> None:
        if _on_card(source) != _on_card(target):
            self.counted["to the CPU" if _on_card(source) else "to the card"] += 1


def _on_card(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.device.type not in ("cpu", "meta")
