"""What the sampler node shows while it runs: a bar, a line of text, the video so far as a filmstrip and as a clip."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import comfy.utils
import latent_preview
from comfy_api import feature_flags
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from PIL import Image
from protocol import BinaryEventTypes
from torch import Tensor

from ..filmstrip import Filmstrip
from ..plan import PIXEL_FRAMES, Section, pixel_frames, spell_seconds
from ..timeline import Timeline
from .clip import Clip
from .denoise import Callback

Say = Callable[[str], None]

FASTEST = 8.0  # pictures a second
SHARE = 0.1  # of the time may be spent on pictures


class Progress:
    """One bar over all steps of all sections, a line of text, and the video so far.

    The video is shown as ComfyUI's preview method says, and as a clip if there is a `vae` to decode finished sections.
    A section that is finished without having been sampled, because it was there already, does not count for the time left.

        with Progress(patcher, sections, steps, timeline, fps, say) as progress:
            for section, latents in generate(sections, timeline, GuiderDenoiser(..., progress.of), seed):
                progress.finish(section, latents)
    """

    def __init__(
        self,
        patcher,
        sections: Sequence[Section],
        steps: Sequence[int],
        timeline: Timeline,
        fps: float,
        say: Say,
        vae=None,
    ) -> None:
        self.sections = sections
        self.steps = steps
        self.timeline = timeline
        self.fps = fps
        self.say = say
        self.bar = comfy.utils.ProgressBar(sum(steps))
        self.section: Section | None = None  # the one that is being sampled
        self.start: float | None = None  # of the first one
        self.restored = 0  # steps that were there already
        node = RunningNode.current()
        previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format) if node else None
        self.pictures = Pictures(node, self.bar, previewer, patcher.model.latent_format, timeline, fps) if previewer else None
        self.clip = Clip(vae, timeline, fps, node.tell) if node and vae is not None else None

    def __enter__(self) -> Progress:
        with ExitStack() as shown:
            for view in (self.pictures, self.clip):
                if view:
                    shown.enter_context(view)
            self._shown = shown.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._shown.close()

    def of(self, section: Section) -> Callback:
        """The sampler's callback for one section."""
        self.section, self.start = section, self.start or time.monotonic()
        before = sum(self.steps[: section.number])
        self.say(self.line(section, before))

        def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            done = before + min(step + 1, self.steps[section.number])  # dpm_adaptive takes as many as it likes
            if self.pictures:
                self.pictures.play(section.target, x0)
            self.bar.update_absolute(done, sum(self.steps))
            self.say(self.line(section, done))

        return callback

    def finish(self, section: Section, latents: Tensor) -> None:
        """A section is there, with its latents `B C T H W`: sampled, or restored."""
        if section is not self.section:
            self.restored += self.steps[section.number]
        done = sum(self.steps[: section.number + 1])
        if self.bar.current < done:  # some samplers call back less often than there are sigmas
            self.bar.update_absolute(done, sum(self.steps))
        if self.pictures:
            self.pictures.keep(section.target, latents)
        if self.clip:
            self.clip.add(section.target)

    def line(self, section: Section, done: int) -> str:
        """For `done` steps of the whole video."""
        number = section.number
        text = f"section {number + 1} of {len(self.sections)}: {spell_seconds(section, self.fps, ' to ')} s"
        text += f", step {done - sum(self.steps[:number])} of {self.steps[number]}"
        text += f", {shown_frames(self.timeline.known)} of {pixel_frames(self.timeline.frames)} frames done"
        if sampled := done - self.restored:
            left = (time.monotonic() - self.start) / sampled * (sum(self.steps) - done)
            text += f", {duration(left)} left"
        return text


class Pictures:
    """The filmstrip in the running node. The frames that are being made play in turn, between steps too.

    A thread sends one picture after the other, at the speed of the video where that is not too fast. It touches no tensors.
    """

    def __init__(
        self, node: RunningNode, bar: comfy.utils.ProgressBar, previewer, latent_format, timeline: Timeline, fps: float
    ) -> None:
        self.node = node
        self.bar = bar
        self.previewer = previewer
        self.latent_format = latent_format
        self.timeline = timeline
        self.strip = Filmstrip(timeline.frames, *timeline.latents.shape[3:], latent_preview.MAX_PREVIEW_RESOLUTION)
        self.period = 1 / min(fps / PIXEL_FRAMES, FASTEST)
        self.due = 0.0
        self.draws: Sequence[Callable[[], Image.Image]] = ()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._send, name="framepack previews", daemon=True)

    def __enter__(self) -> Pictures:
        frames = self.strip.shown(sorted(self.timeline.known))
        if frames:
            pictures = self._pictures(frames, self.latent_format.process_in(self.timeline.read(frames)))
            self.strip.put(pictures)
            self.draws = self.strip.play(pictures, self.timeline.known)
        self.thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stopped.set()
        self.thread.join()

    def play(self, frames: Sequence[int], x0: Tensor) -> None:
        """From now on these frames `B C T H W`, in the model's space; not at every step where steps are quick."""
        begun = time.monotonic()
        if begun >= self.due:
            self.draws = self.strip.play(self._pictures(frames, x0), self.timeline.known)
            self.due = begun + (time.monotonic() - begun) / SHARE

    def keep(self, frames: Sequence[int], latents: Tensor) -> None:
        """Finished frames, as ComfyUI keeps latents: thumbnails from now on."""
        places = [frames.index(frame) for frame in self.strip.shown(frames)]
        finished = self.latent_format.process_in(latents[:, :, places])
        self.strip.put(self._pictures([frames[place] for place in places], finished))
        self.due = 0.0

    def _pictures(self, frames: Sequence[int], x0: Tensor) -> Mapping[int, Image.Image]:
        decode = self.previewer.decode_latent_to_preview
        return {frame: decode(x0[:, :, place : place + 1]) for place, frame in enumerate(frames)}

    def _send(self) -> None:
        for turn in count():
            if draws := self.draws:
                self.node.show(draws[turn % len(draws)](), self.bar.current, self.bar.total)
            if self.stopped.wait(self.period):
                return


@dataclass(frozen=True)
class RunningNode:
    """The node that ComfyUI executes, to be spoken to from any thread.

    The bar's own way to show a picture is for the sampling thread only: it raises a cancel, and only once.
    """

    id: str
    server: Any

    @classmethod
    def current(cls) -> RunningNode | None:
        """None outside ComfyUI's execution."""
        context = get_executing_context()
        if context is None:
            return None
        from server import PromptServer  # exists in a running ComfyUI only

        return cls(context.node_id, PromptServer.instance)

    def show(self, picture: Image.Image, value: float, most: float) -> None:
        """A picture, beside the bar's state."""
        preview = ("JPEG", picture, None)
        get_progress_state().update_progress(self.id, value, most, preview)
        server, client = self.server, self.server.client_id
        if not feature_flags.supports_feature(server.sockets_metadata, client, "supports_preview_metadata"):
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, client)

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """An event for the pack's own code in the front end."""
        node = get_progress_state().dynprompt.get_display_node_id(self.id)
        self.server.send_sync(event, {"node": node, **data}, self.server.client_id)


def shown_frames(latent_frames: Collection[int]) -> int:
    """Pixel frames that these latent frames of a video stand for: the first one a single frame."""
    return PIXEL_FRAMES * len(latent_frames) - (PIXEL_FRAMES - 1) * (0 in latent_frames)


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
