"""UniPC for flow matching and the resolution-dependent sigma schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Variant = Literal["bh1", "bh2"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

MAX_SHIFT = 7.0
LEAST_SHIFT = 0.01  # far less gives no numbers
LONGEST = (3.1, 2.1)  # how many times the step before a step may be, and that one the step before it; see `flow_sigmas`
LONGEST_UNCORRECTED = (2.0, 2.0)  # the same for a last step to a sigma above 0

History = list[tuple[float, Tensor]]  # (lambda, x0), newest first


def shift_mu(tokens: int, shift: float = 0.0) -> float:
    """Log of the shift: of a given `shift`, or linear in the generated tokens through (256, 0.5) and (4096, 1.15), capped."""
    if shift > 0:
        return math.log(shift)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    return min(mu, math.log(MAX_SHIFT))


def flow_sigmas(steps: int, tokens: int, shift: float = 0.0) -> Tensor:
    """`steps + 1` sigmas from 1 to 0, float32; a `shift` of 0 follows from the number of tokens.

    Raises ValueError for a `shift` with which there is no schedule.
    """
    require_shift(shift)
    sigmas = torch.linspace(1, 0, steps + 1)
    scale = math.exp(shift_mu(tokens, shift))
    return scale / (scale + (1 / sigmas - 1))


def require_shift(shift: float) -> None:
    """Raises ValueError for one with which there is no schedule; 0 is that of the resolution."""
    if shift != 0 and not LEAST_SHIFT <= shift < math.inf:
        raise ValueError(f"shift is {shift:g}; choose a value from {LEAST_SHIFT:g} on, or 0 for that of the resolution")


def sample_unipc(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callable[[dict], None] | None = None,
    disable: bool | None = None,
    variant: Variant = "bh1",
) -> Tensor:
    """UniPC of order 3 (arXiv 2302.04867, B1 and B2) on x0 predictions along x = (1 - sigma) x0 + sigma noise.

    The order is lower in the first steps, and after steps that are much longer than those before (`usable`).

    With lambda = -log sigma every update reads x_t = sigma_t/sigma_0 x - (e^-h - 1) x0 - B(h) sum rho_k D_k. The first
    evaluation corrects nothing; every later one corrects the step that led to it. The result is the last x0 if the last
    sigma is 0, as in the official program, otherwise one more prediction.
    """
    extra_args = extra_args or {}
    sigmas = torch.unique_consecutive(sigmas)  # a step between equal sigmas goes nowhere
    if len(sigmas) < 2:
        return x
    s_in = x.new_ones(x.shape[0])
    order_max = max(1, min(3, len(sigmas) - 2))
    history: History = []
    for i, sigma in enumerate(sigmas[:-1]):
        if i == 0:
            x0 = model(x, sigma * s_in, **extra_args)
        else:
            step = UniPCStep(x, usable(history[: min(i, order_max)], _lambda(sigma)), sigmas[i - 1], sigma, variant)
            predicted = step.predict()
            x0 = model(predicted, sigma * s_in, **extra_args)
            x = step.correct(x0)
        history = [(_lambda(sigma), x0), *history[: order_max - 1]]
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": x0})
    if sigmas[-1] == 0:
        return history[0][1]
    last = usable(history, _lambda(sigmas[-1]), LONGEST_UNCORRECTED)
    return UniPCStep(x, last, sigmas[-2], sigmas[-1], variant).predict()


def usable(history: History, target: float, longest: Sequence[float] = LONGEST) -> History:
    """The predictions that say something about a step to lambda = `target`: those up to a step too short for the next one.

    Differences of the predictions are extrapolated in proportion to the steps, which leads nowhere from one that is so short.
    """
    lambdas = [target, *(lambda_k for lambda_k, _ in history)]
    steps = [later - earlier for later, earlier in pairwise(lambdas)]  # newest first
    fitting = (step <= most * before for step, before, most in zip(steps, steps[1:], longest, strict=False))
    return history[: 1 + sum(takewhile(bool, fitting))]


def _lambda(sigma: Tensor) -> float:
    return -math.log(float(sigma))


class UniPCStep:
    """One UniPC update from sigma_0 to sigma_t with the x0 predictions so far, newest first.

    FramePack's lambda is -log sigma. One that is log alpha - log sigma has x0 and its differences scaled by `alpha_t`, that of
    sigma_t.
    """

    def __init__(
        self,
        x: Tensor,
        history: History,
        sigma_0: Tensor | float,
        sigma_t: Tensor | float,
        variant: Variant,
        lambda_of: Callable[[Any], float] = _lambda,
        alpha_t: float = 1.0,
    ) -> None:
        lambda_0, self.x0 = history[0]
        self.h = h = lambda_of(sigma_t) - lambda_0
        ratios = [(lambda_k - lambda_0) / h for lambda_k, _ in history[1:]]
        self.differences = [(x0 - self.x0) / r for (_, x0), r in zip(history[1:], ratios, strict=True)]
        self.ratios = [*ratios, 1.0]
        self.B = -h if variant == "bh1" else math.expm1(-h)
        self.alpha_t = alpha_t
        self.base = sigma_t / sigma_0 * x - alpha_t * math.expm1(-h) * self.x0

    def predict(self) -> Tensor:
        if not self.differences:
            return self.base
        # Order 2 has a closed form that needs no system (paper, appendix F).
        rho = [0.5] if len(self.differences) == 1 else self._coefficients(len(self.differences))
        return self._combine(rho, self.differences)

    def correct(self, x0: Tensor) -> Tensor:
        rho = [0.5] if not self.differences else self._coefficients(len(self.ratios))
        return self._combine(rho, [*self.differences, x0 - self.x0])

    def _combine(self, rho: Sequence[float], differences: Sequence[Tensor]) -> Tensor:
        return self.base - self.alpha_t * self.B * sum(r * difference for r, difference in zip(rho, differences, strict=True))

    def _coefficients(self, order: int) -> list[float]:
        """rho solving sum_k rho_k r_k^(i-1) = i! phi_(i+1)(-h) / B(h), i = 1..order (paper, eq. 5)."""
        hh, factorial, b = -self.h, 1, []
        phi = math.expm1(hh) / hh - 1
        for i in range(1, order + 1):
            b.append(phi * factorial / self.B)
            factorial *= i + 1
            phi = phi / hh - 1 / factorial
        powers = [[r**i for r in self.ratios[:order]] for i in range(order)]
        return torch.linalg.solve(*(torch.tensor(side, dtype=torch.float64) for side in (powers, b))).tolist()
