"""What differs between the models that pack frames, as plain data: one object for each family of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .orders import INVERTED, ORDERS
from .plan import Plan
from .trained import RELEASED, Trained


@dataclass(frozen=True)
class Family:
    """A family of checkpoints, called `name` in messages.

    `orders` names the orders in which it can fill a video, and `trained` what its released checkpoints were made for. Sections
    that are `apart` are clips of their own for its VAE (see `Plan`). Where the user leaves it to the model, a section takes so
    many `steps` of the `solver` of this name. `guidance` is the distilled guidance that it was made for, `pooled` how many
    values its text encoder gives for a whole prompt; None where there is no such input. `encode_text` says in words how prompts
    are encoded, and `vae` which VAE is the family's.
    """

    name: str
    trained: Trained
    orders: tuple[str, ...]
    apart: bool
    steps: int
    solver: str
    guidance: float | None
    pooled: int | None
    encode_text: str
    vae: str

    def fit(self, plan: Plan) -> Plan:
        """The plan as this family makes it. Raises ValueError for an order that it does not have."""
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
        return replace(plan, apart=self.apart)


FRAMEPACK = Family(
    name="FramePack",
    trained=RELEASED,
    orders=tuple(ORDERS),
    apart=False,
    steps=25,
    solver="unipc_bh1",
    guidance=10.0,
    pooled=768,
    encode_text="encode the prompt with CLIPTextEncode and DualCLIPLoader (type hunyuan_video)",
    vae="HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)",
)
FAMILIES = (FRAMEPACK,)
VAES = " or ".join(family.vae for family in FAMILIES)
