"""Helios videos without ComfyUI: what is given, and the loop over chunks and stages with nothing but a model.

    generator = torch.Generator().manual_seed(seed)
    timeline = text_to_video(chunks, shape)
    sample = solving(velocity, MID, MID.cfg, SAMPLERS[MID.solver])
    for section, latents in generate(MID, MID.steps, sections_of(timeline), timeline, sample, generator):
        ...

Timelines are in the model's space. They begin with the frames that are hidden.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from framepack_core.filling import Section
from framepack_core.helios.chunks import WINDOW, plan_of, with_noise
from framepack_core.helios.guidance import prepared
from framepack_core.helios.noise import ChunkNoise
from framepack_core.helios.recipes import Recipe
from framepack_core.helios.sections import SampleStage, drawing, section_stages, through
from framepack_core.helios.solver import Sampler
from framepack_core.helios.stages import Stage
from framepack_core.packing import Context
from framepack_core.sections import fill
from framepack_core.timeline import Guide, Timeline

Velocity = Callable[[Tensor, Tensor, Context, bool], Tensor]

# What is given


def text_to_video(chunks: int, shape: Sequence[int]) -> Timeline:
    """A timeline in which nothing is known, for latents of the shape `B C T H W`, whose T does not count."""
    B, C, _, H, W = shape
    return Timeline.empty(chunks * WINDOW, B, C, H, W)


def after(chunks: int, anchor: Tensor, hidden: Tensor, generator: Generator) -> Timeline:
    """A timeline that begins after a still or a clip: `anchor` `B C 1 H W` is the image, or the clip's first frame, encoded by
    itself, and `hidden` `B C T H W` the still, or the latents of the clip's chunks. They get their noise from the generator.
    """
    anchor, seen = with_noise(anchor, hidden, generator)
    B, C, frames, H, W = seen.shape
    timeline = Timeline.empty(frames + chunks * WINDOW, B, C, H, W)
    timeline.write(range(frames), seen)
    timeline.guides = (Guide(anchor, frames, timeline.frames),)
    return timeline


def sections_of(timeline: Timeline, reanchored: bool = False) -> tuple[Section, ...]:
    """The chunks that fill a timeline."""
    plan = plan_of((timeline.frames - len(timeline.known)) // WINDOW)
    return replace(plan, reanchored=reanchored).bind(timeline)


# The loop


def generate(
    recipe: Recipe,
    steps: int,
    sections: Sequence[Section],
    timeline: Timeline,
    sample: SampleStage,
    generator: Generator,
    finished: Iterable[Tensor] = (),
) -> Iterator[tuple[Section, Tensor]]:
    """Sample the chunks in order, write each into the timeline and yield it with its latents `B C 9 H W`.

    `steps` are a chunk's. The generator is the one from which the timeline has drawn. `finished` are as in `sections.generate`.
    """
    stages = section_stages(recipe, steps, sections, timeline)

    def denoise(drawn: ChunkNoise, context: Context) -> Tensor:
        return through(sample, stages[context.section.number], drawn, recipe.gamma, context)

    yield from fill(sections, timeline, drawing(recipe, timeline, generator), denoise, finished)


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


def guided(positive: Tensor, negative: Tensor, cfg: float) -> Tensor:
    """Ordinary classifier-free guidance of strength `cfg`."""
    return negative + cfg * (positive - negative)
