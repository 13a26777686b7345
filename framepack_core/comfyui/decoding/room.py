"""The card's memory during a decode: what is kept there, how much is worked on at once, and what happens when it is full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

import comfy.model_management
import torch
from torch import Tensor

from .. import private

log = logging.getLogger("framepack")

CPU = torch.device("cpu")
USABLE = 0.7  # of the free memory; the rest is for the workspaces of kernels and for gaps between tensors
LARGEST_WORK = 2**30  # bytes; larger parts are computed no faster
SMALLEST_WORK = 2**22
ATTEMPTS = 12  # more than it takes from the largest work to the smallest

Result = TypeVar("Result")


class Room:
    """Divides `free` bytes of a device between tensors that are kept for later and the part that is being computed."""

    def __init__(self, device: torch.device, free: float) -> None:
        self.device = device
        self.free = free
        self.work = int(min(USABLE * free / 3, LARGEST_WORK))
        self.allowed = int(USABLE * free - self.work)
        self.full = False
        self._kept: WeakSet[Kept] = WeakSet()

    @property
    def used(self) -> int:
        """Bytes of the kept tensors that are on the device."""
        return sum(kept.tensor.nbytes for kept in self._kept if kept.tensor.device == self.device)

    def keep(self, tensor: Tensor, spare: int = 0) -> Kept:
        """Keep a tensor, on the device if it leaves `spare` bytes for others there."""
        kept = Kept(self, tensor)
        on_device = self.used if tensor.device == self.device else self.used + tensor.nbytes
        self._kept.add(kept)
        if on_device + spare > self.allowed:
            kept.park()
        return kept

    def new(self, shape: tuple[int, ...], dtype: torch.dtype, spare: int = 0) -> Kept:
        """A kept tensor that is still to be filled."""
        fits = self.used + spare + torch.Size(shape).numel() * dtype.itemsize <= self.allowed
        kept = Kept(self, torch.empty(shape, dtype=dtype, device=self.device if fits else CPU))
        self._kept.add(kept)
        return kept

    def survive(self, attempt: Callable[[], Result]) -> Result:
        """What `attempt` returns. If the device runs out of memory, room is made and it is called again."""
        for _ in range(ATTEMPTS - 1):
            try:
                return attempt()
            except Exception as error:
                if not private.is_oom(error):
                    raise
            self.make()  # outside the except block, where the error still holds the tensors of the attempt
        return attempt()

    def make(self) -> None:
        """Everything kept goes to the computer's memory, and parts become half as large."""
        if not self.full:
            log.warning("FramePack: the card ran out of memory; decoding goes on in smaller parts, which give the same frames")
        self.full, self.allowed = True, 0
        self.work = max(self.work // 2, SMALLEST_WORK)
        for kept in list(self._kept):
            kept.park()
        comfy.model_management.soft_empty_cache()


class Kept:
    """A tensor that is on the device while there is room for it."""

    def __init__(self, room: Room, tensor: Tensor) -> None:
        self.room = room
        self.tensor = tensor

    def park(self) -> None:
        self.tensor = self.tensor.to(CPU)

    def read(self, *place: slice) -> Tensor:
        """A part on the device: slices of the last dimensions. It is a view if the tensor is there."""
        return self.tensor[(..., *place)].to(self.room.device)

    def write(self, part: Tensor, *place: slice) -> None:
        self.tensor[(..., *place)] = part
