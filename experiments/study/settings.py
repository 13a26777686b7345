"""The page's figures of what can be chosen besides the order: layouts, paddings, anchors, changes of the prompt, the cache, and
how long a video is at most."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from experiments.study import plots
from experiments.study.comparisons import OF_SETTINGS, Comparison, Side, comparisons
from experiments.study.intervals import mean, share
from experiments.study.long import uneven
from experiments.study.part import Made, Part, embed, obeyed
from experiments.study.picks import Found, colour, drifted, joins, obeys, value
from experiments.study.tables import count, figure, number, percent, table
from experiments.study.videos import (
    ANCHORS,
    CACHES,
    CONFIGURATIONS,
    TWO_SECTIONS,
    Video,
    anchors,
    cached,
    changes,
    in_sight,
    layouts_of,
    paddings,
)
from framepack_core.orders import ORDERS

Halves = Sequence[bool | None]
# Which videos whose prompt changes a row is about: where the shape is then, and whether that is in sight.
SHAPES = {"anywhere": (True, False), "in the picture": (True,), "leaving it": (False,)}


def spelled(values: Iterable[float], zero: str) -> dict[float, str]:
    return {value: f"{value:g}" if value else zero for value in values}


class Settings(Part):
    """Methods are names in the template."""

    def layouts(self) -> str:
        rows = []
        for order, layout in CONFIGURATIONS:
            made = self._of(layouts_of(self.amount, order, layout))
            if made:
                rows.append([
                    f"{order}, {layout}",
                    str(self._context(order, layout)),
                    percent(share(obeyed(made))),
                    *(figure(mean([pick(found) for _, found in made]), 2) for pick in
                      (colour, value("fit"), drifted("lab_mean"), drifted("hsv"), drifted("laplacian"), joins,
                       value("motion"))),
                ])  # fmt: skip
        header = ["order, layout", "context tokens", "obeys", "colour", "fit", "Lab", "HSV", "Laplacian", "joins", "motion"]
        return table(header, rows) if rows else ""

    def paddings(self) -> str:
        made = self._of(paddings(self.amount))
        rows = []
        for spacing in ("released", "exact"):
            some = [(video, found) for video, found in made if video.paddings == spacing]
            if some:
                rows.append([
                    spacing, str(len(some)), percent(share(obeyed(some))),
                    *(figure(mean([pick(found) for _, found in some]), 2) for pick in
                      (colour, value("fit"), drifted("lab_mean"), joins, value("motion"))),
                ])  # fmt: skip
        return table(["paddings", "videos", "obeys", "colour", "fit", "Lab", "joins", "motion"], rows) if rows else ""

    def anchors(self) -> str:
        """Each order with an anchor against the same scenes and noise without one."""
        made = self._of(anchors(self.amount))
        return self._drift_by("colour_anchor", spelled(ANCHORS, "off"), made)

    def cache(self) -> str:
        """What the cache does to obedience."""
        rows = []
        for order, made in self._by_order(cached).items():
            for threshold in CACHES if made else ():
                some = [(video, found) for video, found in made if video.cache == threshold]
                calls = mean([found["calls"] for _, found in some])
                rows.append([
                    order, f"{threshold:g}" if threshold else "off", figure(calls, 2, short=True),
                    str(len(some)), percent(share(obeyed(some))), count([any(found["lost"]) for _, found in some]),
                    *(figure(mean([pick(found) for _, found in some]), 2) for pick in
                      (colour, value("same_kind"), value("fit"))),
                ])  # fmt: skip
        header = ["order", "threshold", "calls", "videos", "obeys", "lost", "colour", "same kind", "fit"]
        return table(header, rows) if rows else ""

    def cache_drift(self) -> str:
        """Each order with the cache against the same scenes and noise with all steps."""
        made = self._of(cached(self.amount))
        return self._drift_by("cache", spelled(CACHES, "all steps"), made)

    def _drift_by(self, name: str, values: Mapping[float, str], made: Made, cited: Sequence[str] = ()) -> str:
        """Each order at the first value of a video's field against the others, on the same scenes and noise."""
        found = {
            (order, value): {(video.scene, video.motion, video.then): one for video, one in made
                             if video.order == order and getattr(video, name) == value}
            for order, value in product(ORDERS, values)
        }  # fmt: skip
        first, *others = values
        return comparisons(
            [
                Comparison(order, Side(values[first], found[order, first]), Side(values[other], found[order, other]))
                for order, other in product(ORDERS, others)
            ],
            OF_SETTINGS,
            cited,
        )

    def changes(self) -> str:
        """How often both halves do what they are told where the prompt changes between them, against the halves of videos
        with one prompt."""
        rows = []
        for order, made in self._by_order(changes).items():
            alone = {(video.scene, video.motion): one["halves"] for video, one in made if not video.then}
            changed = {video: one["halves"] for video, one in made if video.then
                       and {(video.scene, video.motion), (video.scene, video.then)} <= alone.keys()}  # fmt: skip
            for (where, seen), in_parts in product(SHAPES.items(), (False, True)):
                told = [video for video in changed if video.in_parts == in_parts and in_sight(video) in seen]
                if told:
                    name = [order + (", in two parts" if in_parts else ""), where]
                    rows.append([*name, str(len(told)), *_halves(told, changed, alone)])
        header = ["order", "shape at the change", "videos", "first prompt alone, first half",
                  "second prompt alone, second half", "product", "changed: both halves", "first half",
                  "second half"]  # fmt: skip
        return table(header, rows) if rows else ""

    def changes_drift(self, *cited: str) -> str:
        """Each order in two parts against the same changes, scenes and noise as one."""
        made = [(video, found) for video, found in self._of(changes(self.amount)) if video.then]
        return self._drift_by("in_parts", {False: "as one", True: "in two parts"}, made, cited)

    def long(self) -> str:
        rows = []
        for video, costs in self._long():
            tokens, seconds, live = costs["tokens"], costs["seconds"], costs["megabytes"]
            later = len(seconds) // 2
            rows.append([
                f"{video.order}, {video.layout}",
                f"{min(tokens[2:])}" if len(set(tokens[2:])) == 1 else f"{min(tokens[2:])} to {max(tokens[2:])}",
                f"{statistics.median(seconds[:later]):.2f} / {statistics.median(seconds[later:]):.2f}",
                f"{statistics.median(live[:later]):.1f} / {statistics.median(live[later:]):.1f}",
            ])  # fmt: skip
        sections = len(self._long()[0][1]["tokens"]) if rows else 0
        header = [f"{sections} sections", "tokens of each from the third on", "seconds a section, medians of both halves",
                  "MB of live tensors, medians of both halves"]  # fmt: skip
        return table(header, rows) if rows else ""

    def flat(self) -> str:
        """Whether the context costs the same however long the video is, for every order and layout."""
        exceptions = uneven(self.amount.long)
        if exceptions:
            return f"Not equal from the third section on: {'; '.join(exceptions)}."
        return f"Token counts are equal from the third section on in all {len(CONFIGURATIONS)} pairs of order and layout."

    def long_plot(self) -> str:
        found = self._long()
        if not found:
            return ""
        values = {
            "tokens": {video.order: costs["tokens"] for video, costs in found},
            "seconds": {video.order: costs["seconds"] for video, costs in found},
            "MB of live tensors": {video.order: costs["megabytes"] for video, costs in found},
        }
        plots.series(self._image("long"), values, "section, as sampled")
        return embed("long", "Tokens, seconds and memory of every section of a very long video")

    def long_quality(self) -> str:
        rows = []
        for video, _ in self._long():
            found = self.results[video.to_dict()]
            rows.append([
                f"{video.order}, {video.layout}", "yes" if obeys(found) else "no", "yes" if any(found["lost"]) else "no",
                *(number(measured) for measured in (colour(found), found["fit"], found["drift"]["lab_mean"],
                                               found["by_section"][-1]["sharpness"], found["motion"])),
            ])  # fmt: skip
        header = ["one video", "obeys", "lost", "colour", "fit", "Lab", "sharpness at the end", "motion"]
        return table(header, rows) if rows else ""

    def _long(self) -> list[tuple[Video, Found]]:
        return [(Video.from_dict(made["long"]), found) for made, found in self.results.items() if "long" in made]

    def _context(self, order: str, layout: str) -> int:
        video = Video(0, "stop", TWO_SECTIONS, order, layout)
        return video.plan.fill(1 + video.generated)[-1].context_tokens(16, 16)


def _halves(told: Sequence[Video], changed: Mapping[Video, Halves], alone: Mapping[tuple[int, str], Halves]) -> Iterator[str]:
    """Of videos whose prompt changes: how often each half does what it is told, with one prompt and with both."""
    firsts = share([alone[video.scene, video.motion][0] is not False for video in told])
    seconds = share([alone[video.scene, video.then][1] is not False for video in told])
    halves = [[changed[video][half] is not False for video in told] for half in (0, 1)]
    both = share([first and second for first, second in zip(*halves, strict=True)])
    yield from (percent(firsts), percent(seconds), f"{firsts.value * seconds.value:.0%}", percent(both))
    yield from (percent(share(half)) for half in halves)
