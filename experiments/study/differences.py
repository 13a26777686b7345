"""Paired differences over scenes: intervals that hold for all comparisons of a table together, and what they would have shown.

The interval is Student's t at Bonferroni's level: of `comparisons` that are looked at together, all intervals hold the true
difference in 95 % of studies. The power is the chance that it would exclude 0 on the right side if the true difference were a
certain effect, by the noncentral t distribution, with the deviation that was found.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.study.intervals import Interval

WRONG = 0.05  # chance that any interval of a table does not hold the true difference
WANTED_POWER = 0.8
FEWEST, MOST = 2, 1_000_000  # scenes


@dataclass(frozen=True)
class Difference:
    """Of a reference and another, measured on the same scenes: `reference` less `other`, in a table of `comparisons`."""

    reference: tuple[float, ...]
    other: tuple[float, ...]
    comparisons: int = 1

    @classmethod
    def of(cls, reference: Sequence[float | None], other: Sequence[float | None], comparisons: int = 1) -> Difference:
        """Scenes in which one of the two is no number are left out."""
        both = zip(reference, other, strict=True)
        pairs = [(a, b) for a, b in both if a is not None and b is not None and math.isfinite(a - b)]
        return cls(tuple(a for a, _ in pairs), tuple(b for _, b in pairs), comparisons)

    @property
    def scenes(self) -> int:
        return len(self.reference)

    @property
    def deviation(self) -> float:
        """Of the differences from scene to scene; NaN for fewer than two."""
        return float(self._differences.std(ddof=1)) if self.scenes >= FEWEST else math.nan

    def interval(self) -> Interval:
        """The mean difference; without bounds for fewer than two scenes."""
        if not self.scenes:
            return Interval(math.nan, math.nan, math.nan, 0)
        value = float(self._differences.mean())
        if self.scenes < FEWEST:
            return Interval(value, math.nan, math.nan, self.scenes)
        half = self._critical(self.scenes) * self.deviation / math.sqrt(self.scenes)
        return Interval(value, value - half, value + half, self.scenes)

    def power(self, effect: float, scenes: int | None = None) -> float:
        """With as many scenes as there are, or with others; NaN if nothing is known of the deviation."""
        scenes = self.scenes if scenes is None else scenes
        if math.isnan(self.deviation):
            return math.nan
        if not self.deviation:
            return float(effect > 0)
        away = effect / (self.deviation / math.sqrt(scenes))
        return float(stats.nct.sf(self._critical(scenes), scenes - 1, away))

    def scenes_for(self, effect: float) -> int | None:
        """The fewest scenes with 80 % power; None if even `MOST` would not do, or if nothing is known of the deviation."""
        if not self.power(effect, MOST) >= WANTED_POWER:
            return None
        return FEWEST + bisect_left(range(FEWEST, MOST), WANTED_POWER, key=lambda scenes: self.power(effect, scenes))

    @property
    def _differences(self) -> np.ndarray:
        return np.array(self.reference) - np.array(self.other)

    def _critical(self, scenes: int) -> float:
        """How many standard errors the interval reaches to each side."""
        return float(stats.t.ppf(1 - WRONG / self.comparisons / 2, scenes - 1))
