"""The section loop: fill a timeline section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .packing import Context, gather
from .plan import Section
from .timeline import Timeline

Denoise = Callable[[Tensor, Context], Tensor]


def generate(
    sections: Sequence[Section], timeline: Timeline, denoise: Denoise, seed: int, finished: Sequence[Tensor] = ()
) -> Iterator[tuple[Section, Tensor]]:
    """Sample the sections in order, write each into the timeline and yield it with its latents `B C T H W`.

    `denoise(noise, context)` turns noise `B C T H W` into latents. One CPU generator, seeded once, draws the noise of all
    sections, as in the official program. The caller may save and show each section, stop, and continue later: `finished` holds
    the latents of the first sections from an earlier run, which are not sampled again. Their noise is drawn all the same, so
    that the others come out bit for bit as they would have. Raises ValueError if `finished` does not fit.

        for section, latents in generate(plan.bind(timeline), timeline, denoise, seed=0):
            save(section, latents)
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    B, C, _, H, W = timeline.latents.shape
    _require_fitting(finished, [(B, C, len(section.target), H, W) for section in sections])
    for number, section in enumerate(sections):
        noise = torch.randn((B, C, len(section.target), H, W), generator=generator)
        latents = finished[number] if number < len(finished) else denoise(noise, gather(section, timeline))
        timeline.write(section.target, latents)
        yield section, latents


def _require_fitting(finished: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    found = [tuple(latents.shape) for latents in finished]
    if found != shapes[: len(found)]:
        raise ValueError(f"the finished sections have shapes {found}, expected the first of {shapes}")
