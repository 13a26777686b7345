"""A section's context as a ComfyUI condition, on its way through a guider."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from ...filling import Section
from ...layout import BASE_KERNEL
from ...packing import Context, rotary_phases
from .. import private
from .memory import token_cells

CONTEXT_KEY = "framepack"  # a section's PackedContext in a conditioning dict


class PackedContext:
    """One section's context: its latents, and the rotary phases, which are computed once, here.

    `rotary` `1 1 L head/2 2 2`, float32, rotates the context tokens and then the generated ones, of which there are `size`,
    `T H W`. `axes` and `theta` are the transformer's. The context is `height` by `width` latent pixels, and so are the
    generated frames unless `target_size` is theirs.
    """

    axis = 2  # of the tokens in `rotary`, as the transformer's blocks take it

    def __init__(
        self,
        context: Context,
        height: int,
        width: int,
        axes: Sequence[int],
        theta: float,
        target_size: tuple[int, int] | None = None,
    ) -> None:
        cos, sin = rotary_phases(context.section, height, width, axes, theta, target_size)
        rows, columns = target_size or (height, width)
        self.size = len(context.section.target), rows // BASE_KERNEL.h, columns // BASE_KERNEL.w
        self.latents = context.latents
        self.kernels = tuple(group.kernel for group in context.section.context)
        self.rotary = rotations(cos, sin, self.axis)
        self.tokens = context.section.context_tokens(height, width)

    @classmethod
    def none(cls, frames: int, height: int, width: int, axes: Sequence[int], theta: float) -> PackedContext:
        """No context, for samplers that know nothing of sections."""
        return cls(Context(Section(0, tuple(range(frames)), tuple(range(frames)), ()), ()), height, width, axes, theta)

    def to(self, device: torch.device) -> Self:
        """This, with its phases on a device; itself if they are there already, since both calls of a CFG guider share it."""
        rotary = self.rotary.to(device)
        if rotary is self.rotary:
            return self
        moved = copy.copy(self)
        moved.rotary = rotary
        return moved

    def part(self, area: Sequence[int]) -> Self:
        """The same context for a part of the generated frames: its size `T H W` in latent pixels, and where it begins.

        Raises ValueError if it is not made of whole tokens.
        """
        steps = (*BASE_KERNEL, *BASE_KERNEL)
        if any(value % step for value, step in zip(area, steps, strict=True)):
            raise ValueError(
                f"a condition's area is {area[2]}x{area[1]} latent pixels at {area[5]}, {area[4]}; FramePack needs even "
                "numbers, multiples of 16 pixels of the picture"
            )
        tokens = [value // step for value, step in zip(area, steps, strict=True)]
        sizes, places = tokens[:3], tokens[3:]
        context, generated = self.rotary.tensor_split([self.tokens], dim=self.axis)
        generated = generated.unflatten(self.axis, self.size)
        for axis, (size, place) in enumerate(zip(sizes, places, strict=True), start=self.axis):
            generated = generated.narrow(axis, place, size)
        part = copy.copy(self)
        part.size = (sizes[0], sizes[1], sizes[2])
        part.rotary = torch.cat([context, generated.flatten(self.axis, self.axis + 2)], dim=self.axis)
        return part

    @property
    def cells(self) -> int:
        """Latent pixels that cost as much as the context does."""
        return token_cells((1, self.tokens))[-1]


def rotations(cos: Tensor, sin: Tensor, axis: int) -> Tensor:
    """Phases `L d/2` as matrices `1 1 L d/2 2 2`, or with another `axis` of tokens `1 L 1 d/2 2 2`."""
    matrices = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[None, None]
    return matrices.movedim(2, axis)


class Packed(private.CONDConstant):
    """A PackedContext as a condition: a condition with an area gets its part."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs) -> Packed:
        return self._copy_with(self.cond if area is None else self.cond.part(area))


class ContextLatents(private.CONDList):
    """Context latents that count by their tokens in the memory estimate, not by their latent pixels."""

    def __init__(self, cond: Sequence[Tensor], cells: int = 0) -> None:
        super().__init__(list(cond))
        self.cells = cells

    def _copy_with(self, cond):
        return self.__class__(cond, self.cells)

    def size(self) -> list[int]:
        return [self.cond[0].shape[0], 1, self.cells]
