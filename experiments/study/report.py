"""docs/EXPERIMENTS.md and its images, from the results and the words in report.md.

`report.md` is the document with `{names}` in it. A name stands for a table, a figure or a number from the results, so that no
number is ever typed by hand. Whatever has not been run yet reads "not run".

Long because it has a method for each name in the template.
"""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from experiments.study import growth, plots, strips
from experiments.study.intervals import Interval, mean, paired, share
from experiments.study.long import uneven
from experiments.study.picks import DRIFT, Found, Pick, colour, drifted, obeys, value
from experiments.study.results import Results
from experiments.study.tables import figure, percent, table
from experiments.study.videos import (
    ANCHORS,
    CACHES,
    CONFIGURATIONS,
    TWO_SECTIONS,
    Amount,
    Video,
    Way,
    anchors,
    cached,
    changes,
    layouts,
    lengths,
    obedience,
    paddings,
    prompts,
)
from framepack_core.demo.world import MOTIONS
from framepack_core.measures.looks import LOOKS
from framepack_core.orders import ORDERS

TEMPLATE = Path(__file__).with_name("report.md")
IMAGES = Path("images") / "experiments"
NOT_RUN = "not run"
WANTED_OBEDIENCE, WANTED_COLOUR = 0.9, 12.0
SOURCES = (*ORDERS, "world", "vae")

Made = list[tuple[Video, Found]]


def write(results: Results, amount: Amount, way: Way, output: Path) -> None:
    """Write EXPERIMENTS.md and its images below `output`."""
    text = TEMPLATE.read_text(encoding="utf-8").format_map(Values(results, amount, way, output))
    output.mkdir(parents=True, exist_ok=True)
    (output / "EXPERIMENTS.md").write_text(text, encoding="utf-8")


class Values(dict):
    """What the names in the template stand for, worked out on demand."""

    def __init__(self, results: Results, amount: Amount, way: Way, output: Path) -> None:
        super().__init__()
        self.study = Study(results, amount, way, output)

    def __missing__(self, name: str) -> str:
        """`name` is a method of Study, with its arguments: `color__6__inverted`."""
        method, *arguments = name.split("__")
        return getattr(self.study, method)(*arguments) or NOT_RUN


