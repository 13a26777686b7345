"""One section through a ComfyUI guider."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...packing import Context
from ...plan import Section
from .. import private
from ..model.framepack import CONTEXT_KEY, PackedContext

Callback = Callable[[int, Tensor, Tensor, int], None]  # step, x0, x, steps; in the model's space


class GuiderDenoiser:
    """The `denoise` callable, from a guider and a sampler; the caller's guider stays untouched.

    `sigmas` has a schedule for each section, since the one that generates both ends has twice the tokens.
    `callback(section)` returns what the sampler calls after each of its steps.
    """

    def __init__(
        self,
        guider,
        sampler,
        sigmas: Sequence[Tensor],
        seed: int,
        callback: Callable[[Section], Callback | None] = lambda section: None,
    ) -> None:
        self.guider = guider
        self.sampler = sampler
        self.sigmas = sigmas
        self.seed = seed
        self.callback = callback

    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        """Latents `B C T H W`, unscaled as ComfyUI keeps them."""
        section = context.section
        patcher = self.guider.model_patcher
        params = patcher.model.diffusion_model.params
        height, width = noise.shape[3:]
        packed = PackedContext(context, height, width, params.axes_dim, params.theta).to(patcher.load_device)
        latents = with_conditions(self.guider, **{CONTEXT_KEY: packed}).sample(
            noise,
            torch.zeros_like(noise),
            self.sampler,
            self.sigmas[section.number],
            callback=self.callback(section),
            disable_pbar=not private.PROGRESS_BAR_ENABLED,
            seed=(self.seed + section.number) % 2**64,
        )
        return latents.cpu()


def with_conditions(guider, **values):
    """A shallow copy of the guider that has these values in every condition."""
    copied = copy.copy(guider)
    copied.original_conds = {name: [{**cond, **values} for cond in conds] for name, conds in guider.original_conds.items()}
    return copied
