"""Tables of what drifts less than what, on the same scenes and noise, whose intervals hold together.

What is compared are logarithms, since drift differs many times between scenes: a difference is by how many times one drifts
more than the other. With each comparison comes its power: a difference that is not shown may be there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.study.differences import WRONG, Difference
from experiments.study.intervals import mean
from experiments.study.picks import Found, Pick, colour, drifted, farthest, joins, softened_most, value
from experiments.study.tables import table

EFFECT = math.log(3.18 / 2.25)  # between vanilla and inverted in the paper's table, in the drift of clarity
# Few, since each widens all intervals of a table. Neither order has its worst section where the other has it.
MEASURES: dict[str, Pick] = {
    "the picture's mean colour in the section farthest off (Lab distance)": farthest("lab"),
    "sharpness in the section farthest off (doublings or halvings)": softened_most,
    "first to last 15%: hsv": drifted("hsv"),
    "motion (levels a frame)": value("motion"),
}
OF_SETTINGS = MEASURES | {
    "the shape's colour at the end (Lab distance)": colour,
    "joins (times the change elsewhere)": joins,
}


@dataclass(frozen=True)
class Side:
    """What was found on one side of a comparison, by scene, or by what else the other side has too. With a `base`, how many
    times what is there it is counts."""

    name: str
    found: Mapping[Any, Found]
    base: Mapping[Any, Found] | None = None

    def logarithms(self, pick: Pick) -> dict[Any, float | None]:
        values = _logarithms(self.found, pick)
        if self.base is None:
            return values
        base = _logarithms(self.base, pick)
        return {scene: _less(value, base[scene]) for scene, value in values.items() if scene in base}


@dataclass(frozen=True)
class Comparison:
    """Two sides, and what they have in common."""

    where: str
    reference: Side
    other: Side

    @property
    def sides(self) -> str:
        return f"{self.reference.name} and {self.other.name}"

    def difference(self, pick: Pick, comparisons: int) -> Difference:
        """On the scenes that both sides have."""
        reference, other = self.reference.logarithms(pick), self.other.logarithms(pick)
        scenes = [scene for scene in reference if scene in other]
        return Difference.of([reference[scene] for scene in scenes], [other[scene] for scene in scenes], comparisons)


def comparisons(listed: Sequence[Comparison], measures: Mapping[str, Pick] = MEASURES, cited: Sequence[str] = ()) -> str:
    """A row for each comparison and measure; their intervals hold together. Comparisons without a common scene are left out.

    Instead of the table, what is `cited` of it: where a line compares, which two sides, the measure by a word of its name, and
    if not the ratio with its interval, what of the line (see `_spelled`).
    """
    made = [one for one in listed if set(one.reference.found) & set(one.other.found)]
    if not made:
        return ""
    count = len(made) * len(measures)
    if cited:
        where, sides, word, *form = cited
        found = [one.difference(_named(word, measures), count) for one in made if (one.where, one.sides) == (where, sides)]
        return _spelled(found[0], *form) if found else ""
    rows = [_row(one, name, one.difference(pick, count)) for one in made for name, pick in measures.items()]
    interval = f"other / reference, {1 - WRONG / count:.2%} each"
    header = ["compared", "measure", "scenes", "reference", "other", interval, "power", "scenes for 80%"]
    return table(header, rows)


def _named(word: str, measures: Mapping[str, Pick]) -> Pick:
    """The measure with this word in its name. Raises ValueError if there is none, or more than one."""
    picks = [pick for name, pick in measures.items() if word in name]
    if len(picks) != 1:
        raise ValueError(f"{word!r} is in the names of {len(picks)} measures; take a word of one of {', '.join(measures)}")
    return picks[0]


def _spelled(found: Difference, what: str = "interval") -> str:
    """What of a line is cited: the ratio with its `interval`, each alone (`ratio`, `range`), the `power` or the `scenes`."""
    if what == "power":
        return _power(found)[0]
    if what == "scenes":
        return str(found.scenes)
    difference = found.interval()
    if math.isnan(difference.low):
        return "too few"
    ratio, low, high = (f"{math.exp(-log):.2f}" for log in (difference.value, difference.high, difference.low))
    return {"ratio": ratio, "range": f"{low} to {high}", "interval": f"{ratio} ({low} to {high})"}[what]


def _row(compared: Comparison, measure: str, found: Difference) -> list[str]:
    return [
        f"{compared.where}: {compared.sides}",
        measure,
        str(found.scenes),
        *(f"{math.exp(mean(values).value):.3f}" for values in (found.reference, found.other)),
        _verdict(found, compared.reference.name, compared.other.name),
        *_power(found),
    ]


def _verdict(found: Difference, reference: str, other: str) -> str:
    """How many times the reference the other is, and which of the two is lower if the interval excludes 1."""
    difference, text = found.interval(), _spelled(found)
    if difference.low > 0:
        return f"{text}: {other} lower"
    if difference.high < 0:
        return f"{text}: {reference} lower"
    return text if math.isnan(difference.low) else f"{text}: none shown"


def _power(found: Difference) -> tuple[str, str]:
    """The power for the paper's effect and the scenes that it takes, where the deviation is known."""
    power, scenes = found.power(EFFECT), found.scenes_for(EFFECT)
    return "-" if math.isnan(power) else f"{power:.0%}", "-" if scenes is None else f"{scenes:,}"


def _logarithms(found: Mapping[Any, Found], pick: Pick) -> dict[Any, float | None]:
    values = {scene: pick(one) for scene, one in found.items()}
    return {scene: math.log(value) if value and value > 0 else None for scene, value in values.items()}


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base
