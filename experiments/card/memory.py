"""The card's memory: how much is in use, and the error when it is full."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COPIES = {torch.ops.aten._to_copy.default: 0, torch.ops.aten.copy_.default: 1}  # where the source is among the arguments


class CardMemory:
    """Counts the bytes of all tensors on the card; an operation whose result no longer fits raises torch.OutOfMemoryError.

    Tensors on the card are those of any device but the CPU. `before`, if set, is called before each operation that makes a
    tensor on the card, with its number, and may raise what it likes.
    """

    def __init__(self, size: float) -> None:
        self.size = size
        self.used = 0
        self.peak = 0
        self.moved = 0  # bytes copied from the CPU to the card
        self.operations = 0
        self.refused = 0  # operations that ran out of memory
        self.before: Callable[[int], None] | None = None
        self._alive: set[int] = set()

    @property
    def free(self) -> int:
        return int(self.size - self.used)

    def watch_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = self.used

    def count(self, function: Any, args: tuple, made: Iterable[Tensor]) -> None:
        """After an operation, what it has made."""
        for tensor in made:
            if tensor.device.type not in ("cpu", "meta"):
                self._made(function, tensor, args)

    def _made(self, function: Any, tensor: Tensor, args: tuple) -> None:
        storage = tensor.untyped_storage()
        source = args[COPIES[function]] if function in COPIES else None
        if source is not None and source.device.type == "cpu":
            self.moved += source.nbytes
        if storage._cdata in self._alive:
            return
        self.operations += 1
        if self.before:
            self.before(self.operations)
        size = storage.nbytes()
        if self.used + size > self.size:
            self.refused += 1
            raise torch.OutOfMemoryError(f"fake card: {size} bytes more than the {self.free} that are free")
        self._alive.add(storage._cdata)
        weakref.finalize(storage, self._freed, storage._cdata, size)
        self.used += size
        self.peak = max(self.peak, self.used)

    def _freed(self, storage: int, size: int) -> None:
        self._alive.discard(storage)
        self.used -= size
