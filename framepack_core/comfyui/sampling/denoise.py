"""One section through a ComfyUI guider."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...filling import Section
from ...packing import Context
from ...timeline import is_finite
from .. import private
from ..families import family_of
from .patches import require_unconditional
from .regions import for_video
from .section import PRE_CFG, Call
from .timed import Conds

Callback = Callable[[int, Tensor, Tensor, int], None]  # step, x0, x, steps; in the model's space


class GuiderDenoiser:
    """The `denoise` callable, from a guider and a sampler; the caller's guider stays untouched.

    `sigmas` has a schedule for each section, since the one that generates both ends has twice the tokens.
    `callback(section)` returns what the sampler calls after each of its steps. `embeddings` has the image embeddings of those
    sections that have their own, `conditions` the conditions of those whose prompts are timed, and `initial` `B C T H W` the
    whole video, if noise is added to it rather than to nothing.
    """

    def __init__(
        self,
        guider,
        sampler,
        sigmas: Sequence[Tensor],
        seed: int,
        callback: Callable[[Section], Callback | None] = lambda section: None,
        embeddings: Mapping[int, Any] | None = None,
        initial: Tensor | None = None,
        conditions: Mapping[int, Conds] | None = None,
    ) -> None:
        self.guider = guider
        self.sampler = sampler
        self.sigmas = sigmas
        self.seed = seed
        self.callback = callback
        self.embeddings = embeddings or {}
        self.initial = initial
        self.conditions = conditions or {}
        self.sample = family_of(guider.model_patcher).sections(guider.model_patcher)

    def __call__(self, noise: Any, context: Context) -> Tensor:
        """Latents `B C T H W`, unscaled as ComfyUI keeps them. Raises ValueError if they are not finite."""
        section = context.section
        begun = None if self.initial is None else self.initial[:, :, list(section.target)]
        call = partial(self._call, section, self.callback(section))
        latents = self.sample(call, noise, begun, self.sigmas[section.number], context).cpu()
        if not is_finite(latents):
            raise ValueError(
                f"section {section.number + 1} has values that are not finite (NaN or infinite), so its frames would be black. "
                "This can come from a LoRA or another patch of the model, from float16 (--fp16-unet) or from the attention in "
                "use: try without LoRAs and patches, then with --use-pytorch-cross-attention"
            )
        return latents

    def _call(self, section: Section, callback: Callback | None, call: Call) -> Tensor:
        begun = torch.zeros_like(call.noise) if call.begun is None else call.begun
        return self._guider(section, call).sample(
            call.noise,
            begun,
            self.sampler,
            call.sigmas,
            callback=callback and _counting_on(callback, call.done),
            disable_pbar=not private.PROGRESS_BAR_ENABLED,
            seed=(self.seed + section.number) % 2**64,
        )

    def _guider(self, section: Section, call: Call):
        """The guider for one call."""
        guider = copy.copy(self.guider)
        guider.original_conds = self.conditions.get(section.number, guider.original_conds)
        guider = with_conditions(guider, **call.conditions)
        if section.number in self.embeddings:
            guider = with_conditions(guider, clip_vision_output=self.embeddings[section.number])
        guider.original_conds = {
            name: [for_video(cond, *call.noise.shape[2:], scale=call.scale) for cond in conds]
            for name, conds in guider.original_conds.items()
        }
        functions = [require_unconditional, *guider.model_options.get(PRE_CFG, [])]
        guider.model_options = call.options({**guider.model_options, PRE_CFG: functions})
        return guider


def _counting_on(callback: Callback, done: int) -> Callback:
    """The section's callback for a call before which so many of its steps are done."""
    return lambda step, x0, x, steps: callback(done + step, x0, x, steps)


def with_conditions(guider, **values):
    """A shallow copy of the guider that has these values in every condition."""
    copied = copy.copy(guider)
    copied.original_conds = {name: [{**cond, **values} for cond in conds] for name, conds in guider.original_conds.items()}
    return copied
