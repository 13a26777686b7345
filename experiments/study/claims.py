"""The page's figures of the paper's claims: what drifts less than what, in tables whose intervals hold together.

What is compared are logarithms, since drift differs many times between scenes: a difference is by how many times one drifts
more than the other. With each comparison comes its power: a difference that is not shown may be there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from experiments.study import plots
from experiments.study.differences import WRONG, Difference
from experiments.study.intervals import Interval, mean
from experiments.study.part import Made, Part, embed
from experiments.study.picks import Found, Pick, drifted, farthest, softened_most, value
from experiments.study.plots import Line
from experiments.study.tables import table
from experiments.study.videos import (
    CONFIGURATIONS,
    ERROR_SECTIONS,
    ERRORS,
    LONG,
    TAILS,
    WINDOWS,
    errors,
    long_layouts,
    orders,
    tails,
    windows,
)
from framepack_core.orders import ENDPOINTS, FORWARD, INVERTED

EFFECT = math.log(3.18 / 2.25)  # between vanilla and inverted in the paper's table, in the drift of clarity
BASELINE = "vanilla"  # the paper's
# Few, since each widens all intervals of a table. Neither order has its worst section where the other has it.
MEASURES: dict[str, Pick] = {
    "the picture's mean colour in the section farthest off (Lab distance)": farthest("lab"),
    "sharpness in the section farthest off (doublings or halvings)": softened_most,
    "first to last 15%: hsv": drifted("hsv"),
    "motion (levels a frame)": value("motion"),
}


@dataclass(frozen=True)
class Side:
    """What was found by scene, on one side of a comparison. With a `base`, how many times what is there it is counts."""

    name: str
    found: Mapping[int, Found]
    base: Mapping[int, Found] | None = None

    def logarithms(self, pick: Pick) -> dict[int, float | None]:
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

    def difference(self, pick: Pick, comparisons: int) -> Difference:
        """On the scenes that both sides have."""
        reference, other = self.reference.logarithms(pick), self.other.logarithms(pick)
        scenes = [scene for scene in reference if scene in other]
        return Difference.of([reference[scene] for scene in scenes], [other[scene] for scene in scenes], comparisons)


class Claims(Part):
    """Methods are names in the template."""

    def effect(self) -> str:
        """How much less the lower one of the paper's drifts."""
        return f"{1 - math.exp(-EFFECT):.0%}"

    def orders(self) -> str:
        made = self._of(orders(self.amount))
        found = {(length, order): _chosen(made, sections=length, order=order.name)
                 for length in LONG for order in (FORWARD, ENDPOINTS, INVERTED)}  # fmt: skip
        return _table([
            Comparison(f"{length} sections", Side(one.name, found[length, one]), Side(other.name, found[length, other]))
            for length in LONG
            for one, other in combinations((FORWARD, ENDPOINTS, INVERTED), 2)
        ])  # fmt: skip

    def long_layouts(self) -> str:
        """Every forward layout, and the inverted order, against the paper's baseline."""
        made = self._of([*long_layouts(self.amount), *orders(self.amount)])
        baseline = _chosen(made, sections=LONG[0], order=FORWARD.name, layout=BASELINE)
        others = [pair for pair in CONFIGURATIONS if pair[0] == FORWARD.name and pair[1] != BASELINE]
        return _table([
            Comparison(f"{LONG[0]} sections", Side(f"{FORWARD}, {BASELINE}", baseline),
                       Side(f"{order}, {layout}", _chosen(made, sections=LONG[0], order=order, layout=layout)))
            for order, layout in (*others, (INVERTED.name, INVERTED.layout))
        ])  # fmt: skip

    def tails(self) -> str:
        made = self._of(tails(self.amount))
        reference, *others = (Side(name, _chosen(made, layout=layout)) for name, layout in TAILS.items())
        return _table([Comparison("tail", reference, other) for other in others])

    def windows(self) -> str:
        """The orders with each window, and the windows in each order."""
        made = self._of(windows(self.amount))
        found = {(order, window): _chosen(made, order=order.name, window=window)
                 for order, window in product((FORWARD, INVERTED), WINDOWS)}  # fmt: skip
        usual, short = WINDOWS
        by_order = [Comparison(f"window {window}", *(Side(order.name, found[order, window]) for order in (FORWARD, INVERTED)))
                    for window in WINDOWS]  # fmt: skip
        by_window = [Comparison(order.name, *(Side(f"window {window}", found[order, window]) for window in (usual, short)))
                     for order in (FORWARD, INVERTED)]  # fmt: skip
        return _table([*by_order, *by_window])

    def errors(self) -> str:
        """Which order adds up a given error less, and what each does without errors that could add up."""
        by_order = self._errors()
        return _table([*_added(by_order), *_apart(by_order)])

    def errors_plot(self) -> str:
        by_order = self._errors()
        if not any(found for kinds in by_order.values() for found in kinds.values()):
            return ""
        lines = {measure.replace(" (", "\n("): dict(_lines(by_order, pick)) for measure, pick in MEASURES.items()}
        plots.panels(self._image("errors"), lines, "error of each section (standard deviations)")
        return embed("errors", f"Drift over {ERROR_SECTIONS} sections by the error of each, and where sections see the world")

    def _errors(self) -> Errors:
        made = self._of(errors(self.amount))
        return {
            order.name: {
                **{error: _chosen(made, order=order.name, error=error, sees="own") for error in ERRORS},
                "world": _chosen(made, order=order.name, sees="world"),
            }
            for order in (FORWARD, INVERTED)
        }


