"""What differs between the models that pack frames, as plain data: one object for each family of checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .helios import chunks
from .helios.recipes import RECIPES, Recipe
from .layout import Layout
from .orders import FORWARD, INVERTED, ORDERS
from .plan import Plan
from .trained import RELEASED, Trained

# What may be asked of a video besides its plan, and not every family can do.
Wish = Literal["end_latent", "keyframes", "guides", "denoise", "one frame"]


@dataclass(frozen=True)
class Family:
    """A family of checkpoints, called `name` in messages.

    `orders` names the orders in which it can fill a video, `layout` is the only one that it takes, window included, None for
    any, and `trained` what its released checkpoints were made for; their videos have `fps` frames a second. Sections that are
    `apart` are clips of their own for its VAE (see `Plan`). Where the user leaves it to the model, a section takes so many
    `steps` of the `solver` of this name.

    `cfg` and `guidance`, the distilled one, are those that it was made for, and `pooled` is how many values its text encoder
    gives for a whole prompt; None where there is no such input. `encode_text` says in words how prompts are encoded, and `vae`
    which VAE is the family's. `cannot` has the reason and the remedy for what it cannot do.
    """

    name: str
    trained: Trained
    orders: tuple[str, ...]
    layout: Layout | None
    apart: bool
    fps: float
    steps: int
    solver: str
    cfg: float
    guidance: float | None
    pooled: int | None
    encode_text: str
    vae: str
    cannot: Mapping[Wish, str] = field(default_factory=dict)

    def fit(self, plan: Plan) -> Plan:
        """The plan as this family makes it. Raises ValueError for an order or a layout that it does not have."""
        if plan.order.name not in self.orders:
            raise ValueError(
                f"the plan's order is {plan.order}, but {self.name} makes videos in the order {' or '.join(self.orders)} only; "
                "change it in FramePack_Plan"
            )
        if plan.loop and INVERTED.name not in self.orders:
            raise ValueError(
                f"the plan is of a loop (loop is {plan.loop}), but {self.name} does not look ahead, so it cannot lead from a "
                "video's end to its beginning; set loop to 0"
            )
        if self.layout not in (None, plan.layout):
            raise ValueError(
                f"the plan's layout is {plan.layout}, but {self.name} knows {self.layout} only; set its layout to auto and its "
                f"window to {self.layout.window}"
            )
        return plan.in_clips(self.apart)

    def require(self, wishes: Collection[Wish]) -> None:
        """Raises ValueError for something that it cannot do."""
        for wish in wishes:
            if wish in self.cannot:
                raise ValueError(self.cannot[wish])

    def advice(self, fps: float, cfg: float) -> list[str]:
        """Lines for the user about values that it was not made for."""
        found = []
        if fps != self.fps:
            found.append(f"{self.name} is made for {self.fps:g} frames a second: at {fps:g}, motion has another speed")
        if self.guidance is None and (cfg == 1) != (self.cfg == 1):
            found.append(f"{self.name} is made for cfg {self.cfg:g}: at {cfg:g}, the picture suffers")
        return found


FRAMEPACK = Family(
    name="FramePack",
    trained=RELEASED,
    orders=tuple(ORDERS),
    layout=None,
    apart=False,
    fps=Plan.fps,
    steps=25,
    solver="unipc_bh1",
    cfg=1.0,
    guidance=10.0,
    pooled=768,
    encode_text="encode the prompt with CLIPTextEncode and DualCLIPLoader (type hunyuan_video)",
    vae="HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)",
)


def _helios(recipe: Recipe) -> Family:
    return Family(
        name=str(recipe),
        trained=Trained(("f1",), (FORWARD.name,)),
        orders=(FORWARD.name,),
        layout=chunks.LAYOUT,
        apart=True,
        fps=chunks.FPS,
        steps=recipe.steps,
        solver=recipe.solver,
        cfg=recipe.cfg,
        guidance=None,
        pooled=None,
        encode_text="encode the prompt with CLIPTextEncode and CLIPLoader (type wan, umt5_xxl_fp8_e4m3fn_scaled.safetensors)",
        vae="Wan's VAE (wan_2.1_vae.safetensors)",
        cannot={
            "end_latent": "end_latent is connected, but Helios never looks ahead; disconnect it",
            "keyframes": "something is placed after the start, but Helios never looks ahead; place it at the start",
            "guides": "a guide is placed, but Helios knows no other picture than what its video begins with; set use to fixed "
            "and at to start, or disconnect it",
            "denoise": "denoise is below 1, but Helios makes each stage of a section from noise; set denoise to 1",
            "one frame": "Helios makes chunks of 33 frames, not single pictures; use FramePack Sampler, or load FramePackI2V",
        },
    )


HELIOS: dict[str, Family] = {name: _helios(recipe) for name, recipe in RECIPES.items()}  # by the variant
FAMILIES = (FRAMEPACK, *HELIOS.values())
VAES = " or ".join(dict.fromkeys(family.vae for family in FAMILIES))


def family_named(file: str) -> Family:
    """The family of a checkpoint as far as its file's name tells; otherwise FramePack."""

    def says(family: Family, word: int) -> bool:
        return family.name.lower().split()[word] in file.lower()

    named = (family for family in FAMILIES if says(family, 0))
    return max(named, key=lambda family: says(family, -1), default=FRAMEPACK)
