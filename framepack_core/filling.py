"""How sections fill a video: the frames that one generates, those that it sees, and the time indices of both, as integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .frames import Length, runs
from .layout import BASE_KERNEL, TAIL_POOL, Group, Kernel, Pool, Side, tail_kernel, token_count
from .orders import Step


@dataclass(frozen=True)
class ContextGroup:
    """Frames of the video that become tokens with one kernel; None is a frame that does not exist yet (zeros)."""

    kernel: Kernel
    frames: tuple[int | None, ...]
    indices: tuple[int, ...]
    pool: Pool = "none"

    def tokens(self, height: int, width: int) -> int:
        return token_count(len(self.frames), self.kernel, height, width, self.pool)


@dataclass(frozen=True)
class Section:
    """One call of the sampler: the frames it generates, what it sees, and the time indices of both.

    `context` is in the released token order: coarsest kernel first, then by time.
    """

    number: int
    target: tuple[int, ...]
    indices: tuple[int, ...]
    context: tuple[ContextGroup, ...]

    @property
    def sees(self) -> set[int]:
        """The frames in its context, guides and the end frame included."""
        return {frame for group in self.context for frame in group.frames if frame is not None}

    def target_tokens(self, height: int, width: int) -> int:
        return token_count(len(self.target), BASE_KERNEL, height, width)

    def context_tokens(self, height: int, width: int) -> int:
        return sum(group.tokens(height, width) for group in self.context)


def seconds_shown(section: Section, length: Length, fps: float) -> list[tuple[float, float]]:
    """When in the video the section's frames are shown: from, up to; one pair for each run of frames."""
    return [(length.begins(start) / fps, length.begins(stop) / fps) for start, stop in runs(section.target)]


