"""Mid's guidance on predictions of the video (x0), prepared so that ordinary cfg of what it returns is right.

CFG-Zero* (arXiv 2503.18886) is a u + c (p - a u) on velocities v = (x - x0) / sigma, with a = <p, u> / <u, u>: cfg with another
negative prediction, whose x0 is x - a (x - x0 of u). A velocity of zero is an x0 of x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .recipes import Recipe
from .stages import Stage

EPSILON = 1e-8


def prepared(
    recipe: Recipe, stage: Stage, x: Tensor, sigma: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """The x0 predictions for both prompts, all `B C T H W` as x, of which ordinary cfg makes the recipe's guidance.

    `sigma` `B` is that of one of the stage's steps.
    """
    if recipe.zero_star:
        negative = zero_star(x, sigma, positive, negative)
    if stage.zeroed:
        still = _of_each(sigma > stage.still_above, x)
        positive, negative = torch.where(still, x, positive), torch.where(still, x, negative)
    return positive, negative


def zero_star(x: Tensor, sigma: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The negative x0 prediction with its velocity scaled to come as near to the positive one's as it can, video by video."""
    p, u = ((x - x0).float().flatten(1) for x0 in (positive, negative))  # sigma times the velocities
    scale = (p * u).sum(dim=1) / ((u * u).sum(dim=1) + EPSILON * sigma.float() ** 2)
    return x - _of_each(scale.to(x), x) * (x - negative)


def _of_each(values: Tensor, x: Tensor) -> Tensor:
    """Values `B` in the shape of x, one for each video."""
    return values.view(-1, *[1] * (x.ndim - 1))
