"""A video file, encoded as its frames arrive: H.264 in MP4, complete under its name or not there at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..frames import frame_rate
from .files import whole_file, whole_folder

PIXEL_FORMATS = ("yuv420p", "yuv444p", "yuv420p10le")
# H.273's code points for what swscale makes of RGB: BT.601's matrix in the limited range, from sRGB. If one is missing, players
# use BT.709's matrix for pictures of 720 lines or more and show portraits in the wrong colours.
COLOURS = {"colorspace": 6, "color_range": 1, "color_primaries": 1, "color_trc": 13}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}

# Tags of any name, where ComfyUI looks for a workflow, and the index in front, for players that stream.
MP4 = {"movflags": "use_metadata_tags+faststart"}


@dataclass(frozen=True)
class Encoding:
    """`crf` goes from 0 (lossless) to 51; lower is better and larger."""

    fps: float = 30.0
    crf: int = 16
    pixel_format: str = "yuv420p"

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; choose a value above 0")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}; choose a value from 0 (best) to 51")
        if self.pixel_format not in PIXEL_FORMATS:
            raise ValueError(f"pixel_format is {self.pixel_format}; choose one of {', '.join(PIXEL_FORMATS)}")

    @property
    def rate(self) -> Fraction:
        return frame_rate(self.fps)


@dataclass(frozen=True)
class Audio:
    """`samples` of shape `C N` in -1..1."""

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        if len(self.samples) not in LAYOUTS:
            raise ValueError(f"audio has {len(self.samples)} channels, expected 1, 2 or 6; mix it down to stereo")


def write_video(
    path: Path,
    chunks: Iterable[Tensor],
    encoding: Encoding,
    audio: Audio | None = None,
    metadata: dict[str, object] | None = None,
    png_folder: Path | None = None,
) -> int:
    """Write frames `F H W 3` in 0..1 as they arrive and return their number.

    `audio` is cut to the video's length. `metadata` is stored as JSON in tags of these names. With `png_folder`, every frame
    is also saved there as a PNG, starting with `frame_00001.png`. Until all is written, the file and folder have hidden names;
    if it fails they are removed. Raises OSError, with the path and what to do, if the disk is full or cannot be written to,
    and ValueError for odd sizes that the pixel format cannot hold and for a video without frames.
    """
    texts = {name: json.dumps(value) for name, value in (metadata or {}).items()}
    with (
        named_failure(path),
        nullcontext() if png_folder is None else whole_folder(png_folder) as folder,
        whole_file(path) as unfinished,
        av.open(str(unfinished), "w", format="mp4", options=MP4) as container,
    ):
        container.metadata.update(texts)
        track = VideoTrack(container, encoding)
        sound = None if audio is None else AudioTrack(container, audio)
        for frames in chunks:
            if folder is not None:
                write_pngs(folder, frames, track.count + 1, texts)
            track.write(frames)
            if sound is not None:
                sound.write(until=track.count / encoding.rate)
        track.close()
        if sound is not None:
            sound.close()
    return track.count


class VideoTrack:
    def __init__(self, container: av.container.OutputContainer, encoding: Encoding) -> None:
        self.container, self.encoding, self.count = container, encoding, 0
        self.stream = container.add_stream("h264", rate=encoding.rate)
        self.stream.pix_fmt = encoding.pixel_format
        self.stream.options = {"crf": str(encoding.crf)}
        for name, code in COLOURS.items():
            setattr(self.stream.codec_context, name, code)

    def write(self, frames: Tensor) -> None:
        if self.count == 0:
            self._set_size(*frames.shape[1:3])
        for frame in pixels(frames, deep="10" in self.encoding.pixel_format):
            source = "rgb48le" if frame.dtype == numpy.uint16 else "rgb24"
            picture = av.VideoFrame.from_ndarray(frame, format=source).reformat(format=self.encoding.pixel_format)
            self.container.mux(self.stream.encode(picture))
            self.count += 1

    def close(self) -> None:
        if self.count == 0:
            raise ValueError("there are no frames to write")
        self.container.mux(self.stream.encode(None))

    def _set_size(self, height: int, width: int) -> None:
        if (height % 2 or width % 2) and "420" in self.encoding.pixel_format:
            raise ValueError(f"frames are {width}x{height} but {self.encoding.pixel_format} needs even sizes; use yuv444p")
        self.stream.height, self.stream.width = height, width


class AudioTrack:
    def __init__(self, container: av.container.OutputContainer, audio: Audio) -> None:
        self.container, self.audio, self.written = container, audio, 0
        self.layout = LAYOUTS[len(audio.samples)]
        self.stream = container.add_stream("aac", rate=audio.rate, layout=self.layout)

    def write(self, until: Fraction) -> None:
        """Write the audio up to this time in seconds."""
        end = min(round(until * self.audio.rate), self.audio.samples.shape[1])
        if end <= self.written:
            return
        part = self.audio.samples[:, self.written : end].float().cpu().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.audio.rate, self.written, Fraction(1, self.audio.rate)
        self.container.mux(self.stream.encode(frame))
        self.written = end

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))


def pixels(frames: Tensor, deep: bool = False) -> Iterator[numpy.ndarray]:
    """Each frame `H W 3` in 8 bits, or in 16 if `deep`."""
    scale, kind = (65535, numpy.uint16) if deep else (255, numpy.uint8)
    for frame in frames:
        yield (frame.float().clamp(0, 1) * scale).round().cpu().numpy().astype(kind)


def write_pngs(folder: Path, frames: Tensor, first: int, texts: dict[str, str]) -> None:
    information = PngInfo()
    for name, text in texts.items():
        information.add_text(name, text)
    for number, frame in enumerate(pixels(frames), first):
        Image.fromarray(frame).save(folder / f"frame_{number:05}.png", pnginfo=information, compress_level=4)


REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your quota on that disk",
    errno.EROFS: "that disk is read-only; start ComfyUI with another --output-directory",
    errno.EACCES: "ComfyUI may not write there; change the folder's permissions, or start with another --output-directory",
}


@contextmanager
def named_failure(path: Path) -> Iterator[None]:
    """Make an OSError say which file could not be written and what to do."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check that the disk is connected and has space")
        raise OSError(error.errno, f"{path} was not written ({error.strerror}); {remedy}") from error
