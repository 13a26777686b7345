"""From a section to tokens: gather the context frames, patchify each group with its kernel, pool the rotary phases.

Pure torch; the convolutions are passed in, so that ComfyUI's blocks (inference) and diffusers' (training) share this code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .filling import ContextGroup, Section
from .layout import BASE_KERNEL, FRAME_POOL, Kernel, Pool
from .timeline import Timeline

Convolutions = Mapping[Kernel, Callable[[Tensor], Tensor]]

_K8, _K16 = Kernel(8, 16, 16), Kernel(16, 32, 32)


@dataclass(frozen=True)
class Context:
    """What one section sees: a latent `B C T H W` for each of its context groups, tails pooled."""

    section: Section
    latents: tuple[Tensor, ...]


def gather(section: Section, timeline: Timeline) -> Context:
    """Read a section's context from the timeline."""
    latents = tuple(pool_tail(timeline.read(group.frames), group.pool) for group in section.context)
    return Context(section, latents)


def pool_tail(latents: Tensor, pool: Pool) -> Tensor:
    """Tail frames `B C T H W` averaged over (1, 32, 32) latent pixels (`frame`) or all into one cell (`global`)."""
    if pool == "global":
        return latents.mean(dim=(2, 3, 4), keepdim=True)
    if pool == "frame":
        size = (1, FRAME_POOL, FRAME_POOL)
        return F.avg_pool3d(pad_to_multiple(latents, size), size)
    return latents


def pad_to_multiple(latents: Tensor, kernel: Sequence[int]) -> Tensor:
    """Repeat the last frame, row and column until `B C T H W` divides into kernels."""
    t, h, w = (-size % k for size, k in zip(latents.shape[2:], kernel, strict=True))
    return F.pad(latents, (0, w, 0, h, 0, t), mode="replicate") if t or h or w else latents


def patchify(latents: Tensor, kernel: Kernel, convolutions: Convolutions) -> Tensor:
    """Tokens `B L D` of latents `B C T H W`.

    A kernel without weights of its own is the base patchify with its weights tiled and divided by the number of copies
    (paper, section 3.1), which is the base convolution of averaged latents. The paper's k16 is k8 at half the size.
    """
    latents = pad_to_multiple(latents, kernel)
    if kernel not in convolutions:
        if kernel == _K16:
            return patchify(F.avg_pool3d(latents, 2), _K8, convolutions)
        copies = tuple(k // base for k, base in zip(kernel, BASE_KERNEL, strict=True))
        latents, kernel = F.avg_pool3d(latents, copies), BASE_KERNEL
    return convolutions[kernel](latents).flatten(2).transpose(1, 2)


def context_tokens(latents: Sequence[Tensor], kernels: Sequence[Kernel], convolutions: Convolutions) -> Tensor:
    """All context tokens `B L D`, in the order of the groups, of which there is at least one."""
    tokens = [patchify(group, kernel, convolutions) for group, kernel in zip(latents, kernels, strict=True)]
    return torch.cat(tokens, dim=1)


def rotary_phases(
    section: Section,
    height: int,
    width: int,
    axes: Sequence[int],
    theta: float,
    target_size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """(cos, sin), each float32 `L sum(axes)/2`, for the context tokens and then the generated ones.

    A coarse token's phase is the average of cos and sin over the cells it covers, padding included: not the phase of the
    average position, so magnitudes shrink. The context is `height` by `width` latent pixels, and so are the generated frames
    unless `target_size` is theirs: a coarse stage of Helios' pyramid has whole positions of its own, from 0 on.
    """
    target = ContextGroup(BASE_KERNEL, section.target, section.indices)
    phases = [_group_phases(group, height, width, axes, theta) for group in section.context]
    phases.append(_group_phases(target, *(target_size or (height, width)), axes, theta))
    phases_LD = torch.cat(phases)
    return phases_LD.real.float(), phases_LD.imag.float()


def _group_phases(group: ContextGroup, height: int, width: int, axes: Sequence[int], theta: float) -> Tensor:
    """Complex phases `L sum(axes)/2`. Each axis rotates its own channels, so each can be averaged separately."""
    positions = (
        torch.tensor(group.indices),
        torch.arange(height // BASE_KERNEL.h),
        torch.arange(width // BASE_KERNEL.w),
    )
    steps = [_averaging(group, axis, len(position)) for axis, position in enumerate(positions)]
    t, h, w = (
        _average(_axis_phases(position, size, theta), step) for position, size, step in zip(positions, axes, steps, strict=True)
    )
    T, H, W = len(t), len(h), len(w)
    grid = [
        t[:, None, None].expand(T, H, W, -1),
        h[None, :, None].expand(T, H, W, -1),
        w[None, None, :].expand(T, H, W, -1),
    ]
    return torch.cat(grid, dim=-1).flatten(0, 2)


def _axis_phases(positions: Tensor, size: int, theta: float) -> Tensor:
    frequencies = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = positions.double()[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def _averaging(group: ContextGroup, axis: int, length: int) -> tuple[int, ...]:
    """How many cells of one axis are averaged, stage by stage: the tail's pool, then the kernel."""
    kernel, base = group.kernel[axis], BASE_KERNEL[axis]
    if group.pool == "global":
        return (length,)
    if group.pool == "frame" and axis > 0:
        return (FRAME_POOL // base, kernel)
    return (kernel // base,)


def _average(phases: Tensor, stages: Sequence[int]) -> Tensor:
    for size in stages:
        padding = phases[-1:].expand(-len(phases) % size, -1)
        phases = torch.cat([phases, padding]).unflatten(0, (math.ceil(len(phases) / size), size)).mean(dim=1)
    return phases
