"""What the picture of a plan shows: its sections, what each sees of the video and how finely, and what every mark means."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from ..filling import Section, guides_shown
from ..frames import Length
from ..layout import BASE_KERNEL, Kernel, Pool, token_count
from ..plan import Plan
from ..spelling import spell_length
from .palette import LIGHT, Palette

LATENT_PIXEL = 8  # video pixels along each side of a latent pixel


@dataclass(frozen=True)
class Detail:
    """How finely a context frame is looked at."""

    kernel: Kernel
    pool: Pool = "none"

    def tokens_a_frame(self, height: int, width: int) -> float:
        return token_count(self.kernel.t, self.kernel, height, width, self.pool) / self.kernel.t


Mark = Detail | Literal["generated", "twice", "unseen", "later", "missing", "skipped", "given"]


@dataclass(frozen=True)
class Chart:
    """What is drawn: the sections and, for every frame, the section that makes it (-1: given); and in which colours."""

    plan: Plan
    height: int
    width: int
    sections: tuple[Section, ...]
    made: tuple[int, ...]
    details: tuple[Detail, ...]
    palette: Palette
    guides: int = 0

    @classmethod
    def of(
        cls,
        plan: Plan,
        height: int,
        width: int,
        known: Collection[int],
        palette: Palette = LIGHT,
        guides: Sequence[tuple[int, int]] = (),
    ) -> Chart:
        plan = plan.beside(len(known))
        sections = plan.fill(len(known) + plan.generated, known, guides=guides)
        made = {frame: -1 for frame in known}
        made |= {frame: section.number for section in sections for frame in section.target}
        groups = [group for section in sections for group in section.context]
        finest_first = sorted({Detail(group.kernel, group.pool) for group in groups}, key=_coarseness)
        frames = tuple(made[i] for i in range(len(made)))
        return cls(plan, height, width, sections, frames, tuple(finest_first), palette, len(guides))

    @property
    def frames(self) -> int:
        return len(self.made)

    @property
    def length(self) -> Length:
        return self.plan.length(self.frames, self.made.count(-1))

    @property
    def seconds(self) -> float:
        return self.length.frames / self.plan.fps

    @cached_property
    def made_runs(self) -> list[tuple[int, int]]:
        """Stretches of frames that one section makes, or none: the first frame, and the section (-1: given)."""
        changes = (frame for frame, maker in enumerate(self.made) if frame == 0 or maker != self.made[frame - 1])
        return [(frame, self.made[frame]) for frame in changes]

    @cached_property
    def legend(self) -> list[tuple[Mark, str]]:
        return legend_entries(self)

    @property
    def full_frame(self) -> int:
        return token_count(1, BASE_KERNEL, self.height, self.width)

    def is_guided(self, section: Section) -> bool:
        """Whether the section is shown a guide in the place of the start image."""
        return bool(guides_shown([section], self.frames))

    @property
    def unseen_guides(self) -> list[str]:
        """What is said of the guides that no section is shown."""
        shown = guides_shown(self.sections, self.frames)
        return [f"guide {number + 1} is shown to no section" for number in range(self.guides) if number not in shown]

    def connects(self, section: Section) -> bool:
        """Whether the section is between a loop's end and its beginning."""
        return section.number >= len(self.sections) - self.plan.loop

    def label(self, section: Section) -> str:
        """What the section's own frames are called."""
        return "connects" if self.connects(section) else "guided" if self.is_guided(section) else "generated"

    def shown(self, rows: int) -> list[Section | None]:
        """The sections in sampling order; if there are more than `rows`, None stands for those in the middle."""
        if rows >= len(self.sections):
            return list(self.sections)
        head = rows // 2
        return [*self.sections[:head], None, *self.sections[head + 1 - rows :]]


def looks(section: Section) -> dict[int, list[Detail]]:
    """The frames a section looks at and how finely, finest first."""
    found: dict[int, list[Detail]] = {}
    for group in section.context[::-1]:
        for frame in group.frames:
            if frame is not None:
                found.setdefault(frame, []).append(Detail(group.kernel, group.pool))
    return found


