"""The section loop: fill a timeline section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .packing import Context, gather
from .plan import Section
from .timeline import Timeline

Denoise = Callable[[Tensor, Context], Tensor]


def generate(sections: Iterable[Section], timeline: Timeline, denoise: Denoise, seed: int) -> Iterator[tuple[Section, Tensor]]:
    """Sample the sections in order, write each into the timeline and yield it with its latents `B C T H W`.

    `denoise(noise, context)` turns noise `B C T H W` into latents. One CPU generator, seeded once, draws the noise of all
    sections, as in the official program. Whoever iterates may save, show, stop, or go on later.

        for section, latents in generate(plan.bind(timeline), timeline, denoise, seed=0):
            save(section, latents)
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    B, C, _, H, W = timeline.latents.shape
    for section in sections:
        noise = torch.randn((B, C, len(section.target), H, W), generator=generator)
        latents = denoise(noise, gather(section, timeline))
        timeline.write(section.target, latents)
        yield section, latents
