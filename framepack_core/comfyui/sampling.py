"""From a guider, a plan and a start image to the latents of a whole video."""

from __future__ import annotations

from collections.abc import Callable

import comfy.samplers
from torch import Tensor

from ..layout import BASE_KERNEL
from ..plan import Plan, Section
from ..sections import generate
from ..solver import VARIANTS, flow_sigmas, sample_unipc
from ..timeline import Timeline
from . import checks
from .denoise import GuiderDenoiser, with_conditions
from .preview import Progress, Say

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
) -> Tensor:
    """The video's latents `B 16 T H W`, unscaled, the start latent first. `preview_vae` decodes finished sections to be seen.

    Raises ValueError for anything that does not fit together, before the model is loaded.
    """
    patcher = guider.model_patcher
    checks.require_framepack(patcher)
    timeline = start_timeline(plan, start_latent, end_latent)
    sections = plan.bind(timeline)
    checks.require_conditioning(guider.original_conds, patcher)
    checks.require_image_embedding(clip_vision_output, patcher)
    schedules = {len(section.target): checks.enough_sigmas(sigmas(section, timeline)) for section in sections}
    warnings = checks.warnings(plan, patcher)

    if clip_vision_output is not None:
        guider = with_conditions(guider, clip_vision_output=clip_vision_output)
    steps = [len(schedules[len(section.target)]) - 1 for section in sections]
    with Progress(
        patcher, sections, steps, timeline, plan.fps, lambda line: say("\n".join([*warnings, line])), preview_vae
    ) as progress:
        denoise = GuiderDenoiser(guider, sampler, lambda section: schedules[len(section.target)], seed, progress.of)
        for section, latents in generate(sections, timeline, denoise, seed):
            progress.finish(section, latents)
    return timeline.latents


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
