"""How each of the three released Helios models samples (arXiv 2603.04379), as plain data.

From the released scripts and diffusers' pipelines. The solver and shift of Base and Mid are the defaults of its scheduler and
of the training: the scheduler files beside the weights have not been compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Solver = Literal["unipc", "dmd"]
Shift = Literal["exponential", "linear"]

# The negative prompt of the official program; Mid and Base were made for it.
NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)


@dataclass(frozen=True)
class Recipe:
    """How a model samples a section of a video.

    Of its noise, from all (0) to none (1), each stage removes the part between two numbers of `bounds`, at half the next one's
    height and width. `gamma` is how strongly the four values of a 2x2 block of the noise between stages repel each other.
    `steps` are a section's, shared evenly among the stages. With `zero_star`, cfg is CFG-Zero*, and with cfg the first `zeroed`
    steps of a section stand still. `amplified`: a video's first section has twice the steps.
    """

    name: str
    steps: int
    cfg: float
    solver: Solver = "unipc"
    shift: Shift = "exponential"
    bounds: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    gamma: float = 1 / 3
    zero_star: bool = False
    zeroed: int = 0
    amplified: bool = False

    def __str__(self) -> str:
        return f"Helios {self.name.capitalize()}"

    @property
    def stages(self) -> int:
        return len(self.bounds) - 1


BASE = Recipe("base", steps=50, cfg=5.0, bounds=(0.0, 1.0))
# The official zero_steps of 1 counts from 0, so that two steps stand still.
MID = Recipe("mid", steps=60, cfg=5.0, zero_star=True, zeroed=2)
DISTILLED = Recipe("distilled", steps=6, cfg=1.0, solver="dmd", shift="linear", amplified=True)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (BASE, MID, DISTILLED)}