class Done:
    """The frames of a video that exist already. Each question about them takes the same time, however long the video is.

    `end` says whether the frame beyond the last, an end image, is there too.
    """

    def __init__(self, frames: int, known: Iterable[int]) -> None:
        self.last, self.end = frames - 1, False
        self._forwards, self._backwards = bytearray(frames), bytearray(frames)  # 1 for a frame that exists
        self.add(known)

    def add(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self._forwards[frame] = self._backwards[self.last - frame] = 1

    def forwards(self) -> _Past:
        return _Past(self._forwards, beyond=False)

    def backwards(self) -> _Past:
        """The same in the video played backwards."""
        return _Past(self._backwards, beyond=self.end)


@dataclass(frozen=True)
class _Past:
    """The frames that exist, seen from a section that looks at those before it; `beyond`: whether there is a frame -1."""

    flags: bytearray
    beyond: bool

    def __contains__(self, frame: int) -> bool:
        return self.beyond if frame == -1 else frame in range(len(self.flags)) and self.flags[frame] == 1

    def nearest(self, start: int) -> int:
        """The last frame before `start`, or -1."""
        return self.flags.rfind(1, 0, start)

    def frames(self, first: int, stop: int) -> tuple[int | None, ...]:
        """The frames from `first` up to but not including `stop`; None for one that does not exist."""
        return tuple(frame if frame in self else None for frame in range(first, stop))


def section_of(number: int, step: Step, done: Done, anchor: int | None, apart: bool) -> Section:
    """A section that sees the frame `anchor` in the place of the start image, unless it is None.

    One that has nothing before it sees nothing there or, where sections are `apart`, frames that do not exist yet.
    """
    indices: list[int] = []
    groups: list[ContextGroup] = []
    at = 0
    for span in _spans(step, done, anchor, apart):
        stretch = range(at, at + span.length)
        at += span.length
        if span.kernel:
            groups.append(ContextGroup(span.kernel, span.frames, tuple(stretch), span.pool))
        elif span.frames:
            indices += stretch
    groups.sort(key=lambda group: group.kernel.t * group.kernel.h * group.kernel.w, reverse=True)
    return Section(number, step.target, tuple(indices), tuple(groups))


@dataclass(frozen=True)
class _Span:
    """A stretch of time indices: context frames, generated frames (no kernel), or blanks (no frames)."""

    length: int
    frames: tuple[int | None, ...] = ()
    kernel: Kernel | None = None
    pool: Pool = "none"

    def reversed(self, last: int) -> _Span:
        """The same stretch in a video of frames 0..last played backwards."""
        frames = tuple(None if frame is None else last - frame for frame in self.frames[::-1])
        return _Span(self.length, frames, self.kernel, self.pool)


def _spans(step: Step, done: Done, anchor: int | None, apart: bool) -> list[_Span]:
    """The time axis of a section: what is before the generated frames, these, and what is after them."""
    target, layout, blank, origin = step
    left = _left_spans(layout.left, target[0], done.forwards(), blank, origin)
    far = len(layout.left.far)
    if anchor is not None:
        left = [*(_Span(span.length, (anchor,) * span.length, span.kernel) for span in left[:far]), *left[far:]]
    elif not apart and done.forwards().nearest(target[0]) < 0:
        left = [_Span(span.length) for span in left]  # nothing, rather than zeros: no token, the same indices
    right = _left_spans(layout.right.mirrored(), done.last - target[-1], done.backwards())
    return [*left, *_target_spans(target), *(span.reversed(done.last) for span in right[::-1])]


def _left_spans(side: Side, start: int, past: _Past, blank: int | None = None, origin: int = 0) -> list[_Span]:
    """Everything before the generated frames, which begin at `start`, in time order.

    Near groups are the frames just before. Far groups are the video's first frames, from `origin` on, or, where nothing is
    near, the frames nearest to the generated ones that exist.
    """
    first_near = start - side.near_frames
    near = _group_spans(side.near, first_near, past)
    if side.skip and not side.near:
        nearest = past.nearest(start)
        blank = start - nearest - 1 if blank is None else blank
        return [*_group_spans(side.far, nearest + 1 - side.far_frames, past), _Span(blank)]
    far = _group_spans(side.far, origin, past, start)
    if side.skip:
        return [*far, _Span(max(0, first_near - side.far_frames - origin)), *near]
    between = max(0, first_near - side.far_frames)
    if between and side.tail in TAIL_POOL:
        tail = _Span(between, past.frames(side.far_frames, first_near), tail_kernel(side), TAIL_POOL[side.tail])
        return [*far, tail, *near]
    return [*far, *near]


def _group_spans(groups: tuple[Group, ...], first: int, past: _Past, stop: int | None = None) -> list[_Span]:
    """Groups of frames from `first` on; those from `stop` on do not count as existing."""
    spans = []
    for group in groups:
        frames = past.frames(first, first + group.frames)
        if stop is not None:
            frames = tuple(frame if frame is not None and frame < stop else None for frame in frames)
        spans.append(_Span(group.frames, frames, group.kernel))
        first += group.frames
    return spans


def _target_spans(target: tuple[int, ...]) -> list[_Span]:
    """The generated frames, with blanks between two runs."""
    spans: list[_Span] = []
    end = target[0]
    for start, stop in runs(target):
        spans += [_Span(start - end), _Span(stop - start, tuple(range(start, stop)))]
        end = stop
    return spans


def covering(target: Sequence[int], guides: Sequence[tuple[int, int]], first: int) -> int | None:
    """Which of the guides, whose frames are numbered from `first` on, covers most of these frames, if any covers one."""
    covered = [sum(start <= frame < stop for frame in target) for start, stop in guides]
    return first + covered.index(max(covered)) if any(covered) else None


def with_any_guide(section: Section, frames: int) -> Section:
    """A section of a video of so many frames, which sees -1 for any guide: a guide's number depends on the video's length."""
    return _seeing(section, lambda frame: -1 if frame > frames else frame)


def guides_shown(sections: Iterable[Section], frames: int) -> set[int]:
    """Which guides, numbered from 0, these sections of a video of so many latent frames are shown."""
    return {frame - frames - 1 for section in sections for frame in section.sees if frame > frames}


def turned(section: Section, turn: int) -> Section:
    """A section of a loop that is laid out several times, every `turn` latent frames, with the frames of its video."""

    target = tuple(frame + 1 for frame in section.target)
    return replace(_seeing(section, lambda frame: frame % turn + 1), target=target)


def _seeing(section: Section, number: Callable[[int], int]) -> Section:
    """The section with another number for each frame that it sees."""

    def renumbered(frames: Iterable[int | None]) -> tuple[int | None, ...]:
        return tuple(None if frame is None else number(frame) for frame in frames)

    return replace(section, context=tuple(replace(group, frames=renumbered(group.frames)) for group in section.context))
