"""A section of Helios: its stages, its noise, and the way from the noise through the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from torch import Generator, Tensor

from ..filling import Section
from ..packing import Context
from ..sections import Draw
from ..timeline import Timeline
from . import noise
from .chunks import hidden_frames
from .noise import ChunkNoise
from .recipes import Recipe
from .stages import Stage, stage_sizes, stages_of

SampleStage = Callable[[Stage, Tensor, Context], Tensor]


def section_stages(
    recipe: Recipe, steps: int, sections: Sequence[Section], timeline: Timeline, shift: float = 0.0
) -> Sequence[tuple[Stage, ...]]:
    """The stages of each section, by its number. Raises ValueError for steps and sizes that do not fit the recipe."""
    (H, W), begins = timeline.latents.shape[3:], hidden_frames(timeline)
    of_length = cache(partial(stages_of, recipe, steps, H, W, shift=shift))
    return [of_length(len(section.target), section.target[0] == begins) for section in sections]


def drawing(recipe: Recipe, timeline: Timeline, generator: Generator) -> Draw[ChunkNoise]:
    """What draws a section's noise. Raises ValueError for a size that does not fit the recipe."""
    B, C, _, H, W = timeline.latents.shape
    sizes = stage_sizes(recipe, H, W)

    def draw(section: Section) -> ChunkNoise:
        return noise.draw(sizes, (B, C, len(section.target), H, W), generator)

    return draw


def through(sample: SampleStage, stages: Sequence[Stage], drawn: ChunkNoise, gamma: float, context: Context) -> Tensor:
    """A section `B C 9 H W` from its noise, in the model's space.

    `sample(stage, start, context)` takes what a stage begins with, `B C 9 h w`, to its result.
    """
    coarsest, *finer = stages
    latents = sample(coarsest, noise.coarsest(drawn), context)
    for stage, blocks in zip(finer, drawn.blocks, strict=True):
        latents = sample(stage, noise.finer(latents, blocks, stage, gamma), context)
    return latents