class Study:
    """Every figure in the report. Methods without a leading underscore are the names in the template; they return text,
    empty if there are no results."""

    def __init__(self, results: Results, amount: Amount, way: Way, output: Path) -> None:
        self.results, self.amount, self.way, self.output = results, amount, way, output

    # How it was made

    def steps(self) -> str:
        return str(self.way.steps)

    def shift(self) -> str:
        return f"{self.way.shift:g}" if self.way.shift else "auto"

    def weights(self) -> str:
        return self.results.weights

    def machine(self) -> str:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
        return f"{device}, {platform.machine()}, torch {torch.__version__}"

    def videos(self) -> str:
        made = [Video.from_dict(made) for made, _ in self.results.items() if "scene" in made]
        return f"{sum(video.source == 'model' and video.steps == self.way.steps for video in made)}"

    def scenes(self) -> str:
        return str(self.amount.obedience)

    # The VAE

    def vae(self) -> str:
        clips = [found for made, found in self.results.items() if "vae" in made]
        if not clips:
            return ""
        rows = [
            [name, figure(mean([clip[key] for clip in clips]), 2), wanted]
            for name, key, wanted in (("whole frames", "psnr", "32"), ("inside the shapes' boxes", "psnr_inside", "24"))
        ]
        return table([f"PSNR of {len(clips)} held-out clips, dB", "found", "wanted"], rows)

    # Obedience

    def obedience(self) -> str:
        rows = [
            [
                f"{order}, {ORDERS[order].layout}",
                str(len(made)),
                percent(share(_obeyed(made))),
                figure(mean([colour(found) for _, found in made]), 1),
                _count([any(found["lost"]) for _, found in made]),
                *(figure(mean([found[name] for _, found in made]), 2) for name in ("same_kind", "fit")),
            ]
            for order, made in self._by_order(obedience).items()
            if made
        ]
        header = ["order, layout", "videos", "obeys", "colour", "lost", "same kind", "fit"]
        return table(header, rows) if rows else ""

    def obedience_plot(self) -> str:
        made = {f"{order} {layout}": self._of(layout_videos(self.amount, order, layout))
                for order, layout in CONFIGURATIONS}  # fmt: skip
        made |= {f"{order} {ORDERS[order].layout}": videos for order, videos in self._by_order(obedience).items()}
        values = {name: share(_obeyed(videos)) for name, videos in made.items() if videos}
        if not values:
            return ""
        plots.bars(self._image("obedience"), values, WANTED_OBEDIENCE, "share of videos that do what the prompt says")
        return _embed("obedience", "Obedience of every order and layout")

    def motions(self) -> str:
        by_order = self._by_order(obedience)
        if not any(by_order.values()):
            return ""
        rows = [
            [
                motion,
                *(_count([found["obeys"][0] for video, found in made if video.motion == motion]) for made in by_order.values()),
            ]
            for motion in MOTIONS
        ]
        return table(["told to", *by_order], rows)

    def obeyed(self, order: str) -> str:
        made = self._by_order(obedience)[order]
        return percent(share(_obeyed(made))) if made else ""

    def growth(self) -> str:
        """With the transformers before the shipped one, whose videos were as many."""
        obeyed = {order: sum(_obeyed(made)) for order, made in self._by_order(obedience).items() if len(made) == growth.SCENES}
        if len(obeyed) < len(ORDERS):
            return ""
        written = growth.write(obeyed, WANTED_OBEDIENCE, self._image("growth"))
        return f"{written}\n\n{_embed('growth', 'Obedience after training steps, and the curves that it predicts')}"

    def prompts(self) -> str:
        made = self._of(prompts(self.amount))
        pairs = [pair for pair in zip(made[::2], made[1::2], strict=False) if pair[0][0].scene == pair[1][0].scene]
        if not pairs:
            return ""
        both = [a["obeys"][0] and b["obeys"][0] for (_, a), (_, b) in pairs]
        apart = [b_video.motion not in a["looks_like"] and a_video.motion not in b["looks_like"]
                 and a["looks_like"] != b["looks_like"] for (a_video, a), (b_video, b) in pairs]  # fmt: skip
        rows = [
            ["each video does what its own prompt says", _count(both), percent(share(both))],
            ["the two motions differ, and neither is the other's", _count(apart), percent(share(apart))],
        ]
        return table([f"{len(pairs)} pictures, two prompts each, same noise", "pairs", "share"], rows)

    def layouts(self) -> str:
        rows = []
        for order, layout in CONFIGURATIONS:
            made = self._of(layout_videos(self.amount, order, layout))
            if made:
                rows.append([
                    f"{order}, {layout}",
                    str(self._context(order, layout)),
                    percent(share(_obeyed(made))),
                    *(figure(mean([pick(found) for _, found in made]), 2) for pick in
                      (colour, value("fit"), drifted("lab_mean"), drifted("hsv"), drifted("laplacian"), value("joins"),
                       value("motion"))),
                ])  # fmt: skip
        header = ["order, layout", "context tokens", "obeys", "colour", "fit", "Lab", "HSV", "Laplacian", "joins", "motion"]
        return table(header, rows) if rows else ""

    # Length

    def quality(self) -> str:
        rows = []
        for sections, source, made in self._lengths():
            back = [found["comeback"] for _, found in made]
            due = self._comebacks_due(sections)
            returned = [found["comeback"] for video, found in made if video.scene in due]
            rows.append([
                str(sections), source, str(len(made)),
                percent(share(_obeyed(made))),
                figure(mean([colour(found) for _, found in made]), 1),
                _count([any(found["lost"]) for _, found in made]),
                figure(mean([found["fit"] for _, found in made]), 2),
                figure(mean([found["same_kind"] for _, found in made]), 2),
                _count([_as_it_was(comeback) for comeback in returned]),
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
                    figure(mean([found[name] for _, found in made]), 2, short=True)
                    for name in ("joins", "motion", "flow", "speed")
                ),
            ]
            for sections, source, made in self._lengths()
        ]
        header = ["sections", "made by", "Lab mean", "Lab deviation", "HSV", "Laplacian", "high frequency", "contrast", "joins",
                  "motion", "flow", "speed"]  # fmt: skip
        return table(header, rows) if rows else ""

    def lengths_plot(self) -> str:
        measures: dict[str, Callable[[Made], Interval]] = {
            "obeys its prompt": lambda made: share(_obeyed(made)),
            "colour: Lab distance at the end": _mean_of(colour),
            "fit with its own shape": _mean_of(value("fit")),
            "drift of the mean colour (Lab)": _mean_of(drifted("lab_mean")),
            "drift of sharpness (Laplacian)": _mean_of(drifted("laplacian")),
            "drift of HSV histograms": _mean_of(drifted("hsv")),
            "drift of contrast": _mean_of(drifted("contrast")),
            "joins": _mean_of(value("joins")),
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
        return _embed("lengths", "Measures against the number of sections")

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
        return _embed("sections", f"Colour and sharpness along videos of {self._longest()} sections")

    def contest(self) -> str:
        """The orders against each other in the longest videos, on the same scenes."""
        made = {
            source: {video.scene: found for video, found in some}
            for sections, source, some in self._lengths()
            if sections == self._longest()
        }
        sources = (*ORDERS, "world")
        if not made.keys() >= set(sources):
            return ""
        scenes = [scene for scene in made["world"] if all(scene in made[order] for order in ORDERS)]
        rows = []
        for name, pick in DRIFT.items():
            columns = {source: [pick(made[source][scene]) for scene in scenes] for source in sources}
            rows.append([
                name,
                *(figure(mean(columns[source]), 3, short=True) for source in sources),
                *(_verdict(paired(columns["forward"], columns[order]), order, "forward")
                  for order in ("inverted", "endpoints")),
            ])  # fmt: skip
        header = [f"{self._longest()} sections, {len(scenes)} scenes", *sources, "forward less inverted",
                  "forward less endpoints"]  # fmt: skip
        return table(header, rows)

    def colour(self, sections: str, order: str) -> str:
        """Mean Lab distance at the end."""
        made = [made for length, source, made in self._lengths() if length == int(sections) and source == order]
        return figure(mean([colour(found) for _, found in made[0]]), 1) if made else ""

    def paddings(self) -> str:
        made = self._of(paddings(self.amount))
        rows = []
        for spacing in ("released", "exact"):
            some = [(video, found) for video, found in made if video.paddings == spacing]
            if some:
                rows.append([
                    spacing, str(len(some)), percent(share(_obeyed(some))),
                    *(figure(mean([pick(found) for _, found in some]), 2) for pick in
                      (colour, value("fit"), drifted("lab_mean"), value("joins"), value("motion"))),
                ])  # fmt: skip
        return table(["paddings", "videos", "obeys", "colour", "fit", "Lab", "joins", "motion"], rows) if rows else ""

    def anchors(self) -> str:
        """Each order with an anchor against the same scenes and noise without one."""
        made = self._of(anchors(self.amount))
        return self._drift_by("colour_anchor", ANCHORS, made, f"6 sections, {self.amount.anchors} scenes")

    def cache(self) -> str:
        """What the cache does to obedience."""
        rows = []
        for order, made in self._by_order(cached).items():
            for threshold in CACHES if made else ():
                some = [(video, found) for video, found in made if video.cache == threshold]
                calls = mean([found["calls"] for _, found in some])
                rows.append([
                    order, f"{threshold:g}" if threshold else "off", figure(calls, 2, short=True),
                    str(len(some)), percent(share(_obeyed(some))), _count([any(found["lost"]) for _, found in some]),
                    *(figure(mean([pick(found) for _, found in some]), 2) for pick in
                      (colour, value("same_kind"), value("fit"))),
                ])  # fmt: skip
        header = ["order", "threshold", "calls", "videos", "obeys", "lost", "colour", "same kind", "fit"]
        return table(header, rows) if rows else ""

    def cache_drift(self) -> str:
        """Each order with the cache against the same scenes and noise with all steps."""
        made = self._of(cached(self.amount))
        return self._drift_by("cache", CACHES, made, f"4 sections, {self.amount.cache} scenes")

    def _drift_by(self, name: str, values: Sequence[float], made: Made, what: str) -> str:
        """Drift at each value of a video's field, and paired differences to its first; the lower one is named where it is
        clear."""
        first, *others = values
        rows = []
        for order in ORDERS:
            found = {
                value: {v.scene: one for v, one in made if (v.order, getattr(v, name)) == (order, value)} for value in values
            }
            scenes = [scene for scene in found[first] if all(scene in some for some in found.values())]
            for measure, pick in DRIFT.items() if scenes else ():
                columns = {value: [pick(some[scene]) for scene in scenes] for value, some in found.items()}
                rows.append([
                    order, measure, *(figure(mean(column), 3, short=True) for column in columns.values()),
                    *(_verdict(paired(columns[first], columns[other]), f"{other:g}", f"{first:g}") for other in others),
                ])  # fmt: skip
        header = ["order", what, *(f"{value:g}" for value in values), *(f"{first:g} less {other:g}" for other in others)]
        return table(header, rows) if rows else ""

    def changes(self) -> str:
        """How often both halves do what they are told where the prompt changes between them, against the halves of videos
        with one prompt."""
        rows = []
        for order, made in self._by_order(changes).items():
            alone = {(video.scene, video.motion): one["halves"] for video, one in made if not video.then}
            for in_parts in (False, True):
                found = {video: one["halves"] for video, one in made if video.then and video.in_parts == in_parts}
                told = [video for video in found if {(video.scene, video.motion), (video.scene, video.then)} <= alone.keys()]
                if not told:
                    continue
                firsts = share([alone[video.scene, video.motion][0] is not False for video in told])
                seconds = share([alone[video.scene, video.then][1] is not False for video in told])
                halves = [[found[video][half] is not False for video in told] for half in (0, 1)]
                both = share([first and second for first, second in zip(*halves, strict=True)])
                rows.append([order + (", in two parts" if in_parts else ""), str(len(told)), percent(firsts), percent(seconds),
                             f"{firsts.value * seconds.value:.0%}", percent(both),
                             *(percent(share(half)) for half in halves)])  # fmt: skip
        header = ["order", "videos", "first prompt alone, first half", "second prompt alone, second half", "product",
                  "changed: both halves", "first half", "second half"]  # fmt: skip
        return table(header, rows) if rows else ""

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
        return _embed("frames", f"Frames: {', '.join(captions)}")

    # Very long

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
        return _embed("long", "Tokens, seconds and memory of every section of a very long video")

    def long_quality(self) -> str:
        rows = []
        for video, _ in self._long():
            found = self.results[video.to_dict()]
            rows.append([
                f"{video.order}, {video.layout}", "yes" if obeys(found) else "no", "yes" if any(found["lost"]) else "no",
                *(_number(number) for number in (colour(found), found["fit"], found["drift"]["lab_mean"],
                                               found["by_section"][-1]["sharpness"], found["motion"])),
            ])  # fmt: skip
        header = ["one video", "obeys", "lost", "colour", "fit", "Lab", "sharpness at the end", "motion"]
        return table(header, rows) if rows else ""

    # Choosing

    def _of(self, videos: Iterable[Video]) -> Made:
        """Those of the videos that have been made."""
        return [(video, self.results[video.to_dict()]) for video in self.way.of(videos) if video.to_dict() in self.results]

    def _by_order(self, experiment) -> dict[str, Made]:
        made = self._of(experiment(self.amount))
        return {order: [(video, found) for video, found in made if video.order == order] for order in ORDERS}

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

    def _long(self) -> list[tuple[Video, Found]]:
        return [(Video.from_dict(made["long"]), found) for made, found in self.results.items() if "long" in made]

    def _context(self, order: str, layout: str) -> int:
        video = Video(0, "stop", TWO_SECTIONS, order, layout)
        return video.plan.fill(1 + video.generated)[-1].context_tokens(16, 16)

    def _image(self, name: str) -> Path:
        return self.output / IMAGES / f"{name}.png"


def layout_videos(amount: Amount, order: str, layout: str) -> list[Video]:
    return [video for video in layouts(amount) if (video.order, video.layout) == (order, layout)]


def _obeyed(made: Made) -> list[bool]:
    """A video obeys if every shape in it that can be judged does."""
    return [obeys(found) for _, found in made]


def _as_it_was(comeback: Found | None) -> bool:
    return comeback is not None and comeback["same"] and comeback["color"] < WANTED_COLOUR


def _mean_of(pick: Pick) -> Callable[[Made], Interval]:
    return lambda made: mean([pick(found) for _, found in made])


def _verdict(difference: Interval, better: str, other: str) -> str:
    """The paired difference, `other` less `better`, and which of the two is lower if the interval excludes 0."""
    if math.isnan(difference.low):
        return "too few"
    text = figure(difference, 3)
    if difference.low > 0:
        return f"{text}: {better} lower"
    return f"{text}: {other} lower" if difference.high < 0 else f"{text}: none shown"


def _count(outcomes: Sequence[bool]) -> str:
    return f"{sum(outcomes)}/{len(outcomes)}" if outcomes else "-"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _embed(name: str, caption: str) -> str:
    return f"![{caption}]({(IMAGES / name).as_posix()}.png)"
