"""The page's figures of obedience: by order, by motion, by shapes, against training, and with two prompts."""

from __future__ import annotations

from experiments.study import growth, plots
from experiments.study.comparisons import Comparison, Side, comparisons
from experiments.study.intervals import mean, share
from experiments.study.part import Experiment, Part, embed, obeyed
from experiments.study.picks import Pick, colour, joins, value
from experiments.study.tables import count, figure, percent, table
from experiments.study.videos import (
    CONFIGURATIONS,
    SAMPLERS,
    SHAPES,
    example,
    layouts_of,
    obedience,
    prompts,
    samplers,
    shapes,
)
from framepack_core.demo.world import MOTIONS
from framepack_core.orders import ORDERS

WANTED = 0.9  # share of videos that obey
OF_SAMPLERS: dict[str, Pick] = {
    "fit": value("fit"),
    "the shape's colour at the end (Lab distance)": colour,
    "joins (times the change elsewhere)": joins,
    "motion (levels a frame)": value("motion"),
}


class Obedience(Part):
    """Methods are names in the template."""

    def scenes(self) -> str:
        return str(self.amount.obedience)

    def obedience(self) -> str:
        return self._quality(obedience)

    def example(self) -> str:
        return self._quality(example)

    def samplers(self) -> str:
        """Each sampler in every order."""
        rows = [
            [order, sampler, str(len(made)), percent(share(obeyed(made))), figure(mean([found["fit"] for _, found in made]), 2)]
            for (order, sampler), made in self._by_sampler().items()
            if made
        ]
        return table(["order", "sampler", "videos", "obeys", "fit"], rows) if rows else ""

    def samplers_compared(self) -> str:
        """The one that adds noise beside the one that does not, on the same scenes."""
        found = {by: {video.scene: one for video, one in made} for by, made in self._by_sampler().items()}
        compared = [Comparison(order, *(Side(sampler, found[order, sampler]) for sampler in SAMPLERS)) for order in ORDERS]
        return comparisons(compared, OF_SAMPLERS)

    def _by_sampler(self) -> dict[tuple[str, str], list]:
        by_order = self._by_order(samplers)
        return {
            (order, sampler): [one for one in made if one[0].sampler == sampler]
            for order, made in by_order.items()
            for sampler in SAMPLERS
        }

    def _quality(self, experiment: Experiment) -> str:
        rows = [
            [
                f"{order}, {ORDERS[order].layout}",
                str(len(made)),
                percent(share(obeyed(made))),
                figure(mean([colour(found) for _, found in made]), 1),
                count([any(found["lost"]) for _, found in made]),
                *(figure(mean([found[name] for _, found in made]), 2) for name in ("same_kind", "fit")),
            ]
            for order, made in self._by_order(experiment).items()
            if made
        ]
        header = ["order, layout", "videos", "obeys", "colour", "lost", "same kind", "fit"]
        return table(header, rows) if rows else ""

    def obedience_plot(self) -> str:
        made = {f"{order} {layout}": self._of(layouts_of(self.amount, order, layout))
                for order, layout in CONFIGURATIONS}  # fmt: skip
        made |= {f"{order} {ORDERS[order].layout}": videos for order, videos in self._by_order(obedience).items()}
        values = {name: share(obeyed(videos)) for name, videos in made.items() if videos}
        if not values:
            return ""
        plots.bars(self._image("obedience"), values, WANTED, "share of videos that do what the prompt says")
        return embed("obedience", "Obedience of every order and layout")

    def motions(self) -> str:
        by_order = self._by_order(obedience)
        if not any(by_order.values()):
            return ""
        rows = [
            [
                motion,
                *(count([found["obeys"][0] for video, found in made if video.motion == motion]) for made in by_order.values()),
            ]
            for motion in MOTIONS
        ]
        return table(["told to", *by_order], rows)

    def shapes(self) -> str:
        """Scenes with one shape against those with two."""
        rows = []
        for order, made in self._by_order(shapes).items():
            for number in SHAPES:
                some = [(video, found) for video, found in made if video.shapes == number]
                if some:
                    fit = figure(mean([found["fit"] for _, found in some]), 2)
                    rows.append([order, str(number), str(len(some)), percent(share(obeyed(some))), fit])
        return table(["order", "shapes", "videos", "obeys", "fit of the first"], rows) if rows else ""

    def obeyed(self, order: str) -> str:
        made = self._by_order(obedience)[order]
        return percent(share(obeyed(made))) if made else ""

    def growth(self) -> str:
        """With the transformers before the shipped one, whose videos were as many."""
        counts = {order: sum(obeyed(made)) for order, made in self._by_order(obedience).items() if len(made) == growth.SCENES}
        if len(counts) < len(ORDERS):
            return ""
        written = growth.write(counts, WANTED, self._image("growth"))
        return f"{written}\n\n{embed('growth', 'Obedience after training steps, and the curves that it predicts')}"

    def prompts(self) -> str:
        made = self._of(prompts(self.amount))
        pairs = [pair for pair in zip(made[::2], made[1::2], strict=False) if pair[0][0].scene == pair[1][0].scene]
        if not pairs:
            return ""
        both = [a["obeys"][0] and b["obeys"][0] for (_, a), (_, b) in pairs]
        apart = [b_video.motion not in a["looks_like"] and a_video.motion not in b["looks_like"]
                 and a["looks_like"] != b["looks_like"] for (a_video, a), (b_video, b) in pairs]  # fmt: skip
        rows = [
            ["each video does what its own prompt says", count(both), percent(share(both))],
            ["the two motions differ, and neither is the other's", count(apart), percent(share(apart))],
        ]
        return table([f"{len(pairs)} pictures, two prompts each, same noise", "pairs", "share"], rows)
