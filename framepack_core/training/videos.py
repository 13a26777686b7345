"""Videos and captions in a folder: finding them, cutting them into clips, reading them at a frame rate and a size.

for path in find_videos(folder):
    video = probe(path)
    for cut in cuts(video.frames(fps=30), length=145, shortest=37, ...):
        pixels = read(video, cut, fps=30, size=(608, 640))   # uint8 F H W 3
"""

from __future__ import annotations

import bisect
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".m4v")
LISTS = ("captions.jsonl", "metadata.jsonl")
_FILE_FIELDS, _CAPTION_FIELDS = ("file", "file_name"), ("caption", "text")
ROUNDING = 0.002  # seconds: twice the error of formats with times in milliseconds


class BadVideo(ValueError):
    """A video or its caption cannot be used; the message names the file and what to do."""


@dataclass(frozen=True)
class Video:
    """When each of a file's frames is shown (seconds on the file's own clock), and its size on a screen."""

    path: Path
    times: tuple[float, ...]
    height: int
    width: int

    @property
    def seconds(self) -> float:
        """The video's duration; the last frame is shown as long as those before it on average."""
        return (self.times[-1] - self.times[0]) * len(self.times) / max(1, len(self.times) - 1)

    def frames(self, fps: float) -> int:
        """Number of frames at this rate; the video keeps its speed."""
        return max(1, math.floor(self.seconds * fps + 0.5))


@dataclass(frozen=True)
class Cut:
    """A clip's place in its video: its first frame and number of frames, at the clips' frame rate."""

    start: int
    frames: int


def find_videos(folder: Path) -> list[Path]:
    """The folder's videos, sorted, including subfolders. Raises BadVideo if there are none."""
    if not folder.is_dir():
        raise BadVideo(f"{folder} is not a folder; choose the folder that holds the videos")
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    if found := sorted(paths):
        return found
    raise BadVideo(f"{folder} holds no videos ({', '.join(SUFFIXES)}); put some there, or choose another folder")


def read_captions(folder: Path, file: Path | None = None) -> dict[Path, str]:
    """Captions by video, from `file` or the folder's captions.jsonl or metadata.jsonl: lines `{"file": ..., "caption": ...}`.

    Empty if there is no such list. Raises a BadVideo that names the file and line if it cannot be read or names a missing file.
    """
    lists = [folder / name for name in LISTS if (folder / name).exists()]
    source = file or next(iter(lists), None)
    if source is None:
        return {}
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadVideo(f"{source} cannot be read ({error}); save it as JSON lines in UTF-8") from error
    return dict(_listed(source, number, line, folder) for number, line in enumerate(lines, 1) if line.strip())


def _listed(source: Path, number: int, line: str, folder: Path) -> tuple[Path, str]:
    try:
        fields = json.loads(line)
        name = next(fields[field] for field in _FILE_FIELDS if field in fields)
        caption = next(fields[field] for field in _CAPTION_FIELDS if field in fields)
        path = folder / name
    except (ValueError, TypeError, StopIteration) as error:
        raise BadVideo(f'{source}, line {number}: expected {{"file": "...", "caption": "..."}} but found {line!r}') from error
    if not path.exists():
        raise BadVideo(f"{source}, line {number}: there is no {path}; correct the name, or remove the line")
    return path, str(caption)


def caption_of(path: Path, listed: Mapping[Path, str]) -> str:
    """A video's caption, from the text file beside it or the list. Raises BadVideo if there is none or it is empty."""
    beside = [text for text in (path.with_suffix(".txt"), path.with_name(f"{path.name}.txt")) if text.exists()]
    if beside:
        source = beside[0]
        try:
            caption = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadVideo(f"{source} cannot be read ({error}); save the caption as UTF-8 text") from error
    elif path in listed:
        source, caption = path, listed[path]
    else:
        raise BadVideo(f"{path} has no caption; write it to {path.with_suffix('.txt').name} beside it, or to {LISTS[0]}")
    if not caption.strip():
        raise BadVideo(f"{source}: the caption is empty; say in a sentence what the video shows")
    return " ".join(caption.split())


def probe(path: Path) -> Video:
    """Read a video's frame times and size; only its first frame is decoded. Raises BadVideo if no frame can be read."""
    try:
        with av.open(str(path)) as container:
            times = sorted(_packet_times(container, _video_stream(path, container)))
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            frame = next(container.decode(stream), None)
            if not times or frame is None:
                raise BadVideo(f"{path} has no frames; remove it from the folder, or save it again")
            width, height = _upright(frame, stream).size
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(_unreadable(path, error)) from error
    return Video(path, tuple(times), height, width)


