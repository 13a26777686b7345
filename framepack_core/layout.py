"""The paper's notation for packed contexts (arXiv 2504.12626, section 3 and table 1).

A layout is written in time order, oldest left: `f1k1_x_g9_f1k1f2k2f16k4_td` shows the transformer one frame, skips blank
time indices, generates nine latent frames and shows the 1, 2 and 16 frames after them with coarser and coarser kernels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

Tail = Literal["td", "ta", "tc"]
Separator = Literal["x", "td", "ta", "tc"]
Pool = Literal["none", "frame", "global"]

TAIL_POOL: dict[str, Pool] = {"ta": "frame", "tc": "global"}
FRAME_POOL = 32  # "ta" pools each tail frame by (1, 32, 32) latent pixels


class Kernel(NamedTuple):
    """Latent frames, rows and columns that become one token."""

    t: int
    h: int
    w: int

    def __str__(self) -> str:
        cube = self.h == self.w == 2 * self.t
        return f"k{self.t}" if cube else f"k{self.t}h{self.h}w{self.w}"


BASE_KERNEL = Kernel(1, 2, 2)
MAX_FRAMES, MAX_KERNEL = 1024, 128  # of a group: a typo must not ask for a billion frames


@dataclass(frozen=True)
class Group:
    """`fNkM`: N consecutive frames patchified with one kernel."""

    frames: int
    kernel: Kernel

    def __str__(self) -> str:
        return f"f{self.frames}{self.kernel}"


@dataclass(frozen=True)
class Side:
    """Context on one side of the generated frames; groups in time order.

    `near` is next to the generated frames. Beyond it lies a tail, or a stretch of skipped time indices (`x`), and on the
    other side of that `far`.
    """

    near: tuple[Group, ...] = ()
    far: tuple[Group, ...] = ()
    tail: Tail | None = None
    skip: bool = False

    @property
    def near_frames(self) -> int:
        return sum(group.frames for group in self.near)

    @property
    def far_frames(self) -> int:
        return sum(group.frames for group in self.far)

    @property
    def empty(self) -> bool:
        return self == Side()

    def mirrored(self) -> Side:
        return replace(self, near=self.near[::-1], far=self.far[::-1])

    def fields(self) -> list[str]:
        """The notation's fields, from the far end towards the generated frames."""
        far, near = ("".join(map(str, groups)) for groups in (self.far, self.near))
        separator = "x" if self.skip else self.tail
        return [field for field in (far, separator, near) if field]


@dataclass(frozen=True)
class Layout:
    """What the transformer sees around `window` generated latent frames."""

    left: Side
    window: int
    right: Side

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Parse a layout string. Raises a ValueError that shows the string with the wrong place marked."""
        return _parse(text)

    def __str__(self) -> str:
        return "_".join([*self.left.fields(), f"g{self.window}", *self.right.fields()[::-1]])

    def mirrored(self) -> Layout:
        """The same layout with time reversed."""
        return Layout(self.right.mirrored(), self.window, self.left.mirrored())

    def with_window(self, window: int) -> Layout:
        return replace(self, window=window)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel in use, coarsest first."""
        groups = (*self.left.near, *self.left.far, *self.right.near, *self.right.far)
        return tuple(sorted({group.kernel for group in groups}, key=math.prod, reverse=True))

    def context_tokens(self, height: int, width: int, history: int) -> int:
        """Tokens of the context at a latent size when `history` frames exist on every side that has a tail.

        Frames that do not exist yet are shown as zeros, so only a tail depends on the history.
        """
        sides = (self.left, self.right.mirrored())
        return sum(_left_tokens(side, height, width, history) for side in sides)

    def context_bound(self, height: int, width: int) -> float:
        """The largest `context_tokens` of any history; infinite with the tail `ta`, which grows with the history."""
        sides = (self.left, self.right)
        if any(side.tail == "ta" for side in sides):
            return math.inf
        longest = max(side.near_frames + side.far_frames for side in sides) + 1
        return self.context_tokens(height, width, longest)


PRESETS: dict[str, str] = {
    "framepack": "f1k1_x_g9_f1k1f2k2f16k4_td",
    "f1": "f1k1_td_f16k4f2k2f1k1_g9",
    "vanilla": "td_f16k4f2k2f1k1_g9",
    "endpoints": "td_f16k4f2k2f1k1_g9_x_f1k1",
    "geometric": "td_f1k1h8w8f1k1h8w4f1k1h4w4f1k1h4w2f1k1_g9",
    "duplicated": "td_f3k1h8w8f3k1h4w4f1k1_g9",
    "temporal": "td_f8k8f4k4f2k2f1k1_g9",
    "important-start": "f1k1_td_f1k1h8w8f1k1h8w4f1k1h4w4f1k1h4w2f1k1_g9",
    "symmetric": "f1k1f1k1h4w2f1k1h4w4_td_f1k1h4w4f1k1h4w2f1k1_g9",
}


def resolve(name: str) -> Layout:
    """The layout of this preset's name or layout string. Raises ValueError if it is neither."""
    return Layout.parse(PRESETS.get(name, name))


