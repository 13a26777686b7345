"""The section loop: fill a timeline section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .packing import Context, gather
from .plan import Section
from .timeline import Timeline

Shape = tuple[int, ...]
Draw = Callable[[Shape, torch.Generator], Any]  # a section's noise, as its `denoise` takes it
Denoise = Callable[[Any, Context], Tensor]


def gaussian(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def generate(
    sections: Sequence[Section],
    timeline: Timeline,
    denoise: Denoise,
    seed: int,
    finished: Iterable[Tensor] = (),
    draw: Draw = gaussian,
) -> Iterator[tuple[Section, Tensor]]:
    """Sample the sections in order, write each into the timeline and yield it with its latents `B C T H W`.

    `denoise(noise, context)` turns noise into latents; `draw(shape, generator)` draws it for latents of this shape, with one
    CPU generator for all sections that is seeded once, as in the official program. The caller may save and show each section,
    stop, and continue later: `finished` gives the latents of the first sections from an earlier run, one when each is due,
    which are not sampled again. Their noise is drawn all the same, so that the others come out bit for bit as they would have.
    Raises ValueError, before anything is sampled, if `finished` does not fit.

        for section, latents in generate(plan.bind(timeline), timeline, denoise, seed=0):
            save(section, latents)
    """
    generator, remaining = torch.Generator("cpu").manual_seed(seed), iter(finished)
    B, C, _, H, W = timeline.latents.shape
    for section in sections:
        shape = (B, C, len(section.target), H, W)
        noise = draw(shape, generator)
        latents = next(remaining, None)
        if latents is None:
            latents = denoise(noise, gather(section, timeline))
        elif latents.shape != shape:
            raise ValueError(f"finished section {section.number + 1} has shape {tuple(latents.shape)}, expected "
                             f"{shape}")  # fmt: skip
        timeline.write(section.target, latents)
        del noise
        yield section, latents
        del latents  # the timeline has them, and the next section needs the memory
    if next(remaining, None) is not None:
        raise ValueError(f"there are more finished sections than the {len(sections)} of the video")
