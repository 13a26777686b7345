"""The family of a loaded MODEL: what the nodes and the sampling loop ask of it, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.samplers
from torch import Tensor

from ..family import FRAMEPACK, HELIOS, Family
from ..filling import Section
from ..helios.recipes import RECIPES, Recipe
from ..sections import Draw
from ..timeline import Timeline
from .sampling import framepack, helios
from .sampling.samplers import sampler_named
from .sampling.section import SampleSection

AUTO = "auto"  # the model's own solver


@dataclass(frozen=True)
class ModelFamily:
    """A family's data, what its models call themselves and their variant, and what they do in their own way.

    `text_width(model)` and `image_width(model)` are the widths of the embeddings that the model takes, the latter None if it
    does not look at images; `blocks(model)` says how many blocks there are of each kind that nodes can replace.
    `schedules(sections, timeline, steps, shift, denoise)` are the sigmas of each section, which go down to 0 once for each of
    its `stages`. `begin(model, timeline, seed)` begins a run: it adds noise to what is given, if the family does, and returns
    what draws one section's noise after the other. `sections(patcher)` samples them.
    """

    family: Family
    model: str
    variant: str | None
    stages: int
    text_width: Callable[[Any], int]
    image_width: Callable[[Any], int | None]
    blocks: Callable[[Any], Mapping[str, int]]
    schedules: Callable[..., list[Tensor]]
    begin: Callable[[Any, Timeline, int], Draw]
    sections: Callable[[Any], SampleSection]

    def sampler(self, name: str) -> comfy.samplers.Sampler:
        return sampler_named(self.family.solver if name == AUTO else name)

    def sigmas(
        self, sections: Sequence[Section], timeline: Timeline, steps: int, shift: float, denoise: float = 1.0
    ) -> list[Tensor]:
        """`schedules`, where 0 `steps` are the model's own number."""
        return self.schedules(sections, timeline, steps or self.family.steps, shift, denoise)


def of_recipe(recipe: Recipe) -> ModelFamily:
    """Helios in one of its variants."""
    return ModelFamily(
        family=HELIOS[recipe.name],
        model="Helios",
        variant=recipe.name,
        stages=recipe.stages,
        text_width=helios.text_width,
        image_width=helios.image_width,
        blocks=helios.blocks,
        schedules=partial(helios.schedules, recipe),
        begin=partial(helios.begin, recipe),
        sections=partial(helios.HeliosSections, recipe),
    )


MODEL_FAMILIES = (
    ModelFamily(
        family=FRAMEPACK,
        model="FramePack",
        variant=None,
        stages=1,
        text_width=framepack.text_width,
        image_width=framepack.image_width,
        blocks=framepack.blocks,
        schedules=framepack.schedules,
        begin=framepack.begin,
        sections=framepack.FramePackSections,
    ),
    *map(of_recipe, RECIPES.values()),
)


def family_of(patcher: Any) -> ModelFamily:
    """Raises ValueError for a model of another kind."""
    model = patcher.model
    named = getattr(model, "family", None), getattr(model, "variant", None)
    for family in MODEL_FAMILIES:
        if named == (family.model, family.variant):
            return family
    raise ValueError(f"model is {type(patcher.model).__name__}, not FramePack; load a FramePack checkpoint with "
                     "FramePack_LoadModel")  # fmt: skip