def chosen_layout(layout: str, custom: str) -> str:
    """The name or string of the layout that was chosen: `custom` is what `layout` stands for if it is "custom".

    Raises ValueError if that is empty.
    """
    if layout != "custom":
        return layout
    if not custom.strip():
        raise ValueError("layout is custom but custom_layout is empty; write one, e.g. f1k1_x_g9_f1k1f2k2f16k4_td")
    return custom.strip()


def token_count(frames: int, kernel: Kernel, height: int, width: int, pool: Pool = "none") -> int:
    """Tokens of `frames` latent frames of one group after padding to multiples of the kernel."""
    if pool == "global":
        frames, height, width = 1, 1, 1
    if pool == "frame":
        height, width = math.ceil(height / FRAME_POOL), math.ceil(width / FRAME_POOL)
    return math.ceil(frames / kernel.t) * math.ceil(height / kernel.h) * math.ceil(width / kernel.w)


def tail_kernel(left: Side) -> Kernel:
    """The kernel for a left side's tail: that of the group next to it, the outermost of `near`."""
    return left.near[0].kernel if left.near else BASE_KERNEL


def _left_tokens(side: Side, height: int, width: int, history: int) -> int:
    tokens = sum(token_count(group.frames, group.kernel, height, width) for group in (*side.near, *side.far))
    tail = history - side.near_frames - side.far_frames
    if tail > 0 and side.tail in TAIL_POOL:
        tokens += token_count(tail, tail_kernel(side), height, width, TAIL_POOL[side.tail])
    return tokens


_GROUP = re.compile(r"f([1-9]\d*)k([1-9]\d*)(?:h([1-9]\d*)w([1-9]\d*))?")
_GENERATED = re.compile(r"g([1-9]\d*)")
_SEPARATORS: dict[str, Separator] = {"x": "x", "td": "td", "ta": "ta", "tc": "tc"}


@dataclass(frozen=True)
class _Field:
    """One underscore-separated field: a separator, or groups."""

    start: int
    separator: Separator | None = None
    groups: tuple[Group, ...] = ()


def _parse(text: str) -> Layout:
    left: list[_Field] = []
    right: list[_Field] = []
    window: int | None = None
    start = 0
    for field in text.split("_"):
        if match := _GENERATED.fullmatch(field):
            if window is not None:
                raise _error(text, start, "a layout generates only once, but this is a second g")
            window = int(match[1])
        elif field in _SEPARATORS:
            (left if window is None else right).append(_Field(start, separator=_SEPARATORS[field]))
        else:
            (left if window is None else right).append(_Field(start, groups=_groups(text, start, start + len(field))))
        start += len(field) + 1
    if window is None:
        raise _error(text, len(text), "no generated frames: add a field like g9")
    return Layout(_side(text, left), window, _side(text, right[::-1]))


def _groups(text: str, start: int, end: int) -> tuple[Group, ...]:
    groups: list[Group] = []
    while start < end or not groups:
        match = _GROUP.match(text, start, end)
        if match is None:
            raise _error(text, start, "expected a group like f2k2 or f1k1h4w2, or one of g9, x, td, ta, tc")
        frames, t = int(match[1]), int(match[2])
        kernel = Kernel(t, int(match[3] or 2 * t), int(match[4] or 2 * t))
        if kernel.h % BASE_KERNEL.h or kernel.w % BASE_KERNEL.w:
            raise _error(text, start, "a kernel's height and width must be even: tokens start from 2x2 latent pixels")
        if frames > MAX_FRAMES or max(kernel) > MAX_KERNEL:
            raise _error(text, start, f"a group has at most {MAX_FRAMES} frames and a kernel of at most {MAX_KERNEL}")
        groups.append(Group(frames, kernel))
        start = match.end()
    return tuple(groups)


def _side(text: str, fields: list[_Field]) -> Side:
    """A side from its fields, outermost first: [[far] separator] near, or far x."""
    match fields:
        case []:
            return Side()
        case [_Field(separator=None) as near]:
            return Side(near.groups)
        case [_Field(separator="td" | "ta" | "tc" as tail), _Field(separator=None) as near]:
            return Side(near.groups, tail=tail)
        case [_Field(separator=None) as far, _Field(separator="x")]:
            return Side(far=far.groups, skip=True)
        case [_Field(separator=None) as far, _Field(separator=str() as mark), _Field(separator=None) as near]:
            return Side(near.groups, far.groups, None if mark == "x" else mark, skip=mark == "x")
    raise _error(text, _misplaced(fields).start, "a side reads: groups, then a tail (td, ta, tc) or x, then groups again")


def _misplaced(fields: list[_Field]) -> _Field:
    """The field to point at: a separator without groups on both sides, or one field too many."""
    inward = fields[::-1]
    for previous, field in pairwise(inward):
        if (previous.separator is None) == (field.separator is None):
            return field
    return inward[3] if len(inward) > 3 else next(field for field in inward if field.separator)


def _error(text: str, place: int, reason: str) -> ValueError:
    return ValueError(f"layout {text!r}: {reason}\n  {text}\n  {' ' * place}^")
