"""A video that exists, read a frame at a time: its pictures and its sound, as ComfyUI's own nodes show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

import av
import av.container
import av.error
import numpy
import torch
from torch import Tensor

from .sound import LAYOUTS, Sound, silence

EIGHT_BITS = ("yuvj420p", "yuvj422p", "yuvj444p", "rgb24", "rgba", "pal8")  # which ComfyUI reads in 8 bits, and others in more


@dataclass(frozen=True)
class Clip:
    """`count` frames `H W 3` in 0..1 of a size and at a rate that are agreed on, and the sound that begins with them."""

    frames: Iterable[Tensor]
    count: int
    sound: Sound | None = None


@dataclass(frozen=True)
class VideoFile:
    """A path or the bytes of a file, from `start` seconds on and `duration` seconds long; 0 is to the end."""

    file: str | BytesIO
    start: float = 0.0
    duration: float = 0.0

    def pictures(self) -> Iterator[Tensor]:
        """Frames `H W 3` in 0..1 as they are shown: turned as the file says, without transparency, in 16 bits."""
        return (picture(frame) for frame in self.frames())

    def frames(self) -> Iterator[av.VideoFrame]:
        """What can be decoded. Raises ValueError for a file without pictures, and OSError."""
        with self._opened() as container:
            stream = pictures_of(container)
            stream.thread_type = "AUTO"
            assert stream.time_base is not None
            first, stop = (int(time / stream.time_base) for time in (self.start, self.start + self.duration))
            if first:
                container.seek(first, stream=stream)
            for frame in decoded(container, stream):
                if self.duration and frame.pts is not None and frame.pts >= stop:
                    return
                if frame.pts is None or frame.pts >= first:
                    yield frame

    def length(self, frames: Iterable[av.VideoFrame]) -> Length:
        """From `self.frames()`, all of which are decoded: what a file says of its length may be wrong."""
        count, begin = 0, self.start
        for count, frame in enumerate(frames, 1):
            if count == 1 and frame.time is not None:
                begin = frame.time
        if not count:
            raise ValueError("no picture can be decoded")
        return Length(count, self.rate(), begin)

    def rate(self) -> float:
        """Frames a second, on average. Raises ValueError for a file without pictures, and OSError."""
        with self._opened() as container:
            return float(pictures_of(container).average_rate or 1)

    def sound(self, begin: float) -> FileSound | None:
        """What is heard from `begin` seconds on; None if nothing can be decoded."""
        frame = next(self.heard(begin), None)
        if frame is None:
            return None
        return FileSound(self, begin, frame.sample_rate, min(frame.layout.nb_channels, max(LAYOUTS)))

    def heard(self, begin: float) -> Iterator[av.AudioFrame]:
        """The last stream of sound that can be decoded, from the frame on in which this time lies."""
        with self._opened() as container:
            streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
            if not streams:
                return
            if self.start > 0:
                container.seek(int(self.start * av.time_base))
            for frame in decoded(container, streams[-1]):
                if frame.time is None or frame.time + frame.samples / frame.sample_rate > begin:
                    yield frame

    def _opened(self) -> av.container.InputContainer:
        file = BytesIO(self.file.getvalue()) if isinstance(self.file, BytesIO) else self.file
        return av.open(file, "r")


@dataclass(frozen=True)
class Length:
    """So many frames, at a rate that holds on average, of which the first is shown at `begin` seconds of the file."""

    count: int
    fps: float
    begin: float


@dataclass(frozen=True)
class FileSound:
    """Sound of a file from `begin` seconds on, silent until the file's own begins."""

    file: VideoFile
    begin: float
    rate: int
    channels: int

    def blocks(self) -> Iterator[Tensor]:
        resampler = av.AudioResampler(format="fltp", layout=LAYOUTS[self.channels], rate=self.rate)
        early = None  # samples before `begin` that are still to come
        for frame in self.file.heard(self.begin):
            if early is None:
                early = round((self.begin - (frame.time or 0.0)) * self.rate)
                yield silence(self.channels, max(0, -early))
            for part in resampler.resample(frame):
                yield torch.from_numpy(part.to_ndarray())[:, max(0, early) :]
                early -= part.samples
        for part in resampler.resample(None):
            yield torch.from_numpy(part.to_ndarray())


def pictures_of(container: av.container.InputContainer) -> av.VideoStream:
    """Raises ValueError for a file without pictures."""
    if not container.streams.video:
        raise ValueError("it has no pictures")
    return container.streams.video[0]


def decoded(container: av.container.InputContainer, stream) -> Iterator:
    """Frames of a stream, without those that are damaged."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from frames


def picture(frame: av.VideoFrame) -> Tensor:
    """`H W 3` in 0..1, in the colours that ComfyUI sees; `gbrp16le` holds up at the edges of pictures of any size."""
    kind, white = ("rgb24", 255) if frame.format.name in EIGHT_BITS else ("gbrp16le", 65535)
    turned = numpy.rot90(frame.to_ndarray(format=kind), round(frame.rotation / 90))
    return torch.from_numpy(turned.astype(numpy.float32) / white)


def chosen(items: Iterable, indices: Iterable[int]) -> Iterator:
    """The items of these numbers, which never go down."""
    numbered = iter(enumerate(items))
    number, item = -1, None
    for index in indices:
        if index > number:
            number, item = next(islice(numbered, index - number - 1, None))
        yield item
