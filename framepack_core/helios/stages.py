"""The stages of a section, coarse to fine: their sizes, schedules and timesteps. Plain numbers, no tensors.

Within a stage x = (1 - sigma) result + sigma start, with sigmas from 0.999 to 0, whatever part of the noise the stage removes.
The transformer is told a timestep, which says what part that is (arXiv 2603.04379; diffusers' HeliosScheduler).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

from ..layout import BASE_KERNEL, token_count
from .recipes import Recipe

TIMESTEPS = 1000
FIRST, LEAST = 0.999, 0.000999  # sigmas of an unshifted schedule


@dataclass(frozen=True)
class Stage:
    """One stage of a section, `height` x `width` latent pixels.

    `sigmas` are its schedule, and `timesteps` has what the transformer is told at each of them but the last. It begins with
    `alpha` times the result of the stage before, at twice the size, plus `beta` times block noise; the first one with noise. If
    there is cfg, the first `zeroed` steps stand still.
    """

    number: int
    height: int
    width: int
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    alpha: float = 0.0
    beta: float = 1.0
    zeroed: int = 0

    @property
    def still_above(self) -> float:
        """A sigma between those of the steps that stand still and those that do not."""
        last = min(self.zeroed, len(self.timesteps))
        return (self.sigmas[last - 1] + self.sigmas[last]) / 2 if last else 1.0

    def step(self, sigma: float) -> int:
        """The number, from 0, of the step whose sigma is nearest to this one."""
        return min(range(len(self.timesteps)), key=lambda step: abs(self.sigmas[step] - sigma))


def size_multiple(recipe: Recipe) -> int:
    """What the height and width of a latent must be a multiple of, so that the coarsest stage has whole tokens."""
    return BASE_KERNEL.h * 2 ** (recipe.stages - 1)


def stages_of(recipe: Recipe, steps: int, height: int, width: int, frames: int, first: bool = False) -> tuple[Stage, ...]:
    """The stages of a section of so many latent frames at this latent size; `first`: of the video's first section.

    Raises ValueError for steps that cannot be shared among the stages, and for a size that cannot be halved for them.
    """
    count, multiple = recipe.stages, size_multiple(recipe)
    if steps < 1 or steps % count:
        raise ValueError(f"steps is {steps}, but {recipe} {_needed(steps, count)}")
    if height % multiple or width % multiple:
        raise ValueError(
            f"the latent is {width}x{height}, but {recipe} needs multiples of {multiple} latent pixels, so that its coarsest "
            f"stage has whole tokens; crop the image to multiples of {8 * multiple} pixels"
        )
    each = steps // count * (2 if recipe.amplified and first else 1)
    return tuple(_stage(recipe, number, each, height, width, frames) for number in range(count))


def _needed(steps: int, stages: int) -> str:
    if stages == 1:
        return "needs at least 1; choose 1 or more"
    fewer = max(steps // stages, 1) * stages
    return f"shares a section's steps evenly among {stages} stages; choose {fewer} or {fewer + stages}"


def _stage(recipe: Recipe, number: int, steps: int, height: int, width: int, frames: int) -> Stage:
    halved = recipe.stages - 1 - number
    height, width = height >> halved, width >> halved
    before = 2 if number else 1  # the schedule counts the tokens from before the size doubles
    mu = shift_mu(token_count(frames, BASE_KERNEL, height // before, width // before))
    shift = math.exp(mu) if recipe.shift == "exponential" else mu
    sigmas = tuple(_shifted(sigma, shift) for sigma in _unshifted(recipe, steps))
    alpha, beta = _start(recipe, number) if number else (0.0, 1.0)
    zeroed = 0 if number else recipe.zeroed
    return Stage(number, height, width, sigmas, _timesteps(recipe, number, sigmas[:-1]), alpha, beta, zeroed)


# The schedule. The order of all operations is the official one, since timesteps are cut to whole numbers.


def shift_mu(tokens: int) -> float:
    """Linear in the tokens through (256, 0.5) and (4096, 1.15), without a cap."""
    slope = (1.15 - 0.5) / (4096 - 256)
    return tokens * slope + (0.5 - slope * 256)


def _shifted(sigma: float, shift: float) -> float:
    return shift / (shift + (1 / sigma - 1)) if sigma else 0.0


def _unshifted(recipe: Recipe, steps: int) -> list[float]:
    """Evenly spaced, with a 0 at the end: after the last one, or (DMD) instead of it."""
    if recipe.stages == 1:
        return [*_evenly(FIRST, 0.0, steps + 1)[:-1], 0.0]
    if recipe.solver == "dmd":
        return [*_evenly(FIRST, LEAST, steps + 1)[:-1], 0.0]
    return [*_evenly(FIRST, LEAST, steps), 0.0]


def _evenly(start: float, stop: float, count: int) -> list[float]:
    """numpy's linspace, bit for bit."""
    if count == 1:
        return [start]
    step = (stop - start) / (count - 1)
    return [*(index * step + start for index in range(count - 1)), stop]


# What part of the noise a stage removes


def _timesteps(recipe: Recipe, number: int, sigmas: Sequence[float]) -> tuple[float, ...]:
    """One whole number for each sigma; without a pyramid any number."""
    if recipe.stages == 1:
        return tuple(sigma * TIMESTEPS for sigma in sigmas)
    least, most = timestep_range(recipe, number)
    return tuple(float(int(least + sigma * (most - least))) for sigma in sigmas)


@cache
def timestep_range(recipe: Recipe, number: int) -> tuple[float, float]:
    """The timesteps that stand for sigmas of 0 and 1 in this stage of a pyramid.

    Stages share the timesteps in proportion to the noise that each removes, which is more than its bounds say, since noise is
    added before it.
    """
    noise = _noise_levels()
    removed = [_start_sigma(recipe, n) - end for n, (_, end) in enumerate(pairwise([*_origins(recipe), 0.0]))]
    shares = [done / sum(removed) for done in accumulate(removed, initial=0.0)]
    first = min(noise[int(shares[number] * TIMESTEPS)] * TIMESTEPS, 999.0)
    last = noise[min(int(shares[number + 1] * TIMESTEPS), TIMESTEPS - 1)] * TIMESTEPS
    steps = _evenly(first, last, TIMESTEPS + 1)
    return steps[-2], first


def _noise_levels() -> list[float]:
    """Sigmas of the training's timesteps, from 0.999 down to 0.000999."""
    return [1.0 - signal for signal in _evenly(1.0, 1 / TIMESTEPS, TIMESTEPS + 1)][:0:-1]


def _origins(recipe: Recipe) -> list[float]:
    """How noisy the video is where each stage begins, before noise is added to it."""
    noise = _noise_levels()
    return [noise[int(bound * TIMESTEPS)] for bound in recipe.bounds[:-1]]


def _start(recipe: Recipe, number: int) -> tuple[float, float]:
    """(alpha, beta): what is kept of the video and how much block noise is added, so that doubled pixels look like noise."""
    noise = _origins(recipe)[number]
    alpha = 1 / (math.sqrt(1 + 1 / recipe.gamma) * noise + (1 - noise))
    return alpha, alpha * noise / math.sqrt(recipe.gamma)


def _start_sigma(recipe: Recipe, number: int) -> float:
    origin = _origins(recipe)[number]
    return 1 - _start(recipe, number)[0] * (1 - origin) if number else origin
