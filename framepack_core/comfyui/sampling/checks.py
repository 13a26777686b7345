"""Refuses bad input before a model is loaded or a minute is spent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ...orders import FORWARD, INVERTED
from ...plan import Plan
from ...trained import RELEASED, Trained
from .. import private
from ..encoding import CHANNELS
from ..log import log_once
from ..model.framepack import FramePackModel

if TYPE_CHECKING:
    from .request import Request

POOLED = 768


def require_fitting(request: Request) -> None:
    """The model, conditioning, image embedding and sigmas of a request must fit together."""
    patcher = request.guider.model_patcher
    require_framepack(patcher)
    private.require_attributes(request.guider, "original_conds", serves=private.SAMPLERS)
    require_conditioning(request.guider.original_conds, patcher)
    require_image_embedding(request.clip_vision_output, patcher)
    for sigmas in request.sigmas:
        require_steps(sigmas)


def require_framepack(patcher) -> None:
    if not isinstance(patcher.model, FramePackModel):
        raise ValueError(f"model is {type(patcher.model).__name__}, not FramePack; load a FramePack checkpoint with "
                         "FramePack_LoadModel")  # fmt: skip


def frame_latent(latent: dict, name: str) -> Tensor:
    """The tensor `B 16 1 H W` of a start or end image's LATENT."""
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise ValueError(f"{name} has shape {tuple(samples.shape)}, expected (1, {CHANNELS}, 1, H, W); encode the image "
                         "with FramePack_EncodeImage and HunyuanVideo's VAE")  # fmt: skip
    if samples.shape[2] != 1:
        raise ValueError(f"{name} holds {samples.shape[2]} latent frames, expected 1; encode a single image")
    if "noise_mask" in latent:
        raise ValueError(f"{name} has a noise mask, but FramePack keeps or generates whole frames; remove the mask node")
    return samples.float().cpu()


def require_same_size(start: Tensor, end: Tensor) -> None:
    if start.shape != end.shape:
        (sh, sw), (eh, ew) = start.shape[3:], end.shape[3:]
        sizes = f"{sw}x{sh}", f"{ew}x{eh}"
        if sizes[0] == sizes[1]:
            sizes = f"a batch of {start.shape[0]}", f"a batch of {end.shape[0]}"
        raise ValueError(f"start_latent is {sizes[0]} but end_latent is {sizes[1]}; encode both images at the same size")


def require_conditioning(conds: dict[str, list[dict]], patcher) -> None:
    """Every condition must have text of the model's width and a pooled output."""
    width = patcher.model.diffusion_model.params.context_in_dim
    remedy = "encode the prompt with CLIPTextEncode and DualCLIPLoader (type hunyuan_video)"
    for name, entries in conds.items():
        if not entries and name == "positive":
            raise ValueError(f"{name} is empty; {remedy}")
        for cond in entries:
            text, pooled = cond.get("cross_attn"), cond.get("pooled_output")
            if text is None or text.shape[-1] != width:
                found = "no text embedding" if text is None else f"text embeddings {text.shape[-1]} wide"
                raise ValueError(f"{name} has {found}, but the model takes {width}; {remedy}")
            if pooled is None:
                raise ValueError(f"{name} has no pooled output; {remedy}")
            if pooled.shape[-1] != POOLED:
                raise ValueError(f"{name} has a pooled output {pooled.shape[-1]} wide, expected {POOLED}; {remedy}")


def require_image_embedding(output, patcher) -> None:
    projection = patcher.model.diffusion_model.image_projection
    if output is None or projection is None:
        return
    width, expected = output["last_hidden_state"].shape[-1], projection.up.in_features
    if width != expected:
        raise ValueError(f"clip_vision_output is {width} wide, but the model takes {expected}; load "
                         "sigclip_vision_patch14_384.safetensors with Load CLIP Vision")  # fmt: skip


def require_steps(sigmas: Tensor) -> None:
    if len(sigmas) < 2:
        raise ValueError(f"sigmas holds {len(sigmas)} values, expected at least 2; use FramePack_Scheduler with 1 step or more")


def warnings(plan: Plan, patcher) -> list[str]:
    """What the user should know: a checkpoint was made for another order, or never trained with this layout.

    What the file says about itself counts; if it says nothing, it is taken for a released checkpoint.
    """
    name, trained = checkpoint_name(patcher), patcher.model.trained
    found = released_warnings(plan, name) if trained is None else trained_warnings(plan, name, trained)
    for warning in found:
        log_once(warning)
    return found


def released_warnings(plan: Plan, name: str) -> list[str]:
    found = []
    if is_f1(name) and plan.order == INVERTED:
        found.append(f"{name} looks like F1, which was trained for the forward order, but the plan is inverted")
    if not is_f1(name) and re.search(r"framepack_?i2v", name, re.IGNORECASE) and plan.order == FORWARD:
        found.append(f"{name} was trained for the inverted order, but the plan is forward; F1 is the forward checkpoint")
    if not RELEASED.knows_layout(plan):
        found.append(f"layout {plan.layout} is untrained on this checkpoint: released ones know framepack and f1")
    return found


def trained_warnings(plan: Plan, name: str, trained: Trained) -> list[str]:
    found = []
    if not trained.knows_order(plan):
        found.append(f"the {plan.order} order is untrained on {name}: it knows {', '.join(trained.orders)}")
    if not trained.knows_layout(plan):
        found.append(f"layout {plan.layout} is untrained on {name}: it knows {', '.join(trained.layouts)}")
    return found


def checkpoint_name(patcher) -> str:
    """The name of the file or folder the model was loaded from, or ""."""
    if patcher.cached_patcher_init is None:
        return ""
    return Path(str(patcher.cached_patcher_init[1][0])).name


def is_f1(name: str) -> bool:
    return re.search(r"(?<![a-z0-9])f1(?![a-z0-9])|framepackf1", name, re.IGNORECASE) is not None
