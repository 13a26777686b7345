"""A video, and everything there was to see while it was made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from framepack_core.filling import Section
from framepack_core.frames import Length, pixel_frames, runs
from framepack_core.plan import Plan


@dataclass(frozen=True)
class Preview:
    """A section's frames `F H W 3` as the model predicts them after `step` steps."""

    step: int
    frames: np.ndarray


@dataclass(frozen=True)
class Take:
    """The finished frames `F H W 3`, and every section's previews, in the order in which the sections were made."""

    plan: Plan
    prompt: str
    steps: int
    frames: np.ndarray
    previews: tuple[tuple[Preview, ...], ...]

    @property
    def sections(self) -> tuple[Section, ...]:
        return self.plan.fill(self.length.latents)

    @property
    def length(self) -> Length:
        return self.plan.length(1 + self.plan.generated)


def shown(section: Section) -> list[int]:
    """The frames of the video that a section's latent frames stand for."""
    return [frame for start, stop in runs(section.target) for frame in span(start, stop)]


def span(start: int, stop: int) -> range:
    """The frames of the video that the latent frames from `start` up to but not including `stop` stand for."""
    return range(max(0, pixel_frames(start)), pixel_frames(stop))
