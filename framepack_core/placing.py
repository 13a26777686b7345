"""Stills and clips that are given, and where they are in a plan's video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from .filling import Section, guides_shown
from .frames import Length, runs
from .made import Made
from .orders import orders_with_end
from .plan import MAX_SECONDS, Plan
from .timeline import Guide, Timeline

At = Literal["start", "end", "time"]
Use = Literal["fixed", "guide"]
ATS: tuple[At, ...] = get_args(At)
USES: tuple[Use, ...] = get_args(Use)
SEEN = 18  # latent frames of a clip, besides the first: as many as the released layouts see next to a section
IN_TIME: dict[At, int] = {"start": 0, "time": 1, "end": 2}


@dataclass(frozen=True)
class Placed:
    """A still or a clip. `latents` `B 16 T H W` are written into the video; `picture` `B 16 1 H W` is its first frame alone.

    At the video's start `latents` begin with `picture`; elsewhere each of them stands for four frames. `seconds` say when it
    begins if it is placed at a time. `embedding` is what an image encoder makes of it, or of a clip's first frame, and `ending`
    of its last. `masked`: `picture` is empty in parts.

    `apart`: it is encoded for sections that are clips of their own, in such clips. The video begins after its `latents`, a
    still's are a single one, and all sections see its `picture`.
    """

    latents: Tensor
    picture: Tensor
    at: At
    use: Use = "fixed"
    seconds: float = 0.0
    embedding: Any = None
    still: bool = True
    masked: bool = False
    apart: bool = False
    ending: Any = None

    @property
    def length(self) -> int:
        return self.latents.shape[2]

    @property
    def is_fixed(self) -> bool:
        return self.use == "fixed"


@dataclass(frozen=True)
class Frames:
    """Everything that is given of a video of `fps` frames a second.

    If it is what stays of a finished one, `made` says how that was made.
    """

    placed: tuple[Placed, ...] = ()
    fps: float = 30.0
    made: Made | None = None

    @property
    def finished(self) -> bool:
        return self.made is not None

    @property
    def has_start(self) -> bool:
        """Whether nothing else can be fixed at the video's start."""
        return self.finished or any(placed.is_fixed and placed.at == "start" for placed in self.placed)

    def with_placed(self, placed: Placed) -> Frames:
        """Raises ValueError if something is fixed at the same end already, or in a finished video."""
        if self.finished and placed.is_fixed:
            where = f"{placed.seconds:.2f} s" if placed.at == "time" else f"the {placed.at}"
            raise ValueError(
                f"something is fixed at {where}, but frames are the rest of a finished video (from FramePack_Redo), which "
                "would get longer; set use to guide, or place it for the first sampler"
            )
        taken = [other.at for other in self.placed if other.is_fixed and other.at != "time"]
        if placed.is_fixed and placed.at in taken:
            raise ValueError(f"the video's {placed.at} is given twice; disconnect one, or place it at a time")
        return replace(self, placed=(*self.placed, placed))


def chained(frames: Frames | None, plan: Plan | None) -> Frames:
    """What a FramePack_Place goes on with: `frames` of the one before it, or, if it is the first, none at the plan's rate.

    Raises ValueError for a plan of another rate than the first one's.
    """
    if frames is None:
        return Frames(fps=Plan.fps if plan is None else plan.fps)
    if plan is not None and plan.fps != frames.fps:
        raise ValueError(
            f"frames are placed at {frames.fps:g} fps, but the plan has {plan.fps:g}; connect the plan to the first "
            "FramePack_Place of the chain too"
        )
    return frames


