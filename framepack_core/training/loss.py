"""Flow matching: what is predicted, at which noise levels, and how it is weighted."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..solver import shift_mu

Sigmas = Literal["uniform", "logit-normal"]
SIGMAS: tuple[Sigmas, ...] = get_args(Sigmas)


def draw_sigma(generator: torch.Generator, distribution: Sigmas, tokens: int, shift: float = 0.0) -> Tensor:
    """One noise level in 0..1, float32; `shift` as at inference: 0 follows from the number of generated tokens."""
    draw = torch.rand if distribution == "uniform" else torch.randn
    sigma = draw((), generator=generator)
    if distribution == "logit-normal":
        sigma = sigma.sigmoid()
    scale = math.exp(shift_mu(tokens, shift))
    return scale * sigma / (1 + (scale - 1) * sigma)


def noisy(x0: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x0 + sigma noise."""
    sigma = sigma_B.view(-1, 1, 1, 1, 1)
    return (1 - sigma) * x0 + sigma * noise


def flow_loss(velocity: Tensor, x0: Tensor, noise: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error against the velocity noise - x0, one per sample, `B`; `weight` broadcasts over `B C T H W`."""
    error = (velocity.float() - (noise - x0)).square()
    return (error if weight is None else error * weight).mean(dim=(1, 2, 3, 4))


def motion_weight(x0: Tensor, before: Tensor, amount: float) -> Tensor:
    """1 + amount * |x0 - before|, `B 1 T H W`: the difference from the frames before, mean over channels, scaled to mean 1."""
    difference = (x0 - before).abs().mean(dim=1, keepdim=True)
    return 1 + amount * difference / difference.mean(dim=(2, 3, 4), keepdim=True).clamp_min(1e-6)
