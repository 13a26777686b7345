"""From a guider, a plan and a start image to the latents of a whole video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import comfy.samplers
from comfy.model_management import InterruptProcessingException
from torch import Tensor

from ..layout import BASE_KERNEL
from ..plan import Plan, Section, runs
from ..resume import section_keys
from ..sections import generate
from ..solver import VARIANTS, flow_sigmas, sample_unipc
from ..timeline import Timeline
from . import checks
from .checkpoints import Checkpoints
from .denoise import GuiderDenoiser, with_conditions
from .identity import identity
from .preview import Progress, Say

OnCancel = Literal["discard", "return finished part"]
ON_CANCEL: tuple[OnCancel, ...] = get_args(OnCancel)
UNIPC = tuple(f"unipc_{variant}" for variant in VARIANTS)


def sampler_named(name: str) -> comfy.samplers.Sampler:
    """A SAMPLER by name: `unipc_bh1`, `unipc_bh2`, or any of ComfyUI's."""
    if name in UNIPC:
        return unipc(name.removeprefix("unipc_"))
    return comfy.samplers.sampler_object(name)


def unipc(variant: str) -> comfy.samplers.Sampler:
    return comfy.samplers.KSAMPLER(sample_unipc, {"variant": variant})


def make_guider(model, positive, negative, cfg: float, guidance: float) -> comfy.samplers.CFGGuider:
    """ComfyUI's guider with the distilled guidance in every condition. At cfg 1 there is no negative call."""
    checks.require_framepack(model)
    if negative is None and cfg != 1.0:
        raise ValueError(f"cfg is {cfg:g} but negative is not connected; connect a negative prompt or set cfg to 1")
    guider = comfy.samplers.CFGGuider(model)
    conds = {"positive": positive} if negative is None else {"positive": positive, "negative": negative}
    guider.inner_set_conds({name: [_with(entry, guidance=guidance) for entry in cond] for name, cond in conds.items()})
    guider.set_cfg(cfg)
    return guider


@dataclass(frozen=True)
class Video:
    """Latents `B 16 T H W`, unscaled: the start latent and all that was planned, or the finished part of a cancelled run."""

    latents: Tensor
    whole: bool


def sample_video(
    guider,
    sampler,
    sigmas: Callable[[Section, Timeline], Tensor],
    plan: Plan,
    start_latent: dict,
    end_latent: dict | None,
    clip_vision_output,
    seed: int,
    say: Say,
    preview_vae=None,
    origin: str | None = None,
    on_cancel: OnCancel = "discard",
) -> Video:
    """Sample a video. `preview_vae` decodes finished sections to be seen.

    Finished sections are kept on disk under `identity.origin`, and those of an earlier run are not made again; without one,
    neither. A cancel raises, or ends the video where it is once a section is finished.
    Raises ValueError for anything that does not fit together, before the model is loaded.
    """
    patcher = guider.model_patcher
    checks.require_framepack(patcher)
    timeline = start_timeline(plan, start_latent, end_latent)
    sections = plan.bind(timeline)
    checks.require_conditioning(guider.original_conds, patcher)
    checks.require_image_embedding(clip_vision_output, patcher)
    schedules = {len(section.target): checks.enough_sigmas(sigmas(section, timeline)) for section in sections}
    section_sigmas = [schedules[len(section.target)] for section in sections]
    notes = Notes(say, checks.warnings(plan, patcher))
    checkpoints = None
    if origin is not None:
        name = identity(origin, guider, sampler, timeline, clip_vision_output, seed)
        checkpoints = Checkpoints(name, section_keys(name, sections, section_sigmas), notes.add)

    if clip_vision_output is not None:
        guider = with_conditions(guider, clip_vision_output=clip_vision_output)
    steps, given = [len(schedule) - 1 for schedule in section_sigmas], len(timeline.known)
    with Progress(patcher, sections, steps, timeline, plan.fps, notes.say, preview_vae) as progress:
        denoise = GuiderDenoiser(guider, sampler, lambda section: section_sigmas[section.number], seed, progress.of)
        try:
            for section, latents in generate(sections, timeline, denoise, seed, checkpoints.latents if checkpoints else ()):
                if checkpoints:
                    checkpoints.add(section, latents)
                progress.finish(section, latents)
        except InterruptProcessingException:
            if on_cancel == "discard" or len(timeline.known) == given:
                raise
            return Video(finished_part(timeline), whole=False)
    return Video(timeline.latents, whole=True)


class Notes:
    """Lines that stay above the one on progress."""

    def __init__(self, say: Say, lines: Sequence[str]) -> None:
        self._say = say
        self.lines = list(lines)

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._say("\n".join(self.lines))

    def say(self, line: str) -> None:
        self._say("\n".join([*self.lines, line]))


def finished_part(timeline: Timeline) -> Tensor:
    """The longest stretch of known frames: the video's beginning in the forward order, its end in the inverted one.

    The endpoints order has two of one length at first; the earlier one is taken.
    """
    start, stop = max(runs(sorted(timeline.known)), key=lambda run: run[1] - run[0])
    return timeline.latents[:, :, start:stop].contiguous()


def start_timeline(plan: Plan, start_latent: dict, end_latent: dict | None) -> Timeline:
    """The video with its start image, and its end image where the order has a place for it.

    Inverted shows the end image to the first section only, as the official program does; endpoints puts it at the end.
    """
    start = checks.frame_latent(start_latent, "start_latent")
    if end_latent is None:
        return Timeline.of(1 + plan.generated, {0: start})
    if plan.order == "forward":
        raise ValueError("end_latent is connected, but the forward order never looks ahead; set the plan's order to "
                         "inverted or endpoints, or disconnect it")  # fmt: skip
    end = checks.frame_latent(end_latent, "end_latent")
    checks.require_same_size(start, end)
    if plan.order == "inverted":
        return Timeline.of(1 + plan.generated, {0: start}, end=end)
    return Timeline.of(2 + plan.generated, {0: start, 1 + plan.generated: end})


def schedule(steps: int, shift: float, section: Section, timeline: Timeline) -> Tensor:
    """The sigmas that belong to a section's number of generated tokens."""
    return flow_sigmas(steps, section.target_tokens(*timeline.latents.shape[3:]), shift)


def window_sigmas(steps: int, shift: float, latent: Tensor, window: int) -> Tensor:
    """The sigmas for `window` frames of a latent's size."""
    height, width = latent.shape[-2:]
    return flow_sigmas(steps, window * (height // BASE_KERNEL.h) * (width // BASE_KERNEL.w), shift)


def _with(entry: list, **values) -> list:
    return [entry[0], {**entry[1], **values}]
