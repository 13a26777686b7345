"""Films the demo's models at work: the video they make, and what each section looks like after each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from experiments.pictures.take import Preview, Take, span
from experiments.study.studio import Studio
from experiments.study.videos import Video
from framepack_core.filling import Section
from framepack_core.frames import runs

PREVIEWS = 12  # per section, at most


def film(studio: Studio, video: Video, say: Callable[[str], None] = print) -> Take:
    """Make one video and return its take. `say` reports the progress."""
    sections = video.plan.fill(1 + video.generated)
    expected: list[list[tuple[int, Tensor]]] = [[] for _ in sections]
    every = math.ceil(video.steps / PREVIEWS)
    to_latents = studio.model.model.process_latent_out

    def watch(section: Section) -> Callable[[int, Tensor, Tensor, int], None]:
        say(f"section {section.number + 1} of {len(sections)}")

        def keep(step: int, x0: Tensor, x: Tensor, steps: int) -> None:
            if step % every == 0 and step + 1 < steps:
                expected[section.number].append((step + 1, to_latents(x0).cpu()))

        return keep

    latents = studio.sample([video], watch=watch).latents
    say("decoding")
    previews = tuple(
        tuple(Preview(step, seen(studio, latents, section, x0)) for step, x0 in steps)
        for section, steps in zip(sections, expected, strict=True)
    )
    return Take(video.plan, video.told.caption, video.steps, studio.decode(latents), previews)


def seen(studio: Studio, latents: Tensor, section: Section, x0: Tensor) -> np.ndarray:
    """The section's frames, decoded in their place in the finished video."""
    placed = latents.clone()
    placed[:, :, list(section.target)] = x0
    reach = studio.vae.first_stage_model.reach_back
    parts = [
        studio.decode(placed[:, :, max(0, start - reach) : stop])[-len(span(start, stop)) :]
        for start, stop in runs(section.target)
    ]
    return np.concatenate(parts)
