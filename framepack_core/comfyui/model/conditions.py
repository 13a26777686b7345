"""A section's context as a ComfyUI condition, on its way through a guider."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ...packing import Context, rotary_phases
from ...plan import Section
from .. import private
from .memory import token_cells

CONTEXT_KEY = "framepack"  # a section's PackedContext in a conditioning dict


class PackedContext:
    """One section's context: its latents, and the rotary phases, which are computed once, here.

    `rotary` `1 1 L head/2 2 2`, float32, rotates the context tokens and then the generated ones. `axes` and `theta` are the
    transformer's.
    """

    def __init__(self, context: Context, height: int, width: int, axes: Sequence[int], theta: float) -> None:
        cos, sin = rotary_phases(context.section, height, width, axes, theta)
        self.latents = context.latents
        self.kernels = tuple(group.kernel for group in context.section.context)
        self.rotary = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[None, None]
        self.tokens = context.section.context_tokens(height, width)

    @classmethod
    def none(cls, frames: int, height: int, width: int, axes: Sequence[int], theta: float) -> PackedContext:
        """No context, for samplers that know nothing of sections."""
        return cls(Context(Section(0, tuple(range(frames)), tuple(range(frames)), ()), ()), height, width, axes, theta)

    def to(self, device: torch.device) -> PackedContext:
        """This, with its phases on a device; itself if they are there already, since both calls of a CFG guider share it."""
        rotary = self.rotary.to(device)
        if rotary is self.rotary:
            return self
        moved = copy.copy(self)
        moved.rotary = rotary
        return moved

    @property
    def cells(self) -> int:
        """Latent pixels that cost as much as the context does."""
        return token_cells((1, self.tokens))[-1]


class ContextLatents(private.CONDList):
    """Context latents that count by their tokens in the memory estimate, not by their latent pixels."""

    def __init__(self, cond: Sequence[Tensor], cells: int = 0) -> None:
        super().__init__(list(cond))
        self.cells = cells

    def _copy_with(self, cond):
        return self.__class__(cond, self.cells)

    def size(self) -> list[int]:
        return [self.cond[0].shape[0], 1, self.cells]
