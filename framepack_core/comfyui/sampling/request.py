"""What a sampler node asks for, and how this is made from the node's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import comfy.clip_vision
import comfy.samplers
import comfy.sd
from torch import Tensor

from ...orders import orders_with_end
from ...plan import Plan, Section
from ...timeline import Timeline
from .. import private
from . import checks

private.require_for(private.SAMPLERS)

OnCancel = Literal["discard", "return finished part"]
ON_CANCEL: tuple[OnCancel, ...] = get_args(OnCancel)


@dataclass(frozen=True)
class Request:
    """One run of a sampler node. Fields that are inputs of the nodes have the inputs' names.

    `sections` are those of `plan` that fill `timeline`, in sampling order, and `sigmas` holds the schedule of each. Finished
    sections are kept on disk under `origin` (see `identity.origin`) and restored from there; None does neither. `on_cancel`
    says whether a cancel raises or ends the video with the sections finished so far. `notes` are lines for the user.
    """

    guider: comfy.samplers.CFGGuider
    sampler: comfy.samplers.Sampler
    plan: Plan
    timeline: Timeline
    sections: tuple[Section, ...]
    sigmas: list[Tensor]
    seed: int
    clip_vision_output: comfy.clip_vision.Output | None = None
    preview_vae: comfy.sd.VAE | None = None
    origin: str | None = None
    on_cancel: OnCancel = "discard"
    notes: tuple[str, ...] = ()


def make_guider(model, positive: list, negative: list | None, cfg: float, guidance: float) -> comfy.samplers.CFGGuider:
    """ComfyUI's guider with the distilled guidance in every condition. At cfg 1 the model is called for the positive only."""
    checks.require_framepack(model)
    if negative is None and cfg != 1.0:
        raise ValueError(f"cfg is {cfg:g} but negative is not connected; connect a negative prompt or set cfg to 1")
    guider = private.CFGGuider(model)
    conds = {"positive": positive} if negative is None else {"positive": positive, "negative": negative}
    guider.inner_set_conds({name: [_with(entry, guidance=guidance) for entry in cond] for name, cond in conds.items()})
    guider.set_cfg(cfg)
    return guider


def overruled(model, positive: list, guidance: float) -> tuple[str, ...]:
    """Lines that name what a sampler node's own inputs take the place of."""
    found = []
    for given in dict.fromkeys(cond["guidance"] for _, cond in positive if "guidance" in cond):
        if given != guidance:
            found.append(f"guidance {given:g} of the conditioning is without effect: this node's guidance is {guidance:g}")
    if "model_sampling" in model.object_patches:
        found.append("the model's shift (ModelSamplingSD3 and the like) is without effect: set this node's shift")
    return tuple(found)


def start_timeline(plan: Plan, start_latent: dict, end_latent: dict | None) -> Timeline:
    """The video with its start image, and its end image where the plan's order has a place for it.

    Inverted shows the end image to the first section only, as the official program does; endpoints puts it at the end.
    """
    start = checks.frame_latent(start_latent, "start_latent")
    frames = 1 + plan.generated
    if end_latent is None:
        return Timeline.of(frames, {0: start})
    if plan.order.end is None:
        raise ValueError(f"end_latent is connected, but the {plan.order} order never looks ahead; set the plan's order to "
                         f"{orders_with_end('beyond', 'last')}, or disconnect it")  # fmt: skip
    start, end = checks.same_batch(start, checks.frame_latent(end_latent, "end_latent"))
    if plan.order.end == "beyond":
        return Timeline.of(frames, {0: start}, end=end)
    return Timeline.of(frames + 1, {0: start, frames: end})


def _with(entry: list, **values) -> list:
    return [entry[0], {**entry[1], **values}]
