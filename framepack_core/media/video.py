"""A video file, encoded as its frames arrive: H.264 in MP4, or what else is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..frames import frame_rate
from .containers import AUTO, Chosen, choose
from .sound import AudioTrack, Sound

PIXEL_FORMATS = ("yuv420p", "yuv444p", "yuv420p10le")
# H.273's code points for what swscale makes of RGB: BT.601's matrix in the limited range, from sRGB. If one is missing, players
# use BT.709's matrix for pictures of 720 lines or more and show portraits in the wrong colours.
COLOURS = {"colorspace": 6, "color_range": 1, "color_primaries": 1, "color_trc": 13}


@dataclass(frozen=True)
class Encoding:
    """`crf` goes from 0 (lossless with H.264) to 51; lower is better and larger. ProRes has none."""

    fps: float = 30.0
    crf: int = 16
    pixel_format: str = "yuv420p"
    container: str = AUTO
    codec: str = AUTO

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf or not self.rate:
            raise ValueError(f"fps is {self.fps}; choose a value above 0")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}; choose a value from 0 (best) to 51")
        if self.pixel_format not in PIXEL_FORMATS:
            raise ValueError(f"pixel_format is {self.pixel_format}; choose one of {', '.join(PIXEL_FORMATS)}")
        _ = self.chosen

    @property
    def chosen(self) -> Chosen:
        return choose(self.container, self.codec, self.pixel_format)

    @property
    def rate(self) -> Fraction:
        return frame_rate(self.fps)


@dataclass(frozen=True)
class Footage:
    """Frames `F H W 3` in 0..1 as they arrive, and what is known of them before: how many they are, and their size."""

    chunks: Iterable[Tensor]
    count: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.count, self.width, self.height) < 1:
            raise ValueError(f"there are no frames to write: {self.count} of {self.width}x{self.height}")

    @classmethod
    def of(cls, frames: Tensor) -> Footage:
        count, height, width, _ = frames.shape
        return cls([frames], count, width, height)


def write_video(
    path: Path,
    footage: Footage,
    encoding: Encoding,
    audio: Sound | None = None,
    texts: Mapping[str, str] | None = None,
    png_folder: Path | None = None,
) -> None:
    """Write the frames to `path` as they arrive, which `save_video` describes. `path` is only complete in the end.

    The encoders are opened before the first frame is asked for. Raises OSError, and ValueError for what they do not take.
    """
    texts, kind = texts or {}, encoding.chosen.container
    with av.open(str(path), "w", format=kind.format, options=dict(kind.options)) as container:
        container.metadata.update(texts)
        video = VideoTrack(container, encoding, footage)
        sound = None if audio is None else AudioTrack(container, audio, kind.sound)
        with named_refusal(footage, encoding, audio):
            container.start_encoding()
        pngs = None if png_folder is None else Pngs(png_folder, texts)
        for frames in footage.chunks:
            if pngs is not None:
                pngs.write(frames, video.count + 1)
            video.write(frames)
            if sound is not None:
                sound.write(until=video.count / encoding.rate)
        video.close()
        if sound is not None:
            sound.close()


@contextmanager
def named_refusal(footage: Footage, encoding: Encoding, audio: Sound | None) -> Iterator[None]:
    """Make an encoder's refusal say of what."""
    try:
        yield
    except OSError:
        raise
    except av.error.FFmpegError as error:
        sound = "" if audio is None else f", or sound of {audio.channels} channels at {audio.rate} Hz"
        raise ValueError(f"PyAV {av.__version__} cannot encode frames of {footage.width}x{footage.height} in "
                         f"{encoding.pixel_format} at {encoding.fps:g} fps{sound} ({error}); choose yuv420p, a smaller video "
                         "or other sound") from error  # fmt: skip


class VideoTrack:
    """Raises ValueError for a size that the pixel format cannot hold, and for an encoder that this PyAV lacks."""

    def __init__(self, container: av.container.OutputContainer, encoding: Encoding, footage: Footage) -> None:
        chosen = encoding.chosen
        if (footage.height % 2 or footage.width % 2) and "444" not in chosen.stored:
            raise ValueError(f"frames are {footage.width}x{footage.height} but {encoding.pixel_format} needs even sizes; use "
                             "yuv444p")  # fmt: skip
        self.container, self.stored, self.count = container, chosen.stored, 0
        self.stream = cast(av.VideoStream, container.add_stream(chosen.codec.encoder, rate=encoding.rate))
        self.stream.pix_fmt = chosen.stored
        self.stream.width, self.stream.height = footage.width, footage.height
        self.stream.options = chosen.options(encoding.crf)
        for name, code in COLOURS.items():
            setattr(self.stream.codec_context, name, code)

    def write(self, frames: Tensor) -> None:
        height, width = frames.shape[1:3]
        if (width, height) != (self.stream.width, self.stream.height):
            raise ValueError(f"frames are {width}x{height}, expected {self.stream.width}x{self.stream.height}")
        for frame in pixels(frames, deep="10" in self.stored):
            source = "rgb48le" if frame.dtype == numpy.uint16 else "rgb24"
            picture = av.VideoFrame.from_ndarray(frame, format=source).reformat(format=self.stored)
            for name, code in COLOURS.items():
                setattr(picture, name, code)  # ProRes takes them from here
            self.container.mux(self.stream.encode(picture))
            self.count += 1

    def close(self) -> None:
        if self.count == 0:
            raise ValueError("there are no frames to write")
        self.container.mux(self.stream.encode(None))


def pixels(frames: Iterable[Tensor], deep: bool = False) -> Iterator[numpy.ndarray]:
    """Each frame `H W 3` in 8 bits, or in 16 if `deep`."""
    scale, kind = (65535, numpy.uint16) if deep else (255, numpy.uint8)
    for frame in frames:
        yield (frame.float().clamp(0, 1) * scale).round().cpu().numpy().astype(kind)


class Pngs:
    """`texts` are stored in each, apart from names in letters that a PNG cannot hold."""

    def __init__(self, folder: Path, texts: Mapping[str, str]) -> None:
        self.folder, self.information = folder, PngInfo()
        for name, text in texts.items():
            with suppress(UnicodeEncodeError):
                self.information.add_text(name, text)

    def write(self, frames: Tensor, first: int) -> None:
        for number, frame in enumerate(pixels(frames), first):
            Image.fromarray(frame).save(self.folder / f"frame_{number:05}.png", pnginfo=self.information, compress_level=4)