Errors = Mapping[str, Mapping[float | str, Mapping[int, Found]]]  # by order, then by error or "world", then by scene


def _added(by_order: Errors) -> Iterator[Comparison]:
    """The orders with no set error, and how many times as much they drift with one."""
    forward, inverted = FORWARD.name, INVERTED.name
    none, *some = ERRORS
    yield Comparison("no set error", *(Side(order, by_order[order][none]) for order in (forward, inverted)))
    for error in some:
        sides = (Side(order, by_order[order][error], by_order[order][none]) for order in (forward, inverted))
        yield Comparison(f"times as much by an error of {error:g}", *sides)


def _apart(by_order: Errors) -> Iterator[Comparison]:
    """The orders where sections see the world, and each order where they see it and where they see their own."""
    yield Comparison("sections see the world", *(Side(order, found["world"]) for order, found in by_order.items()))
    for order, found in by_order.items():
        yield Comparison(order, Side("sees its own", found[ERRORS[0]]), Side("sees the world", found["world"]))


def _lines(by_order: Errors, pick: Pick) -> Iterator[tuple[str, Line]]:
    """Drift by error; what sees the world, which has no set error, as a level."""
    for order, found in by_order.items():
        yield order, [(error, mean([pick(one) for one in found[error].values()])) for error in ERRORS]
        world = mean([pick(one) for one in found["world"].values()])
        yield f"{order}, sees the world", [(error, world) for error in ERRORS]


def _chosen(made: Made, **values: object) -> dict[int, Found]:
    """Of the videos with these values in their fields, what was found by scene."""
    return {video.scene: found for video, found in made if all(getattr(video, name) == value for name, value in values.items())}


def _logarithms(found: Mapping[int, Found], pick: Pick) -> dict[int, float | None]:
    values = {scene: pick(one) for scene, one in found.items()}
    return {scene: math.log(value) if value and value > 0 else None for scene, value in values.items()}


def _less(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _table(comparisons: Sequence[Comparison]) -> str:
    """A row for each comparison and measure; their intervals hold together. Comparisons without a common scene are left out."""
    made = [one for one in comparisons if set(one.reference.found) & set(one.other.found)]
    if not made:
        return ""
    count = len(made) * len(MEASURES)
    rows = [_row(one, name, one.difference(pick, count)) for one in made for name, pick in MEASURES.items()]
    interval = f"other / reference, {1 - WRONG / count:.2%} each"
    header = ["compared", "measure", "scenes", "reference", "other", interval, "power", "scenes for 80%"]
    return table(header, rows)


def _row(compared: Comparison, measure: str, found: Difference) -> list[str]:
    reference, other = compared.reference.name, compared.other.name
    return [
        f"{compared.where}: {reference} and {other}",
        measure,
        str(found.scenes),
        *(f"{math.exp(mean(values).value):.3f}" for values in (found.reference, found.other)),
        _verdict(found.interval(), reference, other),
        *_power(found),
    ]


def _verdict(difference: Interval, reference: str, other: str) -> str:
    """How many times the reference the other is, and which of the two is lower if the interval excludes 1."""
    if math.isnan(difference.low):
        return "too few"
    text = "{:.2f} ({:.2f} to {:.2f})".format(*(math.exp(-log) for log in (difference.value, difference.high, difference.low)))
    if difference.low > 0:
        return f"{text}: {other} lower"
    return f"{text}: {reference} lower" if difference.high < 0 else f"{text}: none shown"


def _power(found: Difference) -> tuple[str, str]:
    """The power for the paper's effect and the scenes that it takes, where the deviation is known."""
    power, scenes = found.power(EFFECT), found.scenes_for(EFFECT)
    return "-" if math.isnan(power) else f"{power:.0%}", "-" if scenes is None else f"{scenes:,}"
