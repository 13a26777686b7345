"""The solvers that Helios was made for, with the signature of k-diffusion's samplers: the model predicts x0.

Both go along x = (1 - sigma) x0 + sigma noise, within one stage. Schedules end with 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from ..solver import History, UniPCStep
from .recipes import Solver

Model = Callable[..., Tensor]
Callback = Callable[[dict], None]
Sampler = Callable[..., Tensor]


def sample_unipc(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """UniPC of order 2 (arXiv 2302.04867, B2) with lambda = log(1 - sigma) - log sigma.

    The first step and the last have order 1. The first evaluation corrects nothing; every later one corrects the step that led
    to it. The last step, to 0, gives the last x0.
    """
    s_in, levels = x.new_ones(x.shape[0]), sigmas.tolist()  # numbers, so that no step waits for the card
    x0, history = x, []
    for i, level in enumerate(levels[:-1]):
        if i == 0:
            x0 = model(x, sigmas[i] * s_in, **(extra_args or {}))
        else:
            step = UniPCStep(x, history, levels[i - 1], level, "bh2", _lambda, 1 - level)
            x0 = model(step.predict(), sigmas[i] * s_in, **(extra_args or {}))
            x = step.correct(x0)
        history: History = [(_lambda(level), x0), *history[:1]]
        _report(callback, i, sigmas[i], x, x0)
    return x0


def sample_dmd(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Re-noising, for distilled models (DMD2, arXiv 2405.14867): each x0 gets back the noise that the stage began with."""
    s_in, start = x.new_ones(x.shape[0]), x
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x0 = model(x, sigma * s_in, **(extra_args or {}))
        _report(callback, i, sigma, x, x0)
        x = (1 - after) * x0 + after * start
    return x


SAMPLERS: dict[Solver, Sampler] = {"unipc": sample_unipc, "dmd": sample_dmd}


def _lambda(sigma: float) -> float:
    return math.log(1 - sigma) - math.log(sigma)


def _report(callback: Callback | None, i: int, sigma: Tensor, x: Tensor, x0: Tensor) -> None:
    if callback is not None:
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": x0})
