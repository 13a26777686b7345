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

from ..filling import Section
from ..packing import Context
from ..sections import Draw, fill
from ..timeline import Timeline
from . import noise
from .chunks import hidden_frames
from .guidance import guided, prepared
from .noise import ChunkNoise
from .recipes import Recipe
from .solver import Sampler
from .stages import Stage, stage_sizes, stages_of

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

    def denoise(drawn: ChunkNoise, context: Context) -> Tensor:
        return through(sample, stages[context.section.number], drawn, recipe.gamma, context)

    yield from fill(sections, timeline, drawing(recipe, timeline, generator), denoise, finished)


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
    """A section from its noise, stage by stage."""
    coarsest, *finer = stages
    latents = sample(coarsest, noise.coarsest(drawn), context)
    for stage, blocks in zip(finer, drawn.blocks, strict=True):
        latents = sample(stage, noise.finer(latents, blocks, stage, gamma), context)
    return latents


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
