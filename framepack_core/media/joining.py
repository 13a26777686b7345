"""A video between those that it continues and leads up to, joined as its frames arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
import torch
from torch import Tensor

from ..frames import PIXEL_FRAMES, pixel_frames
from .clips import Clip
from .sound import LAYOUTS, Sound, audio_frame, silence
from .video import Footage

BLOCK = 8  # frames that are passed on together


@dataclass(frozen=True)
class Overlap:
    """How many frames of a video are also at the end of the one before it (`first`) and at the start of the next (`last`)."""

    first: int = 0
    last: int = 0

    @classmethod
    def of(cls, given: Iterable[int], frames: int) -> Overlap:
        """From the latent frames that were given, of so many. Each after the first stands for four frames.

        A clip at the end has a frame more: its first one is shown where the last frame before those that were given is.
        """
        known = set(given)
        first = next((frame for frame in range(frames) if frame not in known), frames)
        last = next((count for count in range(frames) if frames - 1 - count not in known), frames)
        return cls(max(0, pixel_frames(first)), PIXEL_FRAMES * last + 1 if last else 0)


def join(video: Footage, before: Clip | None, after: Clip | None, overlap: Overlap, crossfade: int) -> Footage:
    """All frames of `before`, those of `video` that neither of the others has, and all of `after`.

    Of the frames that two of them have, those of the clips are taken, apart from the `crossfade` next to what is only in
    `video`: there one becomes the other, in even steps. Only a few frames of each are held at a time. Raises ValueError if the
    clips cover all of the video.
    """
    first, last = overlap.first if before else 0, overlap.last if after else 0
    if first + last >= video.count:
        raise ValueError("latent was given as a whole, so there is nothing to join; connect the latent of a FramePack sampler")
    others = [clip.count for clip in (before, after) if clip is not None]
    return Footage(
        _joined(video, before, after, Overlap(first, last), crossfade),
        video.count + sum(others) - first - last,
        video.width,
        video.height,
    )


def _joined(video: Footage, before: Clip | None, after: Clip | None, overlap: Overlap, crossfade: int) -> Iterator[Tensor]:
    head, tail = (iter(clip.frames) if clip else iter(()) for clip in (before, after))
    if before is not None:
        yield from _blocks(islice(head, before.count - overlap.first))
    number = 0
    for chunk in video.chunks:
        yield torch.stack(
            [
                _shown(frame, index, video.count, overlap, crossfade, head, tail)
                for index, frame in enumerate(chunk.float().cpu(), number)
            ]
        )
        number += len(chunk)
    yield from _blocks(tail)


def _shown(
    frame: Tensor, index: int, count: int, overlap: Overlap, crossfade: int, head: Iterator[Tensor], tail: Iterator[Tensor]
) -> Tensor:
    """A frame of the video, or the clip's in its place, or a blend of both."""
    if index < overlap.first:
        return _blend(next(head), frame, overlap.first - index, min(crossfade, overlap.first))
    from_end = count - index
    if from_end <= overlap.last:
        return _blend(next(tail), frame, overlap.last - from_end + 1, min(crossfade, overlap.last))
    return frame


def _blend(original: Tensor, frame: Tensor, distance: int, crossfade: int) -> Tensor:
    """`distance` is 1 next to what is only in the video."""
    return original.lerp(frame, max(0, crossfade + 1 - distance) / (crossfade + 1))


def _blocks(frames: Iterator[Tensor]) -> Iterator[Tensor]:
    while block := list(islice(frames, BLOCK)):
        yield torch.stack(block)


@dataclass(frozen=True)
class Piece:
    """Sound that is heard from `start` to `stop`, in seconds."""

    sound: Sound
    start: Fraction
    stop: Fraction


@dataclass(frozen=True)
class Soundtrack:
    """Pieces one after the other, at the highest of their rates and with the most of their channels; silence between them."""

    pieces: tuple[Piece, ...]

    @property
    def rate(self) -> int:
        return max(piece.sound.rate for piece in self.pieces)

    @property
    def channels(self) -> int:
        return max(piece.sound.channels for piece in self.pieces)

    def blocks(self) -> Iterator[Tensor]:
        written = 0
        for piece in self.pieces:
            start, stop = round(piece.start * self.rate), round(piece.stop * self.rate)
            yield silence(self.channels, start - written)
            written = start
            for block in resampled(piece.sound, self.rate, self.channels):
                part = block[:, : stop - written]
                written += part.shape[1]
                yield part
                if written == stop:
                    break


def resampled(sound: Sound, rate: int, channels: int) -> Iterator[Tensor]:
    """Blocks of at most a second, `C N`, unchanged if the sound is of this rate and has these channels."""
    blocks = (part for block in sound.blocks() for part in block.split(sound.rate, dim=1) if part.shape[1])
    if (sound.rate, sound.channels) == (rate, channels):
        yield from blocks
        return
    resampler = av.AudioResampler(format="fltp", layout=LAYOUTS[channels], rate=rate)
    for block in blocks:
        for frame in resampler.resample(audio_frame(block, sound.rate)):
            yield torch.from_numpy(frame.to_ndarray())
    for frame in resampler.resample(None):
        yield torch.from_numpy(frame.to_ndarray())
