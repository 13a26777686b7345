"""What comes between the model and the sections that see what it made: a set error, or the world in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framepack_core.packing import Context, gather
from framepack_core.sections import Denoise
from framepack_core.timeline import Timeline

SEED = 0


def direction(channels: int) -> Tensor:
    """`1 C 1 1 1` with a root mean square of 1: what every error adds to, a tint. It is the same in all videos."""
    drawn = torch.randn(channels, generator=torch.Generator("cpu").manual_seed(SEED))
    return (drawn / drawn.square().mean().sqrt()).reshape(1, -1, 1, 1, 1)


@dataclass(frozen=True)
class Tinted:
    """A `denoise` callable whose latents `B C T H W` have a `tint` added, before other sections see them."""

    denoise: Denoise[Tensor]
    tint: Tensor

    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        return self.denoise(noise, context) + self.tint


@dataclass(frozen=True)
class Elsewhere:
    """A `denoise` callable whose sections see, of the frames that are there, those of another timeline."""

    denoise: Denoise[Tensor]
    seen: Timeline

    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        return self.denoise(noise, gather(context.section, self.seen))
