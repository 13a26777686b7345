"""How a video was made, for nodes that go on from it: FramePack Redo and FramePack Save Video."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .plan import Plan


@dataclass(frozen=True)
class Shown:
    """What latent frames `start` to `stop` - 1 were made with besides the video: a guide `1 16 1 H W`, an image embedding."""

    start: int
    stop: int
    guide: Tensor | None = None
    embedding: Any = None

    def covers(self, frames: Iterable[int]) -> int:
        """How many of these frames were made with it."""
        return sum(self.start <= frame < self.stop for frame in frames)


@dataclass(frozen=True)
class Made:
    """The plan of a video of so many latent frames, which of them were `given`, and what those that were made were `shown`.

    `end` `B 16 1 H W` is what was seen at the end and is not in the video: an image beyond it, or a weakened last frame.
    What is left of a cancelled run `begins` or `ends` where the plan's video does, or not. If sections were made again since,
    `plan` and `given` are those of the whole video. Where sections are apart, nothing is in
    `shown`: what they are shown goes with the video in another way (`latent.BEFORE`).
    """

    plan: Plan
    given: tuple[int, ...]
    frames: int
    shown: tuple[Shown, ...] = ()
    begins: bool = True
    ends: bool = True
    end: Tensor | None = None

    def embedding(self, target: Collection[int]) -> Any:
        """The image embedding with which most of these latent frames were made."""
        most = max(self.shown, key=lambda one: one.covers(target), default=None)
        return most.embedding if most is not None and most.covers(target) else None

    def cut(self, start: int, stop: int) -> Made:
        """The same of its latent frames from `start` up to but not including `stop`; the plan stays that of the whole."""
        given = tuple(frame - start for frame in self.given if start <= frame < stop)
        shown = tuple(
            replace(one, start=one.start - start, stop=one.stop - start)
            for one in self.shown
            if start <= one.start and one.stop <= stop
        )
        end = self.end if stop == self.frames else None
        return replace(self, given=given, frames=stop - start, shown=shown, end=end)

    def again(self, made: Iterable[Shown], end: Tensor | None = None) -> Made:
        """With sections that were made again and shown this, and this end unless they saw none."""
        new = tuple(made)
        kept = (one for one in self.shown if not any(other.covers(range(one.start, one.stop)) for other in new))
        return replace(self, shown=(*kept, *new), end=self.end if end is None else end)

    def fits(self, latents: Tensor) -> bool:
        """Whether guides and the end have the size of these latents `B 16 T H W`, which may have been resized since."""
        pictures = [self.end, *(one.guide for one in self.shown)]
        return all(picture is None or picture.shape[3:] == latents.shape[3:] for picture in pictures)

    def without_pictures(self) -> Made:
        """Without guides and an end."""
        return replace(self, shown=tuple(replace(one, guide=None) for one in self.shown), end=None)
