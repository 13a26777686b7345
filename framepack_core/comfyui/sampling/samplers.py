"""Samplers by name, and the official program's sigmas."""

from __future__ import annotations

from collections.abc import Iterable

import comfy.samplers
import torch
from torch import Tensor

from ...filling import Section
from ...helios import solver as helios
from ...layout import BASE_KERNEL, token_count
from ...solver import VARIANTS, flow_sigmas, sample_unipc
from ...timeline import Timeline
from .. import private

UNIPC = tuple(f"unipc_{variant}" for variant in VARIANTS)
OWN = (*UNIPC, *helios.SAMPLERS)


def sampler_named(name: str) -> comfy.samplers.Sampler:
    """One of our `OWN`, or any of ComfyUI's."""
    if name in UNIPC:
        return unipc(name.removeprefix("unipc_"))
    if name in helios.SAMPLERS:
        return private.KSAMPLER(helios.SAMPLERS[name])
    return private.sampler_object(name)


def unipc(variant: str) -> comfy.samplers.Sampler:
    return private.KSAMPLER(sample_unipc, {"variant": variant})


def section_sigmas(
    sections: Iterable[Section], timeline: Timeline, steps: int, shift: float, denoise: float = 1.0
) -> list[Tensor]:
    """A schedule for each section, according to the number of tokens it generates.

    With `denoise` below 1 they are the last `steps` of a schedule of `steps` / `denoise`, as in ComfyUI's own sampler nodes.
    """
    height, width = timeline.latents.shape[3:]
    whole = int(steps / denoise)
    return [flow_sigmas(whole, section.target_tokens(height, width), shift)[-(steps + 1) :] for section in sections]


def window_sigmas(latent: Tensor, window: int, steps: int, shift: float) -> Tensor:
    """The schedule for `window` frames of a latent's size."""
    height, width = latent.shape[-2:]
    return flow_sigmas(steps, token_count(window, BASE_KERNEL, height, width), shift)


def descents(sigmas: Tensor) -> tuple[Tensor, ...]:
    """The sigmas of a section's stages, each of which goes down from about 1 to 0: most models have one."""
    values = sigmas.tolist()
    return sigmas.tensor_split([step for step in range(1, len(values)) if values[step] > values[step - 1]])


def step_count(sigmas: Tensor) -> int:
    """Of all stages of a section."""
    return len(sigmas) - len(descents(sigmas))


def without_repeats(sigmas: Tensor) -> Tensor:
    """The schedule without steps between equal sigmas, which go nowhere; most of ComfyUI's samplers divide by their length."""
    return torch.unique_consecutive(sigmas)
