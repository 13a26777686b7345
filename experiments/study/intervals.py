"""Means and shares with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, SEED = 10_000, 0
FEWEST = 3  # values from which a bootstrap says anything
Z = 1.959964  # for 95 %


class Interval(NamedTuple):
    """A value, the bounds of its 95 % interval (NaN for too few videos), and how many videos it comes from."""

    value: float
    low: float
    high: float
    videos: int


def mean(values: Sequence[float | None]) -> Interval:
    """The mean with a percentile bootstrap interval; None, NaN and infinities are left out."""
    kept = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=float)
    if not len(kept):
        return Interval(math.nan, math.nan, math.nan, 0)
    if len(kept) < FEWEST:
        return Interval(float(kept.mean()), math.nan, math.nan, len(kept))
    draws = np.random.default_rng(SEED).integers(len(kept), size=(RESAMPLES, len(kept)))
    low, high = np.percentile(kept[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(kept.mean()), float(low), float(high), len(kept))


def share(outcomes: Sequence[bool]) -> Interval:
    """The share of true outcomes with Wilson's interval."""
    n = len(outcomes)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    p = sum(outcomes) / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Interval(p, max(centre - half, 0.0) if p else 0.0, min(centre + half, 1.0) if p < 1 else 1.0, n)
