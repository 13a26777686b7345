"""One picture instead of a video: a section of a single frame, which may have any time index.

The further its index is from that of a still that the section sees, the more the picture differs from it. Indices and empty
frames are those of musubi-tuner's one-frame inference; a second still after the section is furusu's "kisekaeichi".
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .filling import ContextGroup, Section
from .frames import Length
from .layout import BASE_KERNEL
from .orders import INVERTED
from .placing import Frames, Placed, latent_frame
from .plan import Plan
from .timeline import Guide, Timeline

History = Literal["full", "no 4x", "no 2x 4x", "none", "no 2x", "no post", "no post 2x", "no post 4x"]
HISTORIES: tuple[History, ...] = get_args(History)
POST, TWICE, FOURFOLD = range(3)  # the released layout's groups after the section
GROUPS: dict[History, tuple[int, ...]] = {
    "full": (POST, TWICE, FOURFOLD),
    "no 4x": (POST, TWICE),
    "no 2x 4x": (POST,),
    "none": (),
    "no 2x": (POST, FOURFOLD),
    "no post": (TWICE, FOURFOLD),
    "no post 2x": (FOURFOLD,),
    "no post 4x": (TWICE,),
}

LAYOUT = INVERTED.fit(INVERTED.layout)  # the released one
AFTER = LAYOUT.left.far_frames + LAYOUT.window  # the index of what follows a section: 10
LAST = AFTER - 1  # the index of a section's last frame
MAX_INDEX = 100
FIRST_STILL = 2  # of a timeline of one frame: 0 is the picture, 1 would be an end image


@dataclass(frozen=True)
class OneFrame:
    """A picture at the time index `target` that sees `stills` at their `indices`, and of `history` the frames, which are empty.

    `fps` is the rate at which times of the stills count.
    """

    stills: tuple[Placed, ...]
    indices: tuple[int, ...]
    target: int = LAST
    history: History = "full"
    fps: float = 30.0

    @classmethod
    def of(cls, given: Frames, target: int = LAST, history: History = "full", control_index: str = "") -> OneFrame:
        """From what is placed: at the start (index 0), at the end (10) or at a time, unless `control_index` says otherwise.

        Raises ValueError if nothing is placed, for what is no still, and for indices that are out of range or do not fit.
        """
        if history not in HISTORIES:
            raise ValueError(f"history is {history!r}; choose one of {', '.join(HISTORIES)}")
        if given.finished:
            raise ValueError("frames are the rest of a finished video, not stills; connect them from FramePack_Place")
        if not given.placed:
            raise ValueError("nothing is placed, but a picture is made from a still; connect frames from FramePack_Place")
        if clips := [placed for placed in given.placed if not placed.still]:
            raise ValueError(
                f"what is placed at the {clips[0].at} is a clip, but a picture is made from stills; pick a single image with "
                "ImageFromBatch"
            )
        indices = indices_of(control_index, len(given.placed)) or tuple(_index(placed, given.fps) for placed in given.placed)
        for name, index in (("target_index", target), *(("a still's index", index) for index in indices)):
            if not 0 <= index <= MAX_INDEX:
                raise ValueError(f"{name} is {index}; choose 0 to {MAX_INDEX}")
        return cls(given.placed, indices, target, history, given.fps)

    @property
    def plan(self) -> Plan:
        """The plan of a section that the released model would make where the picture is."""
        return Plan(1, fps=self.fps)

    def section(self) -> Section:
        stills = [ContextGroup(BASE_KERNEL, (FIRST_STILL + n,), (index,)) for n, index in enumerate(self.indices)]
        context = [*stills, *_empty(GROUPS[self.history])]
        context.sort(key=lambda group: (-math.prod(group.kernel), group.indices))
        return Section(0, (0,), (self.target,), tuple(context))

    def timeline(self) -> Timeline:
        """The picture before it is made, with the stills as what guides it."""
        B, C, _, H, W = self.stills[0].picture.shape
        timeline = Timeline.empty(1, B, C, H, W)
        timeline.guides = tuple(Guide(still.picture.to(timeline.latents), 0, 1) for still in self.stills)
        return timeline

    def embedding(self) -> Any:
        """The image embedding of the earliest still that has one."""
        in_time = sorted(zip(self.indices, self.stills, strict=True), key=lambda one: one[0])
        return next((still.embedding for _, still in in_time if still.embedding is not None), None)

    def spelled(self) -> str:
        stills = ", ".join(map(str, self.indices))
        return f"time index of the picture: {self.target}, of what it sees: {stills} (history: {self.history})"


def indices_of(text: str, stills: int) -> tuple[int, ...]:
    """Time indices from a text like `0;10`, one for each still; none from an empty text. Raises ValueError."""
    words = [word.strip() for word in re.split("[;,]", text)] if text.strip() else []
    if not all(re.fullmatch(r"\d+", word) for word in words):
        raise ValueError(f"control_index is {text!r}; write whole numbers with semicolons, like 0;10")
    if words and len(words) != stills:
        placed = "1 still is" if stills == 1 else f"{stills} stills are"
        raise ValueError(f"control_index is {text!r}, but {placed} placed; write a number for each, in the order of the chain, "
                         "or leave it empty")  # fmt: skip
    return tuple(map(int, words))


def _index(still: Placed, fps: float) -> int:
    if still.at == "time":
        return latent_frame(still.seconds, fps, Length(0))
    return 0 if still.at == "start" else AFTER


def _empty(groups: Collection[int]) -> Iterator[ContextGroup]:
    """These groups after a section in the released layout, each at its place, without any frames."""
    index = AFTER
    for number, group in enumerate(LAYOUT.right.near):
        if number in groups:
            yield ContextGroup(group.kernel, (None,) * group.frames, tuple(range(index, index + group.frames)))
        index += group.frames
