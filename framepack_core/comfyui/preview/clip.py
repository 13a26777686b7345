"""A preview of the finished sections that plays in the node while the rest is made."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ...frames import Length, pixel_frames, runs
from ...media.files import Numbered
from ...media.segments import join_segments, write_segment
from ...media.video import pixels
from ...timeline import Timeline
from ..decoding.fitting import require_fitting
from ..decoding.stream import chunks

log = logging.getLogger("framepack")

EVENT = "framepack.clip"
LONGEST = 16  # latent frames that are decoded at once
WIDEST = 512  # pixels
MEMORY = 2**30  # bytes beside the VAE's weights: fewer than a call of the transformer takes, whose weights stay on the card
SHARE = 0.01  # of a run's time, at most, is spent on the clip
CONTEXT = 1  # latent frames that are decoded before a stretch, so that its first one gives as many frames as the others
FIRST_SECONDS = 0.1  # that loading the VAE and decoding a single frame are taken to need, before they have been done


class Clip:
    """An MP4 in ComfyUI's temporary folder, in the video's time order; a new file after each section.

    It has the frames that `length` shows. Each section is decoded and encoded once; `tell(event, data)` says where the file
    is. A decode that fails ends the preview with a warning, and sampling continues.
    """

    def __init__(
        self, vae, timeline: Timeline, length: Length, fps: float, tell: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self.vae: Any = vae
        self.timeline = timeline
        self.length = length
        self.fps = fps
        self.tell = tell
        self.waiting = set(filter(length.shown, timeline.known))
        self.folder: Path | None = None
        self.segments: dict[int, Path] = {}  # by their first latent frame
        self.file: Path | None = None
        self.begun = time.monotonic()
        self.shown = 0  # segments in the file
        self.spent = 0.0  # seconds
        self.cost: float | None = None  # seconds that a frame of video took in the decode before

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *exception: Any) -> None:
        """The newest file stays for the node until ComfyUI clears its temporary folder."""
        with suppress(OSError):
            for segment in self.segments.values():
                segment.unlink(missing_ok=True)
            if self.folder and not self.file:
                self.folder.rmdir()

    def add(self, frames: Collection[int], left: float) -> None:
        """These latent frames of the timeline are finished, and sampling will take `left` seconds more, at the least.

        They are shown at once if they cost a small share of the run's time, or else later.
        """
        self.waiting |= {*filter(self.length.shown, frames)}
        if self.vae is None:
            return
        try:
            require_fitting(self.vae, self.length)
            self.folder = self.folder or _new_folder()
            while stretch := self._affordable(left):
                self._decode(*stretch, self.folder)
            self._show(self.folder)
        except Exception as error:  # whatever a VAE may raise: the video is worth more than its preview
            log.warning("FramePack: preview_vae cannot show the video (%s); sampling continues without a preview", error)
            self.vae = None

    def _affordable(self, left: float) -> tuple[int, int] | None:
        """As much of the first waiting stretch as can be decoded in the time allowed; None if that is nothing.

        The first decode, of a single frame, also loads the VAE; the second, of another, tells what frames cost.
        """
        allowed = SHARE * (time.monotonic() - self.begun + left) - self.spent
        start, stop = next(pieces(self.waiting, self.length), (0, 0))
        if self.cost is None:
            stop = min(stop, start + 1)
            return (start, stop) if start < stop and allowed >= FIRST_SECONDS else None
        while start < stop and self.cost * pixel_frames(CONTEXT + stop - start) > allowed:
            stop -= 1
        return (start, stop) if start < stop else None

    def _decode(self, start: int, stop: int, folder: Path) -> None:
        begun = time.monotonic()
        images = self._images(start, stop)
        write_segment(folder / _name(start), pixels(images), self.fps, *shrunk(images.shape[2], images.shape[1]))
        taken = time.monotonic() - begun
        self.spent += taken
        if self.segments:
            self.cost = taken / pixel_frames(CONTEXT + stop - start)
        self.segments[start] = folder / _name(start)
        self.waiting -= {*range(start, stop)}

    def _images(self, start: int, stop: int) -> Tensor:
        """`F H W 3`. The first latent frame is decoded after the one before it, or a copy of itself, to give four frames.

        That of a clip is not: it is a single frame.
        """
        before = start - 1 if start - 1 in self.timeline.known else start
        context = [] if begins_clip(start, self.length) else [before]
        latents = self.timeline.latents[:1, :, [*context, *range(start, stop)]]
        images = torch.cat(list(chunks(self.vae, latents, most=MEMORY)))
        shown = sum(map(self.length.shown, range(start, stop)))
        return images[len(context) :][:shown]

    def _show(self, folder: Path) -> None:
        if len(self.segments) == self.shown:
            return
        begun, self.shown = time.monotonic(), len(self.segments)
        segments = [self.segments[start] for start in sorted(self.segments)]
        outdated, self.file = self.file, join_segments(segments, Numbered(folder, "clip", len(segments)), self.fps)
        self.tell(EVENT, {"filename": self.file.name, "subfolder": folder.name, "type": "temp"})
        if outdated:
            with suppress(OSError):  # some systems do not remove a file that is being read
                outdated.unlink()
        self.spent += time.monotonic() - begun


def pieces(frames: Collection[int], length: Length) -> Iterator[tuple[int, int]]:
    """Stretches of consecutive frames, as (start, stop), none longer than `LONGEST`.

    The first frame of a video that is decoded as a whole is by itself; where clips are apart, each stretch is within one.
    """
    first = {0} if length.apart is None else set()
    if first & {*frames}:
        yield 0, 1
    for start, stop in runs(sorted({*frames} - first)):
        while start < stop:
            end = min(start + LONGEST, stop, _clip_end(start, length))
            yield start, end
            start = end


def begins_clip(frame: int, length: Length) -> bool:
    """Whether it is a single frame for the VAE: the first one of the video, or of each clip."""
    return frame == 0 if length.apart is None else (frame - length.hidden) % length.apart == 0


def _clip_end(frame: int, length: Length) -> int:
    """Where the clip ends that this frame is in."""
    if length.apart is None:
        return length.latents
    return length.hidden + ((frame - length.hidden) // length.apart + 1) * length.apart


def _name(start: int) -> str:
    return f"segment_{start:06}.mp4"


def shrunk(width: int, height: int) -> tuple[int, int]:
    """The size within `WIDEST`, even as H.264 needs it."""
    scale = min(1.0, WIDEST / max(width, height))
    return 2 * round(width * scale / 2), 2 * round(height * scale / 2)


def _new_folder() -> Path:
    temp = Path(folder_paths.get_temp_directory())
    temp.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="framepack_", dir=temp))
