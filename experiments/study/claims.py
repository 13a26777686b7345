"""The page's figures of the paper's claims: what drifts less than what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, product

from experiments.study import plots
from experiments.study.comparisons import EFFECT, MEASURES, Comparison, Side, comparisons
from experiments.study.intervals import mean
from experiments.study.part import Made, Part, embed
from experiments.study.picks import Found, Pick, mean_colour, mean_softened
from experiments.study.plots import Line
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

BASELINE = "vanilla"  # the paper's
# Of the sections that see others: the one that is sampled first sees none, wherever the others' frames come from.
OF_LATER: dict[str, Pick] = {
    "the picture's mean colour, mean over the sections that see others (Lab distance)": mean_colour,
    "sharpness, mean over the sections that see others (doublings or halvings)": mean_softened,
}
FIRST_SAMPLED = {FORWARD.name: 0, INVERTED.name: -1}


class Claims(Part):
    """Methods are names in the template. Of some tables, a line can be `cited` instead, see `comparisons`."""

    def effect(self) -> str:
        """How much less the lower one of the paper's drifts."""
        return f"{1 - math.exp(-EFFECT):.0%}"

    def orders(self, *cited: str) -> str:
        made = self._of(orders(self.amount))
        found = {(length, order): _chosen(made, sections=length, order=order.name)
                 for length in LONG for order in (FORWARD, ENDPOINTS, INVERTED)}  # fmt: skip
        return comparisons([
            Comparison(f"{length} sections", Side(one.name, found[length, one]), Side(other.name, found[length, other]))
            for length in LONG
            for one, other in combinations((FORWARD, ENDPOINTS, INVERTED), 2)
        ], cited=cited)  # fmt: skip

    def long_layouts(self, *cited: str) -> str:
        """Every forward layout, and the inverted order, against the paper's baseline."""
        made = self._of([*long_layouts(self.amount), *orders(self.amount)])
        baseline = _chosen(made, sections=LONG[0], order=FORWARD.name, layout=BASELINE)
        others = [pair for pair in CONFIGURATIONS if pair[0] == FORWARD.name and pair[1] != BASELINE]
        return comparisons([
            Comparison(f"{LONG[0]} sections", Side(f"{FORWARD}, {BASELINE}", baseline),
                       Side(f"{order}, {layout}", _chosen(made, sections=LONG[0], order=order, layout=layout)))
            for order, layout in (*others, (INVERTED.name, INVERTED.layout))
        ], cited=cited)  # fmt: skip

    def tails(self) -> str:
        made = self._of(tails(self.amount))
        reference, *others = (Side(name, _chosen(made, layout=layout)) for name, layout in TAILS.items())
        return comparisons([Comparison("tail", reference, other) for other in others])

    def windows(self, *cited: str) -> str:
        """The orders with each window, and the windows in each order."""
        made = self._of(windows(self.amount))
        found = {(order, window): _chosen(made, order=order.name, window=window)
                 for order, window in product((FORWARD, INVERTED), WINDOWS)}  # fmt: skip
        usual, short = WINDOWS
        by_order = [Comparison(f"window {window}", *(Side(order.name, found[order, window]) for order in (FORWARD, INVERTED)))
                    for window in WINDOWS]  # fmt: skip
        by_window = [Comparison(order.name, *(Side(f"window {window}", found[order, window]) for window in (usual, short)))
                     for order in (FORWARD, INVERTED)]  # fmt: skip
        return comparisons([*by_order, *by_window], cited=cited)

    def errors(self, *cited: str) -> str:
        """Which order adds up a given error less, and what each does without errors that could add up."""
        by_order = self._errors()
        return comparisons([*_added(by_order), *_apart(by_order)], cited=cited)

    def errors_later(self, *cited: str) -> str:
        """Each order where sections see the world and where they see their own, without the section that is sampled first."""
        later = {order: {kind: _later(found[kind], order) for kind in (ERRORS[0], "world")}
                 for order, found in self._errors().items()}  # fmt: skip
        return comparisons(list(_apart(later)), OF_LATER, cited)

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


def _later(found: Mapping[int, Found], order: str) -> dict[int, Found]:
    """Without the section that is sampled first, which sees only the start image."""

    def rest(sections: list) -> list:
        first = FIRST_SAMPLED[order] % len(sections)
        return [*sections[:first], *sections[first + 1 :]]

    return {scene: one | {"by_section": rest(one["by_section"])} for scene, one in found.items()}


def _lines(by_order: Errors, pick: Pick) -> Iterator[tuple[str, Line]]:
    """Drift by error; what sees the world, which has no set error, as a level."""
    for order, found in by_order.items():
        yield order, [(error, mean([pick(one) for one in found[error].values()])) for error in ERRORS]
        world = mean([pick(one) for one in found["world"].values()])
        yield f"{order}, sees the world", [(error, world) for error in ERRORS]


def _chosen(made: Made, **values: object) -> dict[int, Found]:
    """Of the videos with these values in their fields, what was found by scene."""
    return {video.scene: found for video, found in made if all(getattr(video, name) == value for name, value in values.items())}
