"""The order in which a timeline is filled: sections of plain integers that can be printed, drawn and tested."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from .filling import Done, Section, covering, guides_shown, section_of, turned
from .frames import MAX_FPS, PIXEL_FRAMES, Length, runs
from .layout import BASE_KERNEL, PRESETS, TAIL_POOL, Layout, chosen_layout
from .orders import FORWARD, INVERTED, PADDINGS, Order, Paddings, Step, order_named, orders_with_end, orders_with_start
from .spelling import aligned, seconds_of, spell, spell_length, spell_seconds, spell_seen

if TYPE_CHECKING:
    from .timeline import Timeline

MAX_SECONDS, MAX_WINDOW, MAX_SECTIONS, MAX_LOOP = 3600.0, 64, 4000, 100
PROMPTS = "prompts"  # what a plan says in the place of its parts if these are to be those of prompts
MAX_LOOKS = 500_000  # of all sections at frames; those of a tail look at all frames from the video's beginning on
LOOKS_A_GROUP = 4  # what a group costs beside its frames


@dataclass(frozen=True)
class Plan:
    """A video of `sections` windows of latent frames in an order. A plan knows neither the size nor which frames are known.

    `paddings` says how many blank time indices the inverted order leaves: `released` as many as the official program,
    which caps them in long videos, `exact` as many as there are frames.

    A video of an `exact` number of frames has as many sections as it takes beside what is given; `sections` is right for a
    start image. `loop` more sections connect the video's end with its beginning.

    A video in `parts` is made one part after another, each in the plan's order. They are the frames of the video at which parts
    after the first should begin, and do where sections meet; those after the video's end do not count. Where its sections
    would see the video's first frames, a part sees its own, from the one before it on. A `prompted` plan has a part for each
    prompt, once these are known (`prompts.in_parts`).

    `seconds` are about how long it is to be; None if it is to have just these sections. Where sections are `apart`, each is a
    clip of its own for the VAE, and only they are shown, not what they continue. The first of a video that continues nothing
    then sees frames that do not exist yet, as others do.

    In a `reanchored` plan, sections after the second see the second's first frame wherever they would see the video's start,
    but not instead of a guide.
    `anchor` is that frame where it was made by another plan, of which this one makes some sections again.
    """

    sections: int
    order: Order = INVERTED
    window: int = 9
    layout: Layout = field(default_factory=lambda: INVERTED.fit("framepack"))
    fps: float = 30.0
    paddings: Paddings = "released"
    name: str = "framepack"
    exact: int | None = None
    loop: int = 0
    parts: tuple[int, ...] = ()
    prompted: bool = False
    apart: bool = False
    seconds: float | None = None
    reanchored: bool = False
    anchor: int | None = None

    @classmethod
    def of(
        cls,
        seconds: float,
        order: str = "inverted",
        window: int = 9,
        layout: str = "auto",
        fps: float = 30.0,
        paddings: Paddings = "released",
        exact_length: bool = False,
        loop: int = 0,
        reanchored: bool = False,
    ) -> Plan:
        """The plan for a video of about `seconds` in the order of this name; `layout` is `auto`, a preset or a layout string.

        `seconds` do not count the `loop` sections that connect the end with the beginning. Raises ValueError for a value out
        of range, for more sections than can be planned in a second, for a bad layout string, for a layout that does not fit the
        order, for a loop of an exact length, and for `reanchored` in an order or a layout where it means nothing.
        """
        chosen = order_named(order)
        if paddings not in PADDINGS:
            raise ValueError(f"paddings is {paddings!r}; choose one of {', '.join(PADDINGS)}")
        for name, value, most in (("seconds", seconds, MAX_SECONDS), ("window", window, MAX_WINDOW), ("fps", fps, MAX_FPS)):
            if not 0 < value <= most:
                raise ValueError(f"{name} is {value}; choose a value above 0 and up to {most:g}")
        if not 0 <= loop <= MAX_LOOP:
            raise ValueError(f"loop is {loop}; choose 0 (off) to {MAX_LOOP} connecting sections")
        if loop and exact_length:
            raise ValueError(
                f"exact_length cuts frames off the end, but a loop (loop is {loop}) goes on from its end to its beginning, "
                "where a cut would show; switch exact_length off, or set loop to 0"
            )
        name = chosen.layout if layout == "auto" else layout
        fitted = chosen.fit(name).with_window(window)
        if reanchored and (chosen != FORWARD or not fitted.left.far):
            raise ValueError(
                f"reanchor moves the place of the start image from the third section on, but the {chosen} order with layout "
                f"{fitted} has none that could move; choose order forward and layout f1, or switch reanchor off"
            )
        name = name if name in PRESETS else "custom"
        exact = max(round(seconds * fps), 1) if exact_length else None
        count = section_count(seconds, fps, PIXEL_FRAMES * window)
        plan = cls(
            count, chosen, window, fitted, fps, paddings, name, exact, loop, seconds=seconds, reanchored=reanchored
        ).beside(1)
        if (sections := plan.sections + loop) > (most := max_sections(fitted, window)):
            raise ValueError(
                f"{seconds:g} s at {fps:g} fps and window {window} are {sections:,} sections, but in layout {fitted} a video "
                f"has at most {most:,}; choose fewer seconds, a larger window or a shorter layout"
            )
        return plan

    def in_parts_of(self, text: str) -> Plan:
        """This plan in the parts that a text names: `prompts`, or seconds as `in_parts` has them. Raises ValueError."""
        if text.strip() == PROMPTS:
            return replace(self, prompted=True)
        return self.in_parts(seconds_of(text, "parts", f", or {PROMPTS}"))

    def in_parts(self, times: Sequence[float]) -> Plan:
        """This plan with a part of the video beginning at each of these seconds, besides the first.

        How long the video is depends on what is given besides, so times may lie beyond its end. Raises ValueError for times
        that are not in ascending order.
        """
        for before, time in pairwise((0.0, *times)):
            if not before < time <= MAX_SECONDS:
                raise ValueError(
                    f"parts has {time:g} s after {before:g} s; write ascending seconds above 0 and up to {MAX_SECONDS:g}, "
                    "like 2, 3.5"
                )
        return replace(self, parts=tuple(round(time * self.fps) for time in times))

    def in_clips(self, apart: bool) -> Plan:
        """This plan where sections are `apart`, or not: such sections are shorter, so there may be more of them."""
        plan = replace(self, apart=apart)
        if apart == self.apart or plan.seconds is None or plan.exact is not None:
            return plan
        return replace(plan, sections=section_count(plan.seconds, plan.fps, plan.section_frames))

    @property
    def generated(self) -> int:
        """Latent frames that the sections generate together, those that connect a loop included."""
        return (self.sections + self.loop) * self.window

    @property
    def connection(self) -> Plan:
        """The plan of the sections that connect a loop's end with its beginning: what lies between two that are known."""
        layout = connecting_layout(self.layout)
        name = self.name if layout == self.layout else INVERTED.layout
        return Plan(self.loop, INVERTED, self.window, layout, self.fps, self.paddings, name)

    def beside(self, given: int) -> Plan:
        """This plan for a video of which so many latent frames are given: it decides the sections of an exact length."""
        if self.exact is None:
            return self
        needed = math.ceil(self.length(0).place(self.exact)) - (0 if self.apart else given)
        return replace(self, sections=max(math.ceil(needed / self.window), 1))

    @property
    def section_frames(self) -> int:
        """How many frames of the video a section makes that is not the first."""
        length = self.length(0).uncut
        return length.begins(2 * self.window) - length.begins(self.window)

    @property
    def section_seconds(self) -> float:
        """How long such a section is."""
        return self.section_frames / self.fps

    def length(self, frames: int, given: int = 0) -> Length:
        """What is shown of this plan's video of so many latent frames, of which the first may be `given`."""
        apart, hidden = (self.window, given) if self.apart else (None, 0)
        return Length(frames, self.loop > 0, self.exact, apart, hidden)

    def bind(self, timeline: Timeline) -> tuple[Section, ...]:
        """The sections that fill this timeline.

        Raises ValueError if the plan does not generate exactly the unknown frames, or if the size cannot be patchified.
        """
        height, width = timeline.latents.shape[3:]
        if height % BASE_KERNEL.h or width % BASE_KERNEL.w:
            raise ValueError(
                f"the latent is {width}x{height}, an odd number of latent pixels; crop the image to multiples of 16 pixels"
            )
        guides = [(guide.start, guide.stop) for guide in timeline.guides]
        return self.fill(timeline.frames, timeline.known, timeline.end is not None, guides)

    def fill(
        self, frames: int, known: Collection[int] = (0,), end: bool = False, guides: Sequence[tuple[int, int]] = ()
    ) -> tuple[Section, ...]:
        """`bind` for plain integers: `frames` latent frames, of which `known` exist already, with or without an end frame.

        Each guide counts for the sections that generate any frame from its start up to but not including its stop; it has the
        index `frames` + 1 or, if there are more, the next one. A loop's connecting sections come last.
        """
        self._check(frames, len(known), end, bool(guides))
        main = frames - self.loop * self.window
        sections: list[Section] = []
        exist = {frame for frame in known if frame < main}
        for begin, stop, gaps in self._parts(main, frozenset(exist)):
            done = Done(stop, exist)
            for step in self._steps(gaps, 0 if self.apart else max(begin - 1, 0)):
                done.end = end and step.target[-1] + 1 == main
                shown = covering(step.target, guides, frames + 1)
                anchor = self.anchor_of(sections)
                if anchor is not None and step.target[0] > anchor and (shown is None or self.apart):
                    shown = anchor  # sections that are apart have no guide but what the video begins after
                sections.append(section_of(len(sections), step, done, shown, self.apart))
                done.add(step.target)
                exist.update(step.target)
        connecting = self._connecting(main) if self.loop else ()
        return (*sections, *(replace(section, number=number) for number, section in enumerate(connecting, len(sections))))

    def _check(self, frames: int, known: int, end: bool, guided: bool) -> None:
        """Raises ValueError if a video of so many latent frames, of which so many are `known`, is not what the plan fills."""
        if guided and not self.layout.left.far:
            raise ValueError(
                f"a guide is shown in the place of the start image, but the {self.order} order with layout {self.layout} has "
                f"no such place; set the plan's order to {orders_with_start()} and its layout to auto, or the guide's use to "
                "fixed"
            )
        plan = self.beside(known)
        if frames != known + plan.generated:
            raise ValueError(
                f"the plan generates {plan.sections + self.loop} x {self.window} = {plan.generated} latent frames, but "
                f"{frames - known} of the video's {frames} are unknown; plan for {frames - known} frames"
            )
        if end and self.order.end != "beyond":
            raise ValueError(
                f"an end frame beyond the video is shown in the {orders_with_end('beyond')} order, not in {self.order}"
            )

    def _parts(self, main: int, known: Collection[int]) -> Iterator[tuple[int, int, Sequence[tuple[int, int]]]]:
        """Of each part, where it begins, where the video ends as far as the part sees, and the stretches of frames that do not
        exist yet, as (start, stop), in the order in which they are filled. A part ends the video unless something is known
        behind it."""
        missing = unknown(main, known)
        for begin, end in pairwise((0, *self._beginnings(main, known), main)):
            gaps = [(max(start, begin), min(stop, end)) for start, stop in missing if start < end and stop > begin]
            yield begin, main if max(known, default=0) >= end else end, gaps[::-1] if self.order.backwards else gaps

    def _beginnings(self, main: int, known: Collection[int]) -> list[int]:
        """The latent frames with which parts after the first begin: of those with which sections do, or that exist, the
        nearest."""
        video = self.length(main, len(known))
        begins = {video.begins(first): first for first in sorted((*self.windows(main, known), *known))}
        times = list(begins)
        return sorted({begins[nearest(times, frame)] for frame in self.parts if times and frame < video.frames})

    def windows(self, main: int, known: Collection[int]) -> list[int]:
        """The latent frames with which the windows that are made begin, in a video of `main` without what connects a loop."""
        return [first for start, stop in unknown(main, known) for first in range(start, stop, self.window)]

    def begun(self, frames: int, known: Collection[int]) -> Plan:
        """This plan for a video of so many latent frames, of which `known` were given, with parts exactly where they began."""
        video = self.length(frames, len(known))
        return replace(self, parts=tuple(video.begins(first) for first in self._beginnings(frames, known)))

    def _steps(self, gaps: Iterable[tuple[int, int]], origin: int) -> Iterator[Step]:
        """What fills these stretches of a part, one after another. Raises ValueError for one that is not a number of whole
        windows."""
        for start, stop in gaps:
            if (stop - start) % self.window:
                raise ValueError(
                    f"latent frames {start} to {stop - 1} are unknown: {stop - start} frames, which is not a multiple "
                    f"of the window {self.window}; move the known frames"
                )
            windows = [tuple(range(first, first + self.window)) for first in range(start, stop, self.window)]
            yield from (step._replace(origin=origin) for step in self.order.steps(windows, self.layout, self.paddings))

    def anchor_of(self, sections: Sequence[Section]) -> int | None:
        """The frame that later sections than these, which are the plan's first, see in the place of the start image, if any."""
        if self.anchor is not None or not self.reanchored or len(sections) < 2:
            return self.anchor
        return sections[1].target[0]

    def _connecting(self, main: int) -> Iterator[Section]:
        """The sections that lead from the end of a video of `main` latent frames to its beginning, after its last frame.

        The first latent frame is an image by itself and not part of what repeats. The others are laid out before and after
        the gap, so that a section sees the video's end before it and its beginning after it.
        """
        connection, once = self.connection, main - 1
        turn = once + connection.generated
        for section in connection.fill(turn + once, [*range(once), *range(turn, turn + once)]):
            yield turned(section, turn)

    def table(self, known: Collection[int] = (0,), guides: Sequence[tuple[int, int]] = ()) -> str:
        """The plan as text, one line per section, for a video whose `known` frames exist already (default: a start image)."""
        plan = self.beside(len(known))
        length = plan.length(len(known) + plan.generated, len(known))
        lines = [plan._described()]
        if self.loop:
            lines.append(f"then, from the end to the beginning, {self.connection._described()}")
        lines.append(spell_length(length, self.fps))
        if late := [f"{frame / self.fps:g} s" for frame in self.parts if frame >= length.frames]:
            lines.append(f"no part begins at {', '.join(late)}: the video has ended")
        lines.append(f"given: latent frames {spell(sorted(known))}" if known else "given: nothing (text to video)")
        sections = self.fill(length.latents, known, guides=guides)
        shown = guides_shown(sections, length.latents)
        for number, (start, stop) in enumerate(guides):
            whom = "for the sections that make any of" if number in shown else "shown to no section, at"
            lines.append(f"guide {number + 1}: {whom} latent frames {spell(range(start, stop))}")
        lines.append("")
        rows = [("section", "generates", "seconds", "sees (latent frames at kernel, . = nothing there yet)")]
        for section in sections:
            seen = "  ".join(f"{spell_seen(group.frames, length.latents)}@{group.kernel}" for group in section.context)
            seconds = spell_seconds(section, length, self.fps)
            rows.append((f"{section.number + 1}", spell(section.target), seconds, seen or "nothing"))
        return "\n".join([*lines, *aligned(rows)])

    def _described(self) -> str:
        described = f"{self.order}, {self.sections} x {self.window} latent frames, {self.name} layout {self.layout}"
        described += ", reanchored" if self.reanchored else ""
        described += f", in {len(self.parts) + 1} parts" if self.parts else ""
        return described + (", with a part for each prompt that has a time" if self.prompted else "")


