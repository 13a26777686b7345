"""What Helios does in its own way: see `families.ModelFamily`. Each of its variants has a recipe.

Latents are unscaled in a timeline, here as elsewhere, but noise is mixed and stages are joined in the model's space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...filling import Section
from ...helios.chunks import hidden_frames, with_noise
from ...helios.guidance import prepared
from ...helios.noise import ChunkNoise
from ...helios.recipes import Recipe
from ...helios.sections import drawing, section_stages, through
from ...helios.stages import Stage, stage_sizes, stage_with
from ...packing import Context
from ...sections import Draw
from ...timeline import Timeline
from ..model.helios.conditions import STAGE_KEY, PackedStage, Timesteps
from .samplers import descents
from .section import PRE_CFG, Call


def text_width(model: Any) -> int:
    return model.diffusion_model.text_dim


def image_width(model: Any) -> int | None:
    return None


def blocks(model: Any) -> Mapping[str, int]:
    return {"double_block": len(model.diffusion_model.blocks)}


def schedules(
    recipe: Recipe, sections: Sequence[Section], timeline: Timeline, steps: int, shift: float, denoise: float
) -> list[Tensor]:
    """The sigmas of all stages of each section, float64, since the timesteps of a pyramid's are cut to whole numbers."""
    return [
        torch.tensor([sigma for stage in stages for sigma in stage.sigmas], dtype=torch.float64)
        for stages in section_stages(recipe, steps, sections, timeline, shift)
    ]


def begin(recipe: Recipe, model: Any, timeline: Timeline, seed: int) -> Draw[ChunkNoise]:
    """What draws the noise of sections, after that on what the timeline is given."""
    generator = torch.Generator("cpu").manual_seed(seed)
    space, hidden = model.latent_format, hidden_frames(timeline)
    if hidden:
        (anchor,), given = timeline.guides, timeline.latents[:, :, :hidden]
        noised = with_noise(space.process_in(anchor.latent), space.process_in(given), generator)
        shown, seen = map(space.process_out, noised)
        timeline.guides = (anchor._replace(latent=shown),)
        timeline.write(range(hidden), seen)
    return drawing(recipe, timeline, generator)


class HeliosSections:
    """A `SampleSection`: a call of the guider for each stage, coarse to fine."""

    def __init__(self, recipe: Recipe, patcher: Any) -> None:
        self.recipe = recipe
        self.patcher = patcher
        self.space = patcher.model.latent_format

    def __call__(
        self, call: Callable[[Call], Tensor], noise: ChunkNoise, begun: Tensor | None, sigmas: Tensor, context: Context
    ) -> Tensor:
        sizes = stage_sizes(self.recipe, *noise.whole.shape[3:])
        stages = [
            stage_with(self.recipe, number, tuple(schedule.tolist()), *size)
            for number, (schedule, size) in enumerate(zip(descents(sigmas), sizes, strict=True))
        ]
        seen = replace(context, latents=tuple(map(self.space.process_in, context.latents)))

        def sample(stage: Stage, start: Tensor, context: Context) -> Tensor:
            done = sum(len(before.timesteps) for before in stages[: stage.number])
            return self.space.process_in(call(self._call(stage, start, context, sizes[-1], done)).cpu())

        return self.space.process_out(through(sample, stages, noise, self.recipe.gamma, seen))

    def _call(self, stage: Stage, start: Tensor, context: Context, whole: tuple[int, int], done: int) -> Call:
        """ComfyUI multiplies noise by the first sigma, and `start` is what a stage begins with."""
        axes, size = self.patcher.model.diffusion_model.axes, (stage.height, stage.width)
        packed = PackedStage(context, whole, size, axes, timesteps(self.recipe, stage)).to(self.patcher.load_device)
        return Call(
            noise=start / stage.sigmas[0],
            begun=None,
            sigmas=torch.tensor(stage.sigmas),
            conditions={STAGE_KEY: packed},
            options=partial(guided, self.recipe, stage),
            done=done,
            scale=stage.height / whole[0],
        )


def timesteps(recipe: Recipe, stage: Stage) -> Timesteps | None:
    """The table of a pyramid's stage; without one a timestep is 1000 sigma, between the sigmas of a schedule too."""
    if recipe.stages == 1:
        return None
    return Timesteps(torch.tensor(stage.sigmas[:-1]), torch.tensor(stage.timesteps))


def guided(recipe: Recipe, stage: Stage, model_options: dict) -> dict:
    """ComfyUI's options with the recipe's guidance after all other functions, where cfg combines two predictions."""
    if not (recipe.zero_star or stage.zeroed):
        return model_options

    def prepare(predictions: Mapping[str, Any]) -> Sequence[Tensor]:
        out = predictions["conds_out"]
        if len(out) != 2 or math.isclose(predictions["cond_scale"], 1.0):
            return out
        return prepared(recipe, stage, predictions["input"], predictions["sigma"], *out)

    return {**model_options, PRE_CFG: [*model_options.get(PRE_CFG, []), prepare]}
