"""Functions that pick one number from a video's findings, None if there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from framepack_core.measures.looks import LOOKS

Found = dict
Pick = Callable[[Found], float | None]


def value(name: str) -> Pick:
    return lambda found: found[name]


def drifted(measure: str) -> Pick:
    return lambda found: found["drift"][measure]


def in_last_section(name: str) -> Pick:
    return lambda found: found["by_section"][-1][name]


def farthest(name: str) -> Pick:
    """In the section that is farthest off: errors add up towards the end forwards, but towards the start inverted."""
    return lambda found: max(section[name] for section in found["by_section"])


def obeys(found: Found) -> bool:
    """Whether every shape does what it was told; one hidden behind another does not count."""
    return all(verdict for verdict in found["obeys"] if verdict is not None)


def colour(found: Found) -> float | None:
    """Lab distance at the end, a mean over the shapes that can be found."""
    distances = [distance for distance in found["color"] if distance is not None]
    return statistics.fmean(distances) if distances else None


def softened(found: Found) -> float:
    """How many times the sharpness has doubled or halved by the last section."""
    return _doublings(found["by_section"][-1])


def softened_most(found: Found) -> float:
    """How many times the sharpness has doubled or halved in the section that is farthest off."""
    return max(map(_doublings, found["by_section"]))


def _doublings(section: dict) -> float:
    return abs(math.log2(max(section["sharpness"], 1e-6)))


DRIFT: dict[str, Pick] = {
    "the shape's colour at the end (Lab distance)": colour,
    "the picture's mean colour in the last section (Lab distance)": in_last_section("lab"),
    "sharpness in the last section (doublings or halvings)": softened,
    **{f"first to last 15%: {name.replace('_', ' ')}": drifted(name) for name in LOOKS},
    "joins (times the change elsewhere)": value("joins"),
    "motion (levels a frame)": value("motion"),
}
