"""Obedience against training: what it was after so many steps, and after how many it would be as wanted.

The log-odds of obeying are taken to grow with the logarithm of the steps, on a straight line, as they roughly have so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.study import plots
from experiments.study.intervals import RESAMPLES, SEED, Interval, share
from experiments.study.plots import Curve, Line
from experiments.study.tables import percent, table

TRAINED = 9_500  # steps of the shipped transformer
SCENES = 40
# Of these scenes, how many obeyed after fewer steps: the weights of commits a63ceac and aa53928, with the command of the page.
EARLIER = {
    4_900: {"inverted": 15, "forward": 25, "endpoints": 18},
    6_700: {"inverted": 24, "forward": 30, "endpoints": 23},
}
LATER = {12_100: {"inverted": 25, "forward": 35, "endpoints": 21}}  # the fifth run of experiments.making, which is not shipped


def write(obeyed: Mapping[str, int], wanted: float, image: Path) -> str:
    """The table and, in `image`, the curve of every order, with how many of the shipped weights' videos have `obeyed`."""
    points: dict[str, Line] = {}
    curves: dict[str, Curve] = {}
    rows = []
    for order in obeyed:
        counts = {steps: found[order] for steps, found in (EARLIER | {TRAINED: obeyed} | LATER).items()}
        points[order] = [(steps, share([place < number for place in range(SCENES)])) for steps, number in counts.items()]
        xs = np.geomspace(min(counts), 10 * TRAINED, 60)
        curves[order] = list(zip(xs, Growth.of(counts).share(xs), strict=True))
        rows.append([order, *(percent(found) for _, found in points[order]), _steps(steps_to(wanted, counts))])
    plots.growth(image, points, curves, wanted, "share of videos that do what the prompt says")
    return table(["order", *(f"{steps:,} steps" for steps in (*EARLIER, TRAINED, *LATER)), f"steps to {wanted:.0%}"], rows)


def _steps(interval: Interval) -> str:
    """`16,000 (11,000 to 65,000)`, to two figures."""
    value, low, high = (f"{float(f'{steps:.2g}'):,.0f}" if math.isfinite(steps) else "no end" for steps in interval[:3])
    return f"{value} ({low} to {high})"


class Growth(NamedTuple):
    """The share that obeys is `1 / (1 + exp(-(odds + slope * log(steps))))`. Both may be arrays, of resampled outcomes."""

    odds: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, obeyed: Mapping[int, int] | Mapping[int, np.ndarray]) -> Growth:
        """Through the numbers of `SCENES` that obeyed after so many steps: weighted least squares on log-odds (Anscombe's)."""
        steps = np.log(np.array(list(obeyed)))[:, None]
        shares = (np.stack([np.atleast_1d(number) for number in obeyed.values()]) + 0.5) / (SCENES + 1)
        odds, weight = np.log(shares / (1 - shares)), shares * (1 - shares)
        weight = weight / weight.sum(axis=0)
        middle, height = (weight * steps).sum(axis=0), (weight * odds).sum(axis=0)
        slope = (weight * (steps - middle) * odds).sum(axis=0) / (weight * (steps - middle) ** 2).sum(axis=0)
        return cls(height - slope * middle, slope)

    def share(self, steps: Sequence[float] | np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(self.odds + self.slope * np.log(np.array(steps)))))

    def steps(self, wanted: float) -> np.ndarray:
        """After which this share obeys; infinite where it does not grow."""
        grows = self.slope > 0
        log = (math.log(wanted / (1 - wanted)) - self.odds) / np.where(grows, self.slope, 1)
        return np.where(grows, np.exp(np.minimum(log, 700)), np.inf)


def steps_to(wanted: float, obeyed: Mapping[int, int]) -> Interval:
    """With a parametric bootstrap: the same steps, and outcomes as likely as those that were found."""
    generator = np.random.default_rng(SEED)
    draws = {steps: generator.binomial(SCENES, number / SCENES, RESAMPLES) for steps, number in obeyed.items()}
    low, high = np.percentile(Growth.of(draws).steps(wanted), [2.5, 97.5], method="nearest")
    return Interval(float(Growth.of(obeyed).steps(wanted)[0]), float(low), float(high), SCENES)
