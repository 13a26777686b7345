"""Latent frames, frames of the video, and seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

PIXEL_FRAMES = 4  # frames of the video in a latent frame; the first latent frame holds a single one
MAX_FPS = 240.0


def pixel_frames(latent_frames: int) -> int:
    """Frames of a video with this many latent frames: 4 T - 3."""
    return PIXEL_FRAMES * latent_frames - (PIXEL_FRAMES - 1)


def latent_frames(pixel_frames: int) -> int:
    """Latent frames that a VAE makes from this many frames of a video; it leaves out those beyond 4 T - 3."""
    return (pixel_frames + PIXEL_FRAMES - 1) // PIXEL_FRAMES


@dataclass(frozen=True)
class Length:
    """The frames of a video of `latents` latent frames: 4 T - 3.

    A `loop` has 4 T - 4, since its first latent frame is an image by itself and not part of what repeats. A video of an `exact`
    length ends after so many. Where each `apart` latent frames are a clip of their own, every clip has 4 T - 3, and the
    `hidden` latent frames before the first one are not shown.
    """

    latents: int
    loop: bool = False
    exact: int | None = None
    apart: int | None = None
    hidden: int = 0

    @property
    def frames(self) -> int:
        return self.begins(self.latents)

    @property
    def uncut(self) -> Length:
        """The same, with what is too much for an exact length."""
        return replace(self, exact=None)

    def begins(self, latent_frame: int) -> int:
        """The number, from 0, of the first frame that this latent frame stands for."""
        shown = max(0, latent_frame - self.hidden)
        clips, within = divmod(shown, self.apart) if self.apart else (0, shown)
        frames = clips * pixel_frames(self.apart or 0) + max(0, pixel_frames(within) - self.loop)
        return frames if self.exact is None else min(frames, self.exact)

    def place(self, frame: float) -> float:
        """Where in the latent frames a frame is: the reverse of `begins`, between them too."""
        clips, within = divmod(frame, pixel_frames(self.apart)) if self.apart else (0, frame)
        place = (within + PIXEL_FRAMES - 1 + self.loop) / PIXEL_FRAMES if within or self.loop else 0.0
        return self.hidden + clips * (self.apart or 0) + place

    def shown(self, latent_frame: int) -> int:
        """How many frames this latent frame stands for."""
        return self.begins(latent_frame + 1) - self.begins(latent_frame)


def frame_rate(fps: float) -> Fraction:
    """Frames per second as files and encoders want them: 23.976 and 29.97 stay as they are, 30000/1001 is made exact."""
    return Fraction(fps).limit_denominator(1001)


def nearest_frames(count: int, fps: float, wanted: float) -> list[int]:
    """Which of `count` frames of a clip show it at another rate: the nearest by time."""
    if fps == wanted:
        return list(range(count))
    return [min(round(index * fps / wanted), count - 1) for index in range(max(1, round(count * wanted / fps)))]


def runs(frames: Iterable[int | None]) -> list[tuple[int, int]]:
    """Stretches of consecutive frames as (start, stop); None is left out."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if frame is None:
            continue
        if found and frame == found[-1][1]:
            found[-1] = found[-1][0], frame + 1
        else:
            found.append((frame, frame + 1))
    return found