@dataclass(frozen=True)
class Arrangement:
    """Where everything given is in the video that a plan makes: `first` has the first latent frame of each.

    `given` counts the latent frames that are fixed; of a video that is made again in part, those that were fixed at first. What
    its sections were guided by is placed too, where nothing new guides them.
    """

    plan: Plan
    placed: tuple[Placed, ...]
    first: tuple[int, ...]
    frames: int
    given: int

    @classmethod
    def of(cls, plan: Plan, given: Frames) -> Arrangement:
        """What is fixed at a time moves to where all gaps are whole sections.

        Raises ValueError for another rate than the plan's, for what lies outside the video or would be cut off, for two in the
        same place, for what a loop has no place for, and for a plan that does not fill the gaps of a finished video.
        """
        if given.placed and given.fps != plan.fps:
            raise ValueError(
                f"frames are placed in a video of {given.fps:g} fps, but the plan has {plan.fps:g}; connect the plan to "
                "the first FramePack_Place of the chain too"
            )
        fixed = [placed for placed in given.placed if placed.is_fixed]
        if plan.order.end is None and not given.finished and any(placed.at != "start" for placed in fixed):
            raise ValueError(
                f"something is fixed after the start, but the {plan.order} order never looks ahead; set the plan's order to "
                f"{orders_with_end('beyond', 'last')}, or place it at the start"
            )
        if masked := [placed for placed in fixed if placed.masked]:
            raise ValueError(
                f"what is fixed at the {masked[0].at} has a mask, but frames of a video are whole; disconnect the mask, or set "
                "use to guide"
            )
        if given.finished and plan.loop:
            raise ValueError(f"frames are the rest of a finished video, which cannot become a loop (loop is {plan.loop}); set "
                             "loop to 0, or connect the plan from FramePack_Redo")  # fmt: skip
        if any(placed.at == "end" for placed in fixed):
            require_end(plan, "something is placed at the end", "place it at a time")
        taken = sum(placed.length for placed in fixed)
        began = taken if given.made is None else len(given.made.given)
        plan = plan.in_clips(plan.apart or any(placed.apart for placed in fixed)).beside(taken)
        main = plan.length(taken + plan.sections * plan.window, began)  # without what connects a loop
        if given.made is not None and main.latents != given.made.frames:
            raise ValueError(
                f"frames are the rest of a finished video of {given.made.frames} latent frames, but this plan makes "
                f"{main.latents} of them; connect the plan from FramePack_Redo"
            )
        found = iter(_moved(plan, fixed, main))
        first = tuple(next(found) if placed.is_fixed else _asked(plan, placed, main) for placed in given.placed)
        arrangement = cls(plan, given.placed, first, taken + plan.generated, began)
        if given.made is None:
            arrangement._require_shown()
            return arrangement
        return arrangement._guided_as(given.made)

    @property
    def length(self) -> Length:
        return self.plan.length(self.frames, self.given)

    @property
    def known(self) -> set[int]:
        """The latent frames that are fixed."""
        return {frame for start, stop, placed in self._stretches() if placed.is_fixed for frame in range(start, stop)}

    @property
    def guides(self) -> list[tuple[int, int]]:
        """The latent frames that each guide covers, from the first up to but not including the last."""
        return [(start, stop) for start, stop, placed in self._stretches() if not placed.is_fixed]

    def timeline(self, shape: Sequence[int], batch: int) -> Timeline:
        """The timeline that knows what is fixed and has the guides, for so many videos of latents of this shape `B C T H W`."""
        timeline = Timeline.empty(self.frames, batch, shape[1], shape[3], shape[4])
        hidden = self.length.hidden
        for start, stop, placed in self._stretches():
            if placed.is_fixed:
                timeline.write(range(start, stop), placed.latents.expand(batch, -1, -1, -1, -1))
            picture = placed.picture.to(timeline.latents).expand(batch, -1, -1, -1, -1)
            if not placed.is_fixed:
                timeline.guides += (Guide(picture, start, stop),)
            elif hidden and placed.at == "start":
                timeline.guides += (Guide(picture, hidden, self.frames),)
        return timeline

    def embedding(self, section: Section) -> Any:
        """The image embedding for a section: that of the guide that it is shown, or else of the frame nearest to it in time."""
        guides = [placed for placed in self.placed if not placed.is_fixed]
        start, stop = runs(section.target)[0]
        shown = guides_shown([section], self.frames)
        guided = [guide.embedding for number, guide in enumerate(guides) if number in shown and guide.embedding is not None]
        near = self._embeddings_near(start, stop)
        return guided[0] if guided else min(near, key=lambda one: one[0], default=(0, None))[1]

    def _embeddings_near(self, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """How far from the frames from `start` up to but not including `stop` those are that have an embedding, and this: of
        a clip before them the last one's, of one after them the first one's."""
        turns = (0, self.frames - 1) if self.plan.loop else (0,)  # a loop's beginning is near its end too
        for first, last, placed in self._stretches():
            for turn in turns if placed.is_fixed and placed.embedding is not None else ():
                since = start - last - turn
                if since >= 0:
                    yield since, placed.embedding if placed.ending is None else placed.ending
                else:
                    yield max(first + turn - stop, 0), placed.embedding

    def notes(self) -> list[str]:
        """Where what is fixed at a time has gone, and which guides no section sees."""
        moved = [
            f"what is placed at {placed.seconds:.2f} s is at {self._seconds(first):.2f} s: between fixed frames, "
            f"sections of {self.plan.section_seconds:.2f} s are whole"
            for first, _, placed in self._stretches()
            if placed.is_fixed and placed.at == "time" and latent_frame(placed.seconds, self.plan.fps, self.length) != first
        ]
        return [*moved, *self._unseen()]

    def _unseen(self) -> Iterator[str]:
        """What is said of guides that no section is shown. Raises ValueError if the plan has no place for guides."""
        guides = [one for one in self._stretches() if not one[2].is_fixed]
        sections = self.plan.fill(self.frames, self.known, guides=self.guides) if guides else ()
        shown, made = guides_shown(sections, self.frames), {frame for section in sections for frame in section.target}
        for number, (start, stop, placed) in enumerate(guides):
            if number in shown:
                continue
            where = f"{placed.seconds:.2f} s" if placed.at == "time" else f"the {placed.at}"
            if made.isdisjoint(range(start, stop)):
                why = "its part of the video is fixed, so that no section makes it; place it at a time that is made"
            else:
                why = (
                    f"another guide covers as much or more of the same section; place it {self.plan.section_seconds:.2f} s away"
                )
            yield f"the guide at {where} is without effect: {why}"

    def _guided_as(self, made: Made) -> Arrangement:
        """With what guided the sections of a finished video that are made again, but for those that are guided anew."""
        taken = self.known.union(*(range(start, stop) for start, stop in self.guides))
        again = [one for one in made.shown if one.guide is not None and not one.covers(taken)]
        guides = (
            Placed(one.guide.expand(-1, -1, one.stop - one.start, -1, -1), one.guide, "time", "guide")
            for one in again
            if one.guide is not None
        )
        return replace(self, placed=(*self.placed, *guides), first=(*self.first, *(one.start for one in again)))

    def _stretches(self) -> Iterator[tuple[int, int, Placed]]:
        """The latent frames that each has, from the first up to but not including the last, as far as the video goes."""
        for first, placed in zip(self.first, self.placed, strict=True):
            yield first, min(first + placed.length, self.frames), placed

    def _seconds(self, frame: int) -> float:
        """When a latent frame begins in the video."""
        return self.length.begins(frame) / self.plan.fps

    def _require_shown(self) -> None:
        """Raises ValueError if something fixed would be cut off with what is too much for an exact length."""
        for _, stop, placed in self._stretches():
            cut = self.length.uncut.begins(stop) - self.length.begins(stop)
            if placed.is_fixed and self.plan.exact is not None and cut > 0:
                raise ValueError(
                    f"what is placed at the {placed.at} ends {cut} frames after the {self.plan.exact} of the video's exact "
                    "length; choose more seconds, or switch exact_length off"
                )


def spelled_places(text: str, count: int) -> list[tuple[At, float]]:
    """Where each of `count` stills goes, and at how many seconds, from a text like `start, 1.2, 3.5, end`; 0 is the start too.

    Raises ValueError for other words, and unless there is one place for each still.
    """
    places = [_place(word.strip(), text) for word in text.split(",")]
    if len(places) != count:
        raise ValueError(f"times has {len(places)} places ({text.strip()}), but images are {count}; write one for each image")
    return places


def require_end(plan: Plan, what: str, remedy: str) -> None:
    """Raises ValueError if nothing can be at the end of the plan's video."""
    if plan.loop:
        raise ValueError(f"{what}, but a loop has no end (loop is {plan.loop}); set loop to 0, or {remedy}")
    if plan.exact is not None:
        raise ValueError(f"{what}, but exact_length cuts frames off the end; switch it off, or {remedy}")


def latent_frame(seconds: float, fps: float, length: Length) -> int:
    """The latent frame that holds the frame at this time of a video."""
    return int(length.place(round(seconds * fps)))


def _place(word: str, text: str) -> tuple[At, float]:
    if word == "end":
        return "end", 0.0
    seconds = 0.0 if word == "start" else float(word) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", word) else None
    if seconds is None or seconds > MAX_SECONDS:
        raise ValueError(f"times is {text!r}; write seconds of the video (up to {MAX_SECONDS:g}), like start, 1.2, 3.5, end")
    return ("time", seconds) if seconds else ("start", 0.0)


def _moved(plan: Plan, fixed: Sequence[Placed], video: Length) -> list[int]:
    """The first latent frame of each, with whole windows before, between and after them."""
    found = [0] * len(fixed)
    taken, before = 0, -1  # frames given so far, and windows before the last of them
    for index in sorted(range(len(fixed)), key=lambda index: (IN_TIME[fixed[index].at], fixed[index].seconds)):
        placed = fixed[index]
        windows = min(round((_asked(plan, placed, video) - taken) / plan.window), plan.sections)
        if windows <= before or (windows == 0 and placed.at == "time"):
            raise ValueError(_too_near(plan, placed))
        found[index] = taken + windows * plan.window
        taken, before = taken + placed.length, windows
    return found


def _asked(plan: Plan, placed: Placed, video: Length) -> int:
    """The latent frame where it would begin if gaps could be of any length. Raises ValueError outside the video."""
    if placed.at == "start":
        return 0
    if placed.at == "end":
        return max(0, video.latents - placed.length)
    frame = latent_frame(placed.seconds, plan.fps, video)
    if not 0 <= frame < video.latents:
        seconds = video.frames / plan.fps
        raise ValueError(
            f"something is placed at {placed.seconds:.2f} s, but the video has {seconds:.2f} s"
            f"{' before its loop is closed' if plan.loop else ''}; choose another time, or more seconds in the plan"
        )
    return frame


def _too_near(plan: Plan, placed: Placed) -> str:
    section = plan.section_seconds
    if placed.at == "end":
        return (
            f"something is placed less than half a section ({section:.2f} s) before the end, which is given too; choose an "
            "earlier time, or more seconds in the plan"
        )
    return (
        f"what is placed at {placed.seconds:.2f} s would be less than half a section ({section:.2f} s) after the start "
        "or after what is placed before it; choose a later time, or place it at the start"
    )
