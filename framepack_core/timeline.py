"""The video in latent space and which of its frames are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


def is_finite(values: Tensor) -> bool:
    """Whether none is NaN or infinite: their sum would be, too, and takes no memory."""
    return not bool(values.sum(dtype=torch.float32).isfinite().logical_not())


class Guide(NamedTuple):
    """A frame `B C 1 H W` that is shown, instead of the start, to the sections that generate frames `start` to `stop` - 1."""

    latent: Tensor
    start: int
    stop: int


@dataclass
class Timeline:
    """Latent video `B C T H W`, zeros where nothing is known yet; sections fill it in.

    Image-to-video knows frame 0, first-last-frame two, extension a prefix, text-to-video none.
    `end` `B C 1 H W` is shown to the section that samples the last frame as its next neighbour. It is not part of the video,
    nor are the `guides`. `shown` has what sections see of a known frame where that is not what is written, and `blank`, which
    broadcasts to `B C 1 H W`, what they see where there is no frame yet.
    """

    latents: Tensor
    known: set[int] = field(default_factory=set)
    end: Tensor | None = None
    guides: tuple[Guide, ...] = ()
    shown: dict[int, Tensor] = field(default_factory=dict)
    blank: Tensor = field(default_factory=lambda: torch.zeros(1))

    @classmethod
    def of(cls, frames: int, known: Mapping[int, Tensor], end: Tensor | None = None) -> Timeline:
        """A timeline of `frames` latent frames that knows the given ones, each `B C 1 H W`.

        Raises ValueError if no frame is given, if sizes differ, or if a frame lies outside the video.
        """
        given = [*known.values(), *([] if end is None else [end])]
        if not given:
            raise ValueError("no known frame gives the size; start from Timeline.empty")
        B, C, _, H, W = given[0].shape
        for latent in given:
            if latent.shape != (B, C, 1, H, W):
                raise ValueError(f"known frames differ in shape: {tuple(latent.shape)} and {(B, C, 1, H, W)}")
        timeline = cls.empty(frames, B, C, H, W)
        timeline.end = None if end is None else end.to(timeline.latents)
        for index, latent in known.items():
            if not 0 <= index < frames:
                raise ValueError(f"known frame {index} lies outside the {frames} latent frames of the video")
            timeline.write([index], latent)
        return timeline

    @classmethod
    def empty(cls, frames: int, batch: int, channels: int, height: int, width: int) -> Timeline:
        return cls(torch.zeros(batch, channels, frames, height, width))

    @property
    def frames(self) -> int:
        return self.latents.shape[2]

    def write(self, frames: Sequence[int], latents: Tensor) -> None:
        """Put `latents` `B C len(frames) H W` into place; these frames are known from now on."""
        self.latents[:, :, list(frames)] = latents.to(self.latents)
        self.known.update(frames)

    def read(self, frames: Iterable[int | None]) -> Tensor:
        """Frames as sections see them, `B C T H W`: blank for None; beyond the last frame the end frame, then the guides."""
        return torch.cat([self._frame(frame) for frame in frames], dim=2)

    def _frame(self, frame: int | None) -> Tensor:
        if frame is None:
            return self.blank.to(self.latents).expand_as(self.latents[:, :, :1])
        if frame == self.frames:
            if self.end is None:
                raise ValueError(f"frame {frame} is the end frame, but this timeline has none")
            return self.end
        if frame > self.frames:
            return self.guides[frame - self.frames - 1].latent
        return self.shown.get(frame, self.latents[:, :, frame : frame + 1])
