"""The page's figures against a video's length: quality and drift."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from experiments.study import plots, strips
from experiments.study.intervals import Interval, mean, share
from experiments.study.part import Made, Part, embed, obeyed
from experiments.study.picks import Found, Pick, colour, drifted, joins, value
from experiments.study.tables import count, figure, percent, table
from experiments.study.videos import lengths
from framepack_core.measures.looks import LOOKS
from framepack_core.orders import ORDERS

WANTED_COLOUR = 12.0  # Lab distance from the start image
SOURCES = (*ORDERS, "world", "vae")


class Lengths(Part):
    """Methods are names in the template."""

    def quality(self) -> str:
        rows = []
        for sections, source, made in self._lengths():
            back = [found["comeback"] for _, found in made]
            due = self._comebacks_due(sections)
            returned = [found["comeback"] for video, found in made if video.scene in due]
            rows.append([
                str(sections), source, str(len(made)),
                percent(share(obeyed(made))),
                figure(mean([colour(found) for _, found in made]), 1),
                count([any(found["lost"]) for _, found in made]),
                figure(mean([found["fit"] for _, found in made]), 2),
                figure(mean([found["same_kind"] for _, found in made]), 2),
                count([_as_it_was(comeback) for comeback in returned]),
                figure(mean([comeback["color"] for comeback in back if comeback]), 1),
            ])  # fmt: skip
        header = ["sections", "made by", "videos", "obeys", "colour", "lost", "fit", "same kind", "came back as it was",
                  "colour after"]  # fmt: skip
        return table(header, rows) if rows else ""

    def drifts(self) -> str:
        rows = [
            [
                str(sections),
                source,
                *(figure(mean([found["drift"][name] for _, found in made]), 3, short=True) for name in LOOKS),
                *(
                    figure(mean([pick(found) for _, found in made]), 2, short=True)
                    for pick in (joins, value("motion"), value("flow"), value("speed"))
                ),
            ]
            for sections, source, made in self._lengths()
        ]
        header = ["sections", "made by", "Lab mean", "Lab deviation", "HSV", "Laplacian", "high frequency", "contrast", "joins",
                  "motion", "flow", "speed"]  # fmt: skip
        return table(header, rows) if rows else ""

    def lengths_plot(self) -> str:
        measures: dict[str, Callable[[Made], Interval]] = {
            "obeys its prompt": lambda made: share(obeyed(made)),
            "colour: Lab distance at the end": _mean_of(colour),
            "fit with its own shape": _mean_of(value("fit")),
            "drift of the mean colour (Lab)": _mean_of(drifted("lab_mean")),
            "drift of sharpness (Laplacian)": _mean_of(drifted("laplacian")),
            "drift of HSV histograms": _mean_of(drifted("hsv")),
            "drift of contrast": _mean_of(drifted("contrast")),
            "joins": _mean_of(joins),
            "motion (levels a frame)": _mean_of(value("motion")),
        }
        rows = list(self._lengths())
        if not rows:
            return ""
        lines = {
            name: {
                source: [(sections, of(made)) for sections, made_by, made in rows if made_by == source] for source in SOURCES
            }
            for name, of in measures.items()
        }
        plots.panels(self._image("lengths"), lines, "sections")
        return embed("lengths", "Measures against the number of sections")

    def sections_plot(self) -> str:
        """Where the longest videos drift."""
        rows = [(source, made) for sections, source, made in self._lengths() if sections == self._longest()]
        if not rows:
            return ""
        lines = {
            title: {
                source: [
                    (number + 1, mean([found["by_section"][number][name] for _, found in made]))
                    for number in range(self._longest())
                ]
                for source, made in rows
            }
            for title, name in (
                ("the shape's colour (Lab distance)", "color"),
                ("the picture's mean colour (Lab distance)", "lab"),
                ("sharpness (times the start image's)", "sharpness"),
            )
        }
        plots.panels(self._image("sections"), lines, "section, in the video's time")
        return embed("sections", f"Colour and sharpness along videos of {self._longest()} sections")

    def colour(self, sections: str, order: str) -> str:
        """Mean Lab distance at the end."""
        made = [made for length, source, made in self._lengths() if length == int(sections) and source == order]
        return figure(mean([colour(found) for _, found in made[0]]), 1) if made else ""

    def frames_plot(self) -> str:
        shown = []
        for scene in strips.SHOWN_SCENES:
            for order in (*ORDERS, "world"):
                shown += [v for v in self.way.of(lengths(self.amount))
                          if v.scene == scene and strips.is_shown(v) and order in (v.order, v.source)]  # fmt: skip
        page = strips.sheet(self.results.path.parent, shown) if shown else None
        if page is None:
            return ""
        self._image("frames").parent.mkdir(parents=True, exist_ok=True)
        page.quantize(128).save(self._image("frames"), optimize=True)
        captions = dict.fromkeys(f'"{video.told.caption}"' for video in shown)
        return embed("frames", f"Frames: {', '.join(captions)}")

    def _lengths(self) -> Iterable[tuple[int, str, Made]]:
        """(sections, source, videos made) in the tables' order."""
        made = self._of(lengths(self.amount))
        for sections, _ in self.amount.lengths:
            for source in SOURCES:
                some = [pair for pair in made if pair[0].sections == sections and source in (pair[0].order, pair[0].source)]
                if some:
                    yield sections, source, some

    def _longest(self) -> int:
        return max(sections for sections, _ in self.amount.lengths)

    def _comebacks_due(self, sections: int) -> set[int]:
        """Scenes whose shape leaves and comes back when the world itself renders them."""
        return {video.scene for length, source, made in self._lengths() if (length, source) == (sections, "world")
                for video, found in made if found["comeback"]}  # fmt: skip


def _as_it_was(comeback: Found | None) -> bool:
    return comeback is not None and comeback["same"] and comeback["color"] < WANTED_COLOUR


def _mean_of(pick: Pick) -> Callable[[Made], Interval]:
    return lambda made: mean([pick(found) for _, found in made])
