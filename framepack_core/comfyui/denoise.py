"""One section through a ComfyUI guider: context, noise, progress, preview, interrupt."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ..packing import Context
from ..plan import Section, spell
from .model import CONTEXT_KEY, PackedContext

Say = Callable[[str], None]


class GuiderDenoiser:
    """The `denoise` callable over a guider and a sampler; the caller's guider stays untouched.

    `sigmas(section)` gives each section its schedule, since the one that generates both ends has twice the tokens.
    """

    def __init__(
        self, guider, sampler, sigmas: Callable[[Section], Tensor], seed: int, sections: Sequence[Section], say: Say
    ) -> None:
        self.guider = guider
        self.sampler = sampler
        self.sigmas = sigmas
        self.seed = seed
        self.progress = Progress(guider.model_patcher, sections, [len(sigmas(section)) - 1 for section in sections], say)

    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        """Latents `B C T H W`, unscaled as ComfyUI keeps them."""
        section = context.section
        patcher = self.guider.model_patcher
        params = patcher.model.diffusion_model.params
        packed = PackedContext(context, *noise.shape[3:], params.axes_dim, params.theta).to(patcher.load_device)
        latents = with_conditions(self.guider, **{CONTEXT_KEY: packed}).sample(
            noise,
            torch.zeros_like(noise),
            self.sampler,
            self.sigmas(section),
            callback=self.progress.of(section),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=(self.seed + section.number) % 2**64,
        )
        self.progress.finish(section)
        return latents.cpu()


def with_conditions(guider, **values):
    """A shallow copy of the guider that has these values in every condition."""
    copied = copy.copy(guider)
    copied.original_conds = {name: [{**cond, **values} for cond in conds] for name, conds in guider.original_conds.items()}
    return copied


class Progress:
    """One bar over all steps of all sections, a preview of the current frames, and a line of text."""

    def __init__(self, patcher, sections: Sequence[Section], steps: Sequence[int], say: Say) -> None:
        self.sections = sections
        self.steps = steps
        self.say = say
        self.bar = comfy.utils.ProgressBar(sum(steps))
        self.previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)
        self.start = time.monotonic()

    def of(self, section: Section) -> Callable:
        """The sampler's callback for one section."""
        before = sum(self.steps[: section.number])
        self.say(self.line(section, before))

        def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            done = before + min(step + 1, self.steps[section.number])  # dpm_adaptive takes as many as it likes
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
            self.bar.update_absolute(done, sum(self.steps), preview)
            self.say(self.line(section, done))

        return callback

    def finish(self, section: Section) -> None:
        """Fill the section's part of the bar: some samplers call back less often than there are sigmas."""
        done = sum(self.steps[: section.number + 1])
        if self.bar.current < done:
            self.bar.update_absolute(done, sum(self.steps))

    def line(self, section: Section, done: int) -> str:
        text = f"section {section.number + 1} of {len(self.sections)}: latent frames {spell(section.target)}"
        started = sum(self.steps[: section.number])
        text += f", step {done - started} of {self.steps[section.number]}"
        if done:
            left = (time.monotonic() - self.start) / done * (sum(self.steps) - done)
            text += f", {duration(left)} left"
        return text


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