def missing(section: Section) -> tuple[dict[Detail, int], dict[Detail, int]]:
    """Frames that do not exist yet, before and after the generated ones in time order, counted by detail."""
    counts: tuple[dict[Detail, int], dict[Detail, int]] = ({}, {})
    for group in sorted(section.context, key=lambda group: group.indices):
        count = group.frames.count(None)
        if count:
            side = counts[group.indices[0] > section.indices[0]]
            detail = Detail(group.kernel, group.pool)
            side[detail] = side.get(detail, 0) + count
    return counts


def skips(section: Section) -> Iterator[tuple[int | None, int | None, int]]:
    """Stretches of blank time indices: the frame before, the frame after (None: an empty one), how many."""
    frames = dict(zip(section.indices, section.target, strict=True))
    for group in section.context:
        frames |= dict(zip(group.indices, group.frames, strict=True))
    for before, after in pairwise(sorted(frames)):
        if after > before + 1:
            yield frames[before], frames[after], after - before - 1


def spell_tokens(section: Section, chart: Chart) -> str:
    context = section.context_tokens(chart.height, chart.width)
    target = section.target_tokens(chart.height, chart.width)
    return f"{context:,} + {target:,}"


def title(chart: Chart) -> str:
    plan = chart.plan
    sections, window = _count(len(chart.sections), "section"), _count(plan.window, "latent frame")
    return f"FramePack plan: {plan.order} order, {sections}, window of {window}"


def heading(chart: Chart) -> list[str]:
    """The paragraphs under the title."""
    plan = chart.plan
    bound = plan.layout.context_bound(chart.height, chart.width)
    limit = "grows with the video" if math.isinf(bound) else f"up to {_count(bound, 'token')}"
    return [
        f"{spell_length(chart.length, plan.fps)}, {chart.width * LATENT_PIXEL}x{chart.height * LATENT_PIXEL} pixels",
        f"Layout {plan.name}: {plan.layout}, context: {limit}",
        *([_explain_loop(plan)] if plan.loop else []),
        *chart.unseen_guides,
    ]


def _explain_loop(plan: Plan) -> str:
    other = plan.connection
    return (
        f"{_count(plan.loop, 'section')} from the end to the beginning: {other.order} order, layout {other.name}: "
        f"{other.layout}. The first latent frame is not part of the loop."
    )


def legend_entries(chart: Chart) -> list[tuple[Mark, str]]:
    """What each mark in this picture means; marks that do not occur are left out."""
    entries: list[tuple[Mark, str]] = [
        ("generated", f"made by this section, {_count(chart.full_frame, 'token')} a frame"),
        *((detail, _explain(detail, chart)) for detail in chart.details),
    ]
    sections = chart.sections
    if any(len(details) > 1 for section in sections for details in looks(section).values()):
        entries.append(("twice", "seen twice, in two groups"))
    if any(_unseen(section, chart) for section in sections):
        entries.append(("unseen", "there already, but not seen"))
    if len(sections) > 1:
        entries.append(("later", "not made yet"))
    if any(any(missing(section)) for section in sections):
        entries.append(("missing", "seen as empty frames: not there yet"))
    if any(any(skips(section)) for section in sections):
        entries.append(("skipped", "skipped: only their number is known"))
    if -1 in chart.made:
        entries.append(("given", "given, such as the start image"))
    return entries


def _unseen(section: Section, chart: Chart) -> bool:
    """Whether there are frames from before this section that it does not look at."""
    seen = looks(section)
    return any(maker < section.number and frame not in seen for frame, maker in enumerate(chart.made))


def _explain(detail: Detail, chart: Chart) -> str:
    kernel = detail.kernel
    cost = f"{_count(detail.tokens_a_frame(chart.height, chart.width), 'token')} a frame"
    if detail.pool == "global":
        return f"{kernel}, averaged: 1 token in all"
    if detail.pool == "frame":
        return f"{kernel}, averaged first: {cost}"
    share = kernel.t * kernel.h * kernel.w // math.prod(BASE_KERNEL)
    return f"{kernel}: {'full' if share == 1 else f'1/{share}'} detail, {cost}"


def _coarseness(detail: Detail) -> tuple[bool, bool, int, Kernel]:
    return detail.pool == "global", detail.pool == "frame", math.prod(detail.kernel), detail.kernel


def _short(number: float) -> str:
    """A number as people write it: 1,520 or 24 or 3.1."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _count(number: float, what: str) -> str:
    """The number and the word, in the plural unless it is written as 1."""
    written = _short(number)
    return f"{written} {what}" if written == "1" else f"{written} {what}s"
