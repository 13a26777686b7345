"""What the sampler node shows while it runs: a bar, a line of text, and previews as a filmstrip and as a playing video."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.model_management
import comfy.utils
from torch import Tensor

from ...filling import Section
from ...frames import Length
from ...spelling import spell_seconds
from ...timeline import Timeline
from .. import private
from ..log import log_once
from ..sampling.denoise import Callback
from .clip import Clip
from .filmstrip import Pictures
from .node import RunningNode

SECTIONS = "framepack.sections"  # an event: which are finished, and which is being made
Say = Callable[[str], None]


class Progress:
    """One bar over all steps of all sections, a line of text, and the video so far.

    ComfyUI's preview method draws the filmstrip; the video plays if there is a `vae` to decode finished sections. Sections
    that were restored rather than sampled do not count towards the time left. `words` are those of timed prompts, by section.

        with Progress(patcher, sections, steps, timeline, length, fps, say) as progress:
            for section, latents in generate(sections, timeline, GuiderDenoiser(..., progress.of), seed):
                progress.finish(section, latents)
    """

    def __init__(
        self,
        patcher,
        sections: Sequence[Section],
        steps: Sequence[int],
        timeline: Timeline,
        length: Length,
        fps: float,
        say: Say,
        vae=None,
        words: Mapping[int, str] | None = None,
    ) -> None:
        self.sections = sections
        self.steps = steps
        self.timeline = timeline
        self.length = length
        self.fps = fps
        self.say = say
        self.words = words or {}
        self.bar = comfy.utils.ProgressBar(sum(steps))
        self.section: Section | None = None  # the one being sampled
        self.start: float | None = None  # of the first one
        self.restored = 0  # steps of restored sections
        self.stepped = 0.0  # when the step before ended
        self.step_seconds = math.inf  # of the fastest step, which neither loaded nor compiled a model
        self.finished: list[int] = []  # the numbers of sections
        self.node: RunningNode | None = None
        self.pictures: Pictures | None = None
        self.clip: Clip | None = None
        try:
            self._make_views(patcher, vae)
        except private.Missing as missing:
            log_once(str(missing))

    def _make_views(self, patcher, vae) -> None:
        """Make the filmstrip and the playing video, if there is a node to show them in. Raises private.Missing."""
        self.node = node = RunningNode.current()
        if node is None:
            return
        latent_format = patcher.model.latent_format
        private.require("LatentPreviewer")
        previewer = private.get_previewer(patcher.load_device, latent_format)
        if previewer:
            on_cpu = comfy.model_management.is_device_cpu(patcher.load_device)
            self.pictures = Pictures(
                node, self.bar, previewer, latent_format, self.timeline, self.fps, on_cpu, self.length.hidden
            )
        if vae is not None:
            self.clip = Clip(vae, self.timeline, self.length, self.fps, node.tell)

    def __enter__(self) -> Progress:
        with ExitStack() as shown:
            for view in (self.pictures, self.clip):
                if view:
                    shown.enter_context(view)
            self._shown = shown.pop_all()
        return self

    def __exit__(self, error: type[BaseException] | None, *exception: Any) -> None:
        self._shown.close()
        if error:
            self.say(f"stopped: {self._frames_done()}")

    def of(self, section: Section) -> Callback:
        """The sampler's callback for one section."""
        self.section, self.start = section, self.start or time.monotonic()
        self._tell_sections()
        before = sum(self.steps[: section.number])
        self.say(self.line(section, before))

        def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            now = time.monotonic()
            if step:
                self.step_seconds = min(self.step_seconds, now - self.stepped)
            self.stepped = now
            done = before + min(step + 1, self.steps[section.number])  # dpm_adaptive takes as many steps as it likes
            if self.pictures:
                self.pictures.play(section.target, x0)
            self.bar.update_absolute(done, sum(self.steps))
            self.say(self.line(section, done))

        return callback

    def finish(self, section: Section, latents: Tensor) -> None:
        """A section has been sampled or restored; these are its latents `B C T H W`."""
        if section is not self.section:
            self.restored += self.steps[section.number]
        self.finished.append(section.number)
        done = sum(self.steps[: section.number + 1])
        if self.bar.current < done:  # some samplers call back less often than there are sigmas
            self.bar.update_absolute(done, sum(self.steps))
        if self.pictures:
            self.pictures.keep(section.target, latents)
        if self.clip:
            self.clip.add(section.target, left=self._least_left(done))
        if done == sum(self.steps):
            self.section = None
            self._tell_sections()
            self.say(self._last_line())

    def line(self, section: Section, done: int) -> str:
        """The line of text after `done` steps of the whole video."""
        number = section.number
        text = f"section {number + 1} of {len(self.sections)}: {spell_seconds(section, self.length, self.fps, ' to ')} s"
        text += f", step {done - sum(self.steps[:number])} of {self.steps[number]}"
        text += f", {self._frames_done()}"
        if self.start is not None and (sampled := done - self.restored):
            left = (time.monotonic() - self.start) / sampled * (sum(self.steps) - done)
            text += f", {duration(left)} left"
        return f"{text}\nprompt: {self.words[number]}" if number in self.words else text

    def _tell_sections(self) -> None:
        """For the drawing in the plan's node."""
        if self.node:
            current = self.section.number if self.section else None
            self.node.tell(SECTIONS, {"finished": self.finished, "current": current})

    def _least_left(self, done: int) -> float:
        """Seconds that sampling will take after `done` steps, at the least."""
        return self.step_seconds * (sum(self.steps) - done) if self.step_seconds < math.inf else 0.0

    def _last_line(self) -> str:
        """After the last section."""
        taken = "" if self.start is None else f" in {duration(time.monotonic() - self.start)}"
        return f"{self._frames_done()}{taken}"

    def _frames_done(self) -> str:
        done = sum(map(self.length.shown, self.timeline.known))
        return f"{done} of {self.length.frames} frames done"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
