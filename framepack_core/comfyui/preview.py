"""What the sampler node shows while it runs: a bar, a line of text and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import comfy.utils
import latent_preview
from torch import Tensor

from ..plan import PIXEL_FRAMES, Section, pixel_frames, spell_seconds
from ..timeline import Timeline
from .denoise import Callback

Say = Callable[[str], None]


class Progress:
    """One bar over all steps of all sections, pictures of the video so far, and a line of text.

        with Progress(patcher, sections, steps, timeline, fps, say) as progress:
            for section, latents in generate(sections, timeline, GuiderDenoiser(..., progress.of), seed):
                progress.finish(section, latents)

    A section that is finished without having been sampled, because it was there already, does not count for the time left.
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
        self.previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)
        self.section: Section | None = None  # the one that is being sampled
        self.start: float | None = None  # of the first one
        self.restored = 0  # steps that were there already

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def of(self, section: Section) -> Callback:
        """The sampler's callback for one section."""
        self.section, self.start = section, self.start or time.monotonic()
        before = sum(self.steps[: section.number])
        self.say(self.line(section, before))

        def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            done = before + min(step + 1, self.steps[section.number])  # dpm_adaptive takes as many as it likes
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
            self.bar.update_absolute(done, sum(self.steps), preview)
            self.say(self.line(section, done))

        return callback

    def finish(self, section: Section, latents: Tensor) -> None:
        """A section is there, with its latents `B C T H W`: sampled, or restored."""
        if section is not self.section:
            self.restored += self.steps[section.number]
        done = sum(self.steps[: section.number + 1])
        if self.bar.current < done:  # some samplers call back less often than there are sigmas
            self.bar.update_absolute(done, sum(self.steps))

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


def shown_frames(latent_frames: Collection[int]) -> int:
    """Pixel frames that these latent frames of a video stand for: the first one a single frame."""
    return PIXEL_FRAMES * len(latent_frames) - (PIXEL_FRAMES - 1) * (0 in latent_frames)


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
