"""The video so far as a filmstrip in the running node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import count
from typing import Any

import comfy.utils
from PIL import Image
from torch import Tensor

from ...frames import PIXEL_FRAMES
from ...media.filmstrip import Filmstrip
from ...timeline import Timeline
from .. import private
from .node import RunningNode

FASTEST = 8.0  # pictures per second, at most
SHARE = 0.005  # of the time, at most, is spent on making pictures; and as much on sending them, if sampling needs the processor


class Pictures:
    """The filmstrip in the running node, drawn with ComfyUI's preview method. The frames being made play in turn, even
    between steps.

    A thread sends one picture after another, at the video's speed unless that is too fast. It touches no tensors. If sampling
    `needs_processor`, because there is no card, every picture holds it up, and there are fewer. The timeline's first `hidden`
    frames are no part of the video.
    """

    def __init__(
        self,
        node: RunningNode,
        bar: comfy.utils.ProgressBar,
        previewer,
        latent_format,
        timeline: Timeline,
        fps: float,
        needs_processor: bool = False,
        hidden: int = 0,
    ) -> None:
        self.node = node
        self.bar = bar
        self.previewer = previewer
        self.latent_format = latent_format
        self.timeline = timeline
        height, width = timeline.latents.shape[3:]
        self.hidden = hidden
        self.strip = Filmstrip(timeline.frames - hidden, height, width, private.MAX_PREVIEW_RESOLUTION)
        self.needs_processor = needs_processor
        self.period = 1 / min(fps / PIXEL_FRAMES, FASTEST)
        self.begun = time.monotonic()
        self.spent = 0.0  # seconds
        self.draws: Sequence[Callable[[], Image.Image]] = ()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._send, name="framepack previews", daemon=True)

    def __enter__(self) -> Pictures:
        frames = self._in_strip(sorted(self.timeline.known))
        if frames:
            pictures = self._pictures(frames, self.latent_format.process_in(self.timeline.read(frames)))
            self.strip.put(pictures)
            self.draws = self.strip.play(pictures, self._known())
        self.thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stopped.set()
        self.thread.join()

    def play(self, frames: Sequence[int], x0: Tensor) -> None:
        """Play these frames from now on, `x0` `B C T H W` in the model's space. If steps are quick, some are skipped."""
        if self.spent > SHARE * (time.monotonic() - self.begun):
            return
        x0[:1, :1, :1, :1, :1].cpu()  # on a card this waits for the step itself, which is no time spent on pictures
        self.draws = self.strip.play(self._pictures(frames, x0), self._known())

    def keep(self, frames: Sequence[int], latents: Tensor) -> None:
        """Show finished frames as thumbnails from now on; `latents` are as ComfyUI keeps them."""
        places = [frames.index(frame) for frame in self._in_strip(frames)]
        finished = self.latent_format.process_in(latents[:, :, places])
        self.strip.put(self._pictures([frames[place] for place in places], finished))

    def _in_strip(self, frames: Sequence[int]) -> list[int]:
        """Those of the timeline's frames that have a thumbnail."""
        return [frame + self.hidden for frame in self.strip.shown(frame - self.hidden for frame in frames)]

    def _known(self) -> set[int]:
        """The frames of the video, from 0, that exist."""
        return {frame - self.hidden for frame in self.timeline.known if frame >= self.hidden}

    def _pictures(self, frames: Sequence[int], x0: Tensor) -> Mapping[int, Image.Image]:
        """By frames of the video, from these of the timeline."""
        decode, begun = self.previewer.decode_latent_to_preview, time.monotonic()
        pictures = {frame - self.hidden: decode(x0[:, :, place : place + 1]) for place, frame in enumerate(frames)}
        self.spent += time.monotonic() - begun
        return pictures

    def _send(self) -> None:
        period = None
        for turn in count():
            if draws := self.draws:
                picture = draws[turn % len(draws)]()
                self.node.show(picture, self.bar.current, self.bar.total)
                if period is None:
                    period = pause(cost(draws[0]), self.period) if self.needs_processor else self.period
            if self.stopped.wait(period or self.period):
                return


def pause(taken: float, period: float) -> float:
    """Seconds from one picture to the next, where sampling stands still for the `taken` seconds that one costs."""
    return max(period, taken / SHARE)


def cost(draw: Callable[[], Image.Image]) -> float:
    """Seconds of the processor that a picture takes: drawing and encoding it, and about as much again until it is sent."""
    begun = time.thread_time()
    draw().save(BytesIO(), "JPEG", quality=95)
    return 2 * (time.thread_time() - begun)
