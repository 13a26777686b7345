"""The section loop: fill a timeline section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .filling import Section
from .packing import Context, gather
from .timeline import Timeline

Noise = TypeVar("Noise")
Draw = Callable[[Section], Noise]
Denoise = Callable[[Noise, Context], Tensor]


def generate(
    sections: Sequence[Section], timeline: Timeline, denoise: Denoise[Tensor], seed: int, finished: Iterable[Tensor] = ()
) -> Iterator[tuple[Section, Tensor]]:
    """Sample the sections in order, write each into the timeline and yield it with its latents `B C T H W`.

    `denoise(noise, context)` turns noise `B C T H W` into latents. One CPU generator, seeded once, draws the noise of all
    sections, as in the official program. The caller may save and show each section, stop, and continue later: `finished` gives
    the latents of the first sections from an earlier run, one when each is due, which are not sampled again. Their noise is
    drawn all the same, so that the others come out bit for bit as they would have. Raises ValueError, before anything is
    sampled, if `finished` does not fit.

        for section, latents in generate(plan.bind(timeline), timeline, denoise, seed=0):
            save(section, latents)
    """
    yield from fill(sections, timeline, drawing(timeline, seed), denoise, finished)


def drawing(timeline: Timeline, seed: int) -> Draw[Tensor]:
    """What draws the noise of one section after the other, as the official program does."""
    generator = torch.Generator("cpu").manual_seed(seed)
    B, C, _, H, W = timeline.latents.shape

    def draw(section: Section) -> Tensor:
        return torch.randn((B, C, len(section.target), H, W), generator=generator)

    return draw


def fill(
    sections: Sequence[Section],
    timeline: Timeline,
    draw: Draw[Noise],
    denoise: Denoise[Noise],
    finished: Iterable[Tensor] = (),
) -> Iterator[tuple[Section, Tensor]]:
    """`generate` with a section's noise from `draw(section)`, which is asked for every section, a finished one too."""
    remaining = iter(finished)
    B, C, _, H, W = timeline.latents.shape
    for section in sections:
        noise = draw(section)
        expected = (B, C, len(section.target), H, W)
        latents = next(remaining, None)
        if latents is None:
            latents = denoise(noise, gather(section, timeline))
        elif latents.shape != expected:
            raise ValueError(f"finished section {section.number + 1} has shape {tuple(latents.shape)}, expected {expected}")
        timeline.write(section.target, latents)
        del noise
        yield section, latents
        del latents  # the timeline has them, and the next section needs the memory
    if next(remaining, None) is not None:
        raise ValueError(f"there are more finished sections than the {len(sections)} of the video")
