"""All random numbers of a video, from one CPU generator in the order in which the released pipelines draw them.

First the noise on what is given, then, chunk by chunk, the noise of its stages. Solvers draw nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..layout import BASE_KERNEL
from .stages import Stage

LEAST, MOST = 0.111, 0.135  # how noisy what is given becomes: more noise, more motion and less fidelity


@dataclass(frozen=True)
class ChunkNoise:
    """Of a chunk: `whole` `B C T H W` at the video's size, and for each stage but the first normal numbers `N 4`.

    `N` counts the 2x2 blocks of all latents at the stage's size, in the order B, C, T, rows, columns.
    """

    whole: Tensor
    blocks: tuple[Tensor, ...]


def noised(latents: Tensor, generator: Generator, each_frame: bool = False) -> Tensor:
    """Given latents `B C T H W` as the video sees them: with some noise, of one strength or of one for each frame."""
    strengths = torch.rand(latents.shape[2] if each_frame else 1, generator=generator)
    sigmas = (strengths * (MOST - LEAST) + LEAST).view(1, 1, -1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    return sigmas * noise + (1 - sigmas) * latents


def draw(sizes: Sequence[tuple[int, int]], shape: Sequence[int], generator: Generator) -> ChunkNoise:
    """The noise of a chunk of this shape `B C T H W`, whose stages have these latent heights and widths."""
    whole = torch.randn(tuple(shape), generator=generator)
    cells = BASE_KERNEL.h * BASE_KERNEL.w
    counts = [math.prod(shape[:3]) * height * width // cells for height, width in sizes[1:]]
    return ChunkNoise(whole, tuple(torch.randn(count, cells, generator=generator) for count in counts))


def coarsest(noise: ChunkNoise) -> Tensor:
    """What a chunk's first stage begins with: its noise at that stage's size.

    Each halving takes twice the mean of four values, which is standard normal again.
    """
    halved = noise.whole
    for _ in noise.blocks:
        halved = F.avg_pool3d(halved, (1, 2, 2)) * 2
    return halved


def finer(before: Tensor, blocks: Tensor, stage: Stage, gamma: float) -> Tensor:
    """What a later stage begins with, from the result of the stage before it and normal numbers for its `blocks`."""
    B, C, T = before.shape[:3]
    doubled = F.interpolate(before, scale_factor=(1, 2, 2), mode="nearest")
    noise = _in_place(block_noise(blocks, gamma), (B, C, T, stage.height, stage.width))
    return stage.alpha * doubled + stage.beta * noise


def block_noise(normal: Tensor, gamma: float) -> Tensor:
    """Normal numbers `N 4` with the covariance (1 + gamma) I - gamma J: the four of a block repel each other.

    With the released gamma of 1/3 they add up to 0, and the covariance has no Cholesky factor that an algorithm could find.
    """
    return normal @ _factor(gamma).to(normal).T


def _factor(gamma: float) -> Tensor:
    """The Cholesky factor `4 4` of that covariance.

    What remains of it after j rows is (1 + gamma) I - g J again, with g = gamma (1 + gamma) / (1 + gamma - j gamma).
    """
    factor = torch.zeros(4, 4, dtype=torch.float64)
    for column in range(4):
        g = gamma * (1 + gamma) / (1 + gamma - column * gamma)
        diagonal = math.sqrt(max(1 + gamma - g, 0.0))  # rounding makes the last one of gamma 1/3 a little less than 0
        factor[column, column] = diagonal
        if column < 3:
            factor[column + 1 :, column] = -g / diagonal
    return factor


def _in_place(blocks: Tensor, shape: Sequence[int]) -> Tensor:
    """Blocks `N 4`, each row by row, in their places in `B C T H W`."""
    B, C, T, H, W = shape
    _, h, w = BASE_KERNEL
    return blocks.view(B, C, T, H // h, W // w, h, w).transpose(4, 5).reshape(B, C, T, H, W)
