"""Which calls of the transformer a section can do without, and what stands in for their outputs.

    cache = SectionCache(Skipping(), Measured(), sigmas)
    if cache.skips(sigma, [condition]):
        velocity = cache.expected(condition, sigma)
    else:
        cache.learn(condition, sigma, velocity)

An output is expected on the line through the last two. Published caches reuse the last one as it is; on the demo's model the
line is nearer (docs/speed.md).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

DAMPING = 0.7  # of the line's slope: neighbouring outputs differ by more than they change


@dataclass(frozen=True)
class Skipping:
    """When calls may be skipped: from `start` to `end` of the steps (0 to 1), except the last, at most `max_skips` in a row,
    and while the errors expected of these sum up to at most `threshold`; none at 0."""

    threshold: float = 0.02
    start: float = 0.1
    end: float = 1.0
    max_skips: int = 5


class Rule(Protocol):
    """Expects errors."""

    def error(self, last: float, sigma: float) -> float:
        """The error expected of an output at `sigma` if the model was last called at `last`."""
        ...

    def learn(self, last: float, sigma: float, error: Tensor) -> None:
        """A call has shown the relative error that skipping it would have had."""
        ...


class Measured:
    """EasyCache's idea, from the expected outputs' own errors: they grow with the distance, as in the call before.

    An error at a noise level moves the result by its share of the way to it, so it counts as much as there is noise.
    """

    def __init__(self) -> None:
        self._rate: Tensor | None = None  # stays on the model's device until it is needed

    def error(self, last: float, sigma: float) -> float:
        return float("inf") if self._rate is None else float(self._rate) * (last - sigma) * sigma

    def learn(self, last: float, sigma: float, error: Tensor) -> None:
        self._rate = error / max(last - sigma, 1e-4)


@dataclass(frozen=True)
class Table:
    """How much a checkpoint's blocks add to a token at noise `levels`, which go down: `ratios` to what they add at the level
    before, of which the first is 1."""

    levels: tuple[float, ...]
    ratios: tuple[float, ...]

    @classmethod
    def mean(cls, tables: Sequence[Table]) -> Table:
        """Of tables with the same levels."""
        rows = zip(*(table.ratios for table in tables), strict=True)
        return cls(tables[0].levels, tuple(sum(row) / len(tables) for row in rows))


class Tabulated:
    """MagCache: errors from how the outputs' magnitude changes with the noise level, which is known of a checkpoint.

    Beyond a table's levels, no output is expected to be right.
    """

    def __init__(self, table: Table) -> None:
        self._levels = table.levels[::-1]
        self._magnitudes = np.cumprod(table.ratios)[::-1]

    def error(self, last: float, sigma: float) -> float:
        if sigma < self._levels[0] or last > self._levels[-1]:
            return float("inf")
        before, after = np.interp([last, sigma], self._levels, self._magnitudes)
        return abs(1 - after / before)

    def learn(self, last: float, sigma: float, error: Tensor) -> None:
        """Nothing: it is in the table."""


class Magnitudes:
    """Measures a table for `Tabulated` in one section: how much the blocks add to a token, by what they added a step before."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._left = list(sigmas[:-1])
        self._last: Tensor | None = None
        self._ratios: dict[float, Tensor] = {}

    def see(self, sigma: float, added: Tensor) -> None:
        """What the blocks add to tokens `B L D` at a noise level; only the first call at each level of the schedule counts.

        Some samplers begin a little below the schedule, where the signal is not yet 0.
        """
        level = next((level for level in self._left if isclose(level, sigma, rel_tol=1e-4)), None)
        if level is None:
            return
        self._left.remove(level)
        magnitudes = torch.linalg.vector_norm(added, dim=-1, dtype=torch.float32)
        before = magnitudes if self._last is None else self._last
        self._ratios[level] = (magnitudes / before.clamp(min=1e-6)).mean()
        self._last = magnitudes

    def table(self) -> Table:
        """Of the levels that were seen."""
        return Table(tuple(self._ratios), tuple(map(float, self._ratios.values())))


@dataclass
class SectionCache:
    """The state of one section, on the noise levels of its schedule, which ends in 0.

    The first condition of a step leads: by its errors it is decided whether the step is skipped.
    """

    skipping: Skipping
    rule: Rule
    sigmas: Sequence[float]
    calls: int = 0
    skipped: int = 0
    _outputs: dict[Hashable, deque[tuple[float, Tensor]]] = field(default_factory=dict)
    _leading: Hashable = None  # of the current step's conditions
    _asked: float = float("nan")
    _skips: bool = False
    _in_a_row: int = 0
    _error: float = 0.0

    def __str__(self) -> str:
        return f"{self.skipped} of {self.calls} calls skipped in the last section"

    def skips(self, sigma: float, conditions: Sequence[Hashable]) -> bool:
        """Whether a call at a noise level is skipped; its conditions are told apart within the whole section."""
        if sigma != self._asked:
            self._asked, self._leading = sigma, conditions[0]
            self._skips = self._may_skip(sigma) and self._expects_little(sigma)
            self._in_a_row += self._skips
        skips = self._skips and all(map(self._is_known, conditions))
        self.calls += 1
        self.skipped += skips
        return skips

    def expected(self, condition: Hashable, sigma: float) -> Tensor:
        """The condition's output on the line through its last two, in their dtype."""
        (before, first), (last, second) = self._outputs[condition]
        return torch.lerp(first, second, 1 + DAMPING * (sigma - last) / (last - before))

    def learn(self, condition: Hashable, sigma: float, output: Tensor) -> None:
        """Keep an output of the model."""
        outputs = self._outputs.setdefault(condition, deque(maxlen=2))
        if condition == self._leading:
            self._error, self._in_a_row = 0.0, 0
            if len(outputs) == 2 and outputs[-1][0] > sigma:
                error = (self.expected(condition, sigma) - output).float().norm() / output.float().norm()
                self.rule.learn(outputs[-1][0], sigma, error)
        while outputs and outputs[-1][0] <= sigma:  # of a sampler that asks twice at a level, or goes back
            outputs.pop()
        outputs.append((sigma, output))

    def _may_skip(self, sigma: float) -> bool:
        steps = len(self.sigmas) - 1
        step = bisect_left([-level for level in self.sigmas], -sigma)
        within = self.skipping.start <= step / steps <= self.skipping.end and step < steps - 1
        return within and self._in_a_row < self.skipping.max_skips and self.skipping.threshold > 0

    def _is_known(self, condition: Hashable) -> bool:
        """Whether it has a line, from no earlier step than the leading condition's: prompts can be for a part of the steps."""
        outputs = self._outputs.get(condition, ())
        return len(outputs) == 2 and outputs[-1][0] <= self._outputs[self._leading][-1][0]

    def _expects_little(self, sigma: float) -> bool:
        outputs = self._outputs.get(self._leading, ())
        if len(outputs) < 2 or outputs[-1][0] <= sigma:
            return False
        error = self._error + self.rule.error(outputs[-1][0], sigma)
        if error <= self.skipping.threshold:  # never true of NaN
            self._error = error
            return True
        return False