def unknown(frames: int, known: Collection[int]) -> list[tuple[int, int]]:
    """The stretches of a video's latent frames that are not known, as (start, stop)."""
    return runs(frame for frame in range(frames) if frame not in known)


def connecting_layout(layout: Layout) -> Layout:
    """A layout that sees both sides of a gap in the inverted order: this one if it can, or else the released one."""
    fits = (INVERTED.shape(one) for one in (layout, layout.mirrored()))
    sees_both = (fit for fit in fits if fit and fit.left.far and fit.left.skip)
    return next(sees_both, INVERTED.fit(INVERTED.layout).with_window(layout.window))


def without_effect(
    order: str, layout: str, custom_layout: str = "", paddings: str = PADDINGS[0], parts: str = "", apart: bool = False
) -> list[str]:
    """Lines that name the values of a plan that are not used; `apart` as in Plan."""
    found = []
    if parts.strip() not in ("", PROMPTS) and not order_named(order).backwards:
        found += _parts_without_effect(order_named(order), layout, custom_layout, apart)
    if layout != "custom" and custom_layout.strip():
        found.append(f"custom_layout is without effect: layout is {layout}; choose custom to use it")
    if order != INVERTED.name and paddings != PADDINGS[0]:
        found.append(f"paddings {paddings} is without effect in the {order} order")
    return found


