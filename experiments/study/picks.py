"""Functions that pick one number from a video's findings, None if there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

BEYOND = 100.0  # times the change elsewhere, which is nothing then

Found = dict
Pick = Callable[[Found], float | None]


def value(name: str) -> Pick:
    return lambda found: found[name]


def drifted(measure: str) -> Pick:
    return lambda found: found["drift"][measure]


def farthest(name: str) -> Pick:
    """In the section that is farthest off: errors add up towards the end forwards, but towards the start inverted."""
    return lambda found: max(section[name] for section in found["by_section"])


def joins(found: Found) -> float | None:
    """None where nothing changes elsewhere, as in the world's own videos of shapes that stand still."""
    return found["joins"] if found["joins"] < BEYOND else None


def obeys(found: Found) -> bool:
    """Whether every shape does what it was told; one hidden behind another does not count."""
    return all(verdict for verdict in found["obeys"] if verdict is not None)


def colour(found: Found) -> float | None:
    """Lab distance at the end, a mean over the shapes that can be found."""
    distances = [distance for distance in found["color"] if distance is not None]
    return statistics.fmean(distances) if distances else None


def softened_most(found: Found) -> float:
    """How many times the sharpness has doubled or halved in the section that is farthest off."""
    return max(map(_doublings, found["by_section"]))


def mean_colour(found: Found) -> float:
    return statistics.fmean(section["lab"] for section in found["by_section"])


def mean_softened(found: Found) -> float:
    return statistics.fmean(map(_doublings, found["by_section"]))


def _doublings(section: dict) -> float:
    return abs(math.log2(max(section["sharpness"], 1e-6)))
