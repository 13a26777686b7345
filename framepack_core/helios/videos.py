"""A whole video: chunk by chunk, and each chunk stage by stage.

    generator = torch.Generator().manual_seed(seed)
    timeline = text_to_video(chunks, shape)
    sample = solving(velocity, MID, MID.cfg, SAMPLERS[MID.solver])
    for section, latents in generate(MID, MID.steps, sections_of(timeline), timeline, sample, generator):
        save(section, latents)

All that `sections.fill` needs is here in parts, too, for a caller that has something to add to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial

import torch
from torch import Generator, Tensor

from ..packing import Context
from ..plan import Section
from ..sections import fill
from ..timeline import Timeline
from . import noise
from .chunks import hidden_frames
from .guidance import guided, prepared
from .noise import ChunkNoise
from .recipes import Recipe
from .solver import Sampler
from .stages import Stage, stages_of

Stages = Sequence[tuple[Stage, ...]]  # of each section, by its number
SampleStage = Callable[[Stage, Tensor, Context], Tensor]
Velocity = Callable[[Tensor, Tensor, Context, bool], Tensor]


def generate(
    recipe: Recipe,
    steps: int,
    sections: Sequence[Section],
    timeline: Timeline,
    sample: SampleStage,
    generator: Generator,
    finished: Iterable[Tensor] = (),
) -> Iterator[tuple[Section, Tensor]]:
    """Sample the chunks in order, write each into the timeline and yield it with its latents `B C 9 H W`, in the model's space.

    `sample(stage, start, context)` takes what a stage begins with, `B C 9 h w`, to its result. `steps` are a chunk's. The
    generator is the one from which the timeline has drawn. `finished` are as in `sections.generate`. Raises ValueError, before
    anything is sampled, for steps and sizes that do not fit the recipe.
    """
    stages = section_stages(recipe, steps, sections, timeline)
    draw, denoise = drawing(stages, timeline, generator), staged(sample, stages, recipe.gamma)
    yield from fill(sections, timeline, draw, denoise, finished)


def section_stages(recipe: Recipe, steps: int, sections: Sequence[Section], timeline: Timeline) -> Stages:
    """The stages of each section. Raises ValueError for steps and sizes that do not fit the recipe."""
    (H, W), begins = timeline.latents.shape[3:], hidden_frames(timeline)
    of_length = cache(partial(stages_of, recipe, steps, H, W))
    return [of_length(len(section.target), section.target[0] == begins) for section in sections]


def drawing(stages: Stages, timeline: Timeline, generator: Generator) -> Callable[[Section], ChunkNoise]:
    """What draws a section's noise."""
    B, C, _, H, W = timeline.latents.shape

    def draw(section: Section) -> ChunkNoise:
        return noise.draw(stages[section.number], (B, C, len(section.target), H, W), generator)

    return draw


def staged(sample: SampleStage, stages: Stages, gamma: float) -> Callable[[ChunkNoise, Context], Tensor]:
    """What denoises a section, stage by stage."""

    def denoise(drawn: ChunkNoise, context: Context) -> Tensor:
        coarsest, *finer = stages[context.section.number]
        latents = sample(coarsest, noise.coarsest(drawn), context)
        for stage, blocks in zip(finer, drawn.blocks, strict=True):
            latents = sample(stage, noise.finer(latents, blocks, stage, gamma), context)
        return latents

    return denoise


def solving(velocity: Velocity, recipe: Recipe, cfg: float, sampler: Sampler) -> SampleStage:
    """What samples a stage with nothing but a model: `velocity(x, timestep, context, positive)` is that of x `B C T h w`.

    The timestep is float32 `B`; `positive` says for which prompt. With a `cfg` of 1 only the positive one is asked for.
    """

    def sample(stage: Stage, start: Tensor, context: Context) -> Tensor:
        def x0(x: Tensor, sigma: Tensor) -> Tensor:
            def predicted(positive: bool) -> Tensor:
                return x - sigma.view(-1, 1, 1, 1, 1) * velocity(x, timestep, context, positive)

            timestep = torch.full_like(sigma, stage.timesteps[stage.step(float(sigma[0]))])
            if cfg == 1:
                return predicted(True)
            return guided(*prepared(recipe, stage, x, sigma, predicted(True), predicted(False)), cfg)

        return sampler(x0, start, torch.tensor(stage.sigmas))

    return sample