def _parts_without_effect(order: Order, layout: str, custom_layout: str, apart: bool) -> Iterator[str]:
    """Of an order that makes what comes first first, so that parts only change what is seen of the video's beginning."""
    left = order.fit(order.layout if layout == "auto" else chosen_layout(layout, custom_layout)).left
    if apart:
        yield f"parts is without effect in the {order} order of this model, which sees the video's start in every section"
    elif not (left.far and left.near):
        yield f"parts is without effect in the {order} order with this layout, which does not see the video's start"


def section_count(seconds: float, fps: float, frames: int) -> int:
    """Number of sections of so many `frames` in a video, rounded half to even as the official program does."""
    return max(round(seconds * fps / frames), 1)


def max_sections(layout: Layout, window: int) -> int:
    """How many sections a plan may have. Those of a layout with a tail each look at all frames before them."""
    sides = (layout.left, layout.right)
    looks = sum(group.frames + LOOKS_A_GROUP for side in sides for group in (*side.near, *side.far))
    most = min(MAX_SECTIONS, MAX_LOOKS // max(looks, 1))
    if any(side.tail in TAIL_POOL for side in sides):
        return min(most, math.isqrt(2 * MAX_LOOKS // window))
    return most


def nearest(values: Sequence[int], value: int) -> int:
    """Of ascending values, the one nearest to this one."""
    place = bisect_left(values, value)
    return min(values[max(place - 1, 0) : place + 1], key=lambda one: abs(one - value))