def cuts(frames: int, length: int, shortest: int, stride: int) -> list[Cut]:
    """Clips of `length` frames, one every `stride`; the rest at the end is one too if it has at least `shortest` frames.

    All numbers count pixel frames; clips have 4T - 3. Empty if the video is too short.
    """
    found = [Cut(start, min(length, whole(frames - start))) for start in range(0, frames, stride)]
    complete = [cut for cut in found if cut.frames == length]
    rest = [cut for cut in found[len(complete) :][:1] if cut.frames >= shortest and _adds(cut, complete)]
    return complete + rest


def random_cuts(frames: int, length: int, shortest: int, count: int, seed: str) -> list[Cut]:
    """`count` clips at random places, the same for the same seed and video length; fewer if there are fewer places."""
    length = min(length, whole(frames))
    if length < shortest:
        return []
    places = frames - length + 1
    starts = random.Random(seed).sample(range(places), min(count, places))
    return [Cut(start, length) for start in sorted(starts)]


def whole(frames: int) -> int:
    """The largest number 4T - 3 up to `frames`."""
    return (frames - 1) // 4 * 4 + 1


def _adds(cut: Cut, complete: Sequence[Cut]) -> bool:
    """Whether a shorter clip shows frames that the complete ones do not."""
    return not complete or cut.start + cut.frames > complete[-1].start + complete[-1].frames


def read(video: Video, cut: Cut, fps: float, size: tuple[int, int]) -> np.ndarray:
    """The clip's pixels, uint8 `F H W 3`: for each moment the nearest frame, scaled and centre-cropped to (height, width).

    Raises BadVideo if the file breaks off before the clip's end.
    """
    wanted = [_nearest(video.times, video.times[0] + (cut.start + index) / fps) for index in range(cut.frames)]
    shown: dict[int, np.ndarray] = {}
    try:
        for index, image in _images(video, set(wanted)):
            shown[index] = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(_unreadable(video.path, error)) from error
    missing = [index for index in wanted if index not in shown]
    if missing:
        at = video.times[missing[0]] - video.times[0]
        raise BadVideo(
            f"{video.path}: the frame at {at:.2f} s of {video.seconds:.2f} s cannot be decoded; save it again, or cut it there"
        )
    return np.stack([shown[index] for index in wanted])


def _images(video: Video, wanted: set[int]) -> Iterator[tuple[int, Image.Image]]:
    """The wanted frames with their numbers, decoded from the key frame before the first of them."""
    first, last = min(wanted), max(wanted)
    with av.open(str(video.path)) as container:
        stream = _video_stream(video.path, container)
        stream.thread_type = "AUTO"
        for index, frame in _numbered_from(video, container, stream, first):
            if index > last:
                return
            if index in wanted:
                yield index, _upright(frame, stream)


def _numbered_from(video: Video, container, stream, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their numbers, from `first` or a little earlier; from the start if the format cannot seek to before it."""
    if first:
        container.seek(int(video.times[first] / stream.time_base), stream=stream)
        numbered = _numbered(video, container, stream)
        earliest = next(numbered, None)
        if earliest and earliest[0] <= first:
            yield earliest
            yield from numbered
            return
        container.seek(0)
    yield from _numbered(video, container, stream)


def _numbered(video: Video, container, stream) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their numbers by time; a frame without a time is the one after the last."""
    index = -1
    for frame in container.decode(stream):
        index = index + 1 if frame.time is None else _nearest(video.times, frame.time)
        yield index, frame


def _packet_times(container, stream) -> Iterator[float]:
    for packet in container.demux(stream):
        time = packet.dts if packet.pts is None else packet.pts
        if packet.size and time is not None:
            yield float(time * stream.time_base)


def _nearest(times: Sequence[float], time: float) -> int:
    """The number of the frame nearest in time; of two equally near ones (files round times), the earlier."""
    later = min(bisect.bisect_left(times, time), len(times) - 1)
    earlier = max(later - 1, 0)
    return later if times[later] - time < time - times[earlier] - ROUNDING else earlier


def _upright(frame: av.VideoFrame, stream) -> Image.Image:
    """The frame as a screen shows it: with square pixels, rotated as the file says."""
    image = frame.to_image()
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        image = image.resize((max(1, round(image.width * aspect)), image.height), Image.Resampling.LANCZOS)
    turns = round(frame.rotation / 90) % 4
    return image.rotate(90 * turns, expand=True) if turns else image


def _video_stream(path: Path, container):
    if not container.streams.video:
        raise BadVideo(f"{path} has no video stream; remove it from the folder")
    return container.streams.video[0]


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as a video ({error}); save it again, for example as MP4, or remove it from the folder"
