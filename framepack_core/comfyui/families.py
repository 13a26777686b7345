"""The family of a loaded MODEL: what the nodes and the sampling loop ask of it, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.samplers
from torch import Tensor

from ..family import FRAMEPACK, Family
from ..plan import Section
from ..sections import Draw, drawing
from ..timeline import Timeline
from .model.framepack import FramePackModel
from .sampling import framepack
from .sampling.samplers import sampler_named, section_sigmas
from .sampling.section import SampleSection

AUTO = "auto"  # the model's own solver


@dataclass(frozen=True)
class ModelFamily:
    """A family's data, the class of its models, and what they do in their own way.

    `text_width(model)` and `image_width(model)` are the widths of the embeddings that the model takes, the latter None if it
    does not look at images; `blocks(model)` says how many blocks there are of each kind that nodes can replace.
    `schedules(sections, timeline, steps, shift, denoise)` are the sigmas of each section, `drawing(timeline, seed)` draws one
    section's noise after the other, and `sections(patcher)` samples them in one run.
    """

    family: Family
    model: type
    text_width: Callable[[Any], int]
    image_width: Callable[[Any], int | None]
    blocks: Callable[[Any], Mapping[str, int]]
    schedules: Callable[..., list[Tensor]]
    drawing: Callable[[Timeline, int], Draw]
    sections: Callable[[Any], SampleSection]

    def sampler(self, name: str) -> comfy.samplers.Sampler:
        return sampler_named(self.family.solver if name == AUTO else name)

    def sigmas(
        self, sections: Sequence[Section], timeline: Timeline, steps: int, shift: float, denoise: float = 1.0
    ) -> list[Tensor]:
        """`schedules`, where 0 `steps` are the model's own number."""
        return self.schedules(sections, timeline, steps or self.family.steps, shift, denoise)


MODEL_FAMILIES = (
    ModelFamily(
        family=FRAMEPACK,
        model=FramePackModel,
        text_width=framepack.text_width,
        image_width=framepack.image_width,
        blocks=framepack.blocks,
        schedules=section_sigmas,
        drawing=drawing,
        sections=framepack.FramePackSections,
    ),
)


def family_of(patcher: Any) -> ModelFamily:
    """Raises ValueError for a model of another kind."""
    for family in MODEL_FAMILIES:
        if isinstance(patcher.model, family.model):
            return family
    raise ValueError(f"model is {type(patcher.model).__name__}, not FramePack; load a FramePack checkpoint with "
                     "FramePack_LoadModel")  # fmt: skip
