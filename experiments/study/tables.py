"""Markdown tables and the figures in their cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.study.intervals import Interval


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(interval: Interval, digits: int, short: bool = False) -> str:
    """`12.3 (10.1 to 14.8)` with this many decimals, none from 1000 up; only the value if `short`."""
    if not interval.videos:
        return "-"
    value, low, high = (_digits(number, digits) for number in interval[:3])
    return value if short or math.isnan(interval.low) else f"{value} ({low} to {high})"


def percent(interval: Interval) -> str:
    """`92% (80 to 97)`."""
    if not interval.videos:
        return "-"
    return f"{interval.value:.0%} ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def count(outcomes: Sequence[bool]) -> str:
    """`3/4`."""
    return f"{sum(outcomes)}/{len(outcomes)}" if outcomes else "-"


def number(measured: float | None) -> str:
    return "-" if measured is None else f"{measured:.2f}"


def _digits(number: float, digits: int) -> str:
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.{digits}f}"
