"""Refuses bad input before a model is loaded or a minute is spent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...family import Family
from ...orders import FORWARD, INVERTED
from ...plan import Plan
from ...timeline import is_finite
from ...trained import Trained
from .. import private
from ..encoding import CHANNELS
from ..families import family_of
from ..log import log_once
from .patches import require_fitting_patches
from .regions import Percent, require_prompt_everywhere, require_region
from .samplers import descents

if TYPE_CHECKING:
    from .request import Request
    from .timed import Conds, Told

HIGHEST_SIGMA, LEAST_FIRST_SIGMA, MOST_LAST_SIGMA = 1.01, 0.8, 0.02  # schedules go from about 1 down to 0
LEAST_GOOD_SIGMA = 0.95  # to begin with; from less on, the difference shows
GO_DOWN = (
    "but FramePack's go from 1 down to 0; use FramePack_Scheduler, or BasicScheduler with the FramePack model and denoise 1"
)
CHANGE = "or connect the video that is to be changed as latent_image"


def require_fitting(request: Request) -> None:
    """The model, conditioning, image embedding and sigmas of a request must fit together."""
    patcher = request.guider.model_patcher
    family_of(patcher)
    private.require_attributes(request.guider, "original_conds", "model_options", serves=private.SAMPLERS)
    require_numbers(request.guider)
    require_conditioning(request.guider.original_conds, patcher)
    for output in (request.clip_vision_output, *request.embeddings.values()):
        require_image_embedding(output, patcher)
    require_fitting_patches(patcher)
    stages = family_of(patcher).stages
    for sigmas in request.sigmas:
        require_stages(sigmas, stages)
        for stage in descents(sigmas):
            require_schedule(stage, from_noise=request.initial is None)


def frame_latent(latent: dict, name: str) -> Tensor:
    """The tensor `B 16 1 H W` of a start or end image's LATENT."""
    samples = latent["samples"]
    if samples.ndim == 5 and samples.shape[1] == CHANNELS and samples.shape[2] != 1:
        raise ValueError(f"{name} holds {samples.shape[2]} latent frames, expected 1; encode a single image, or place a clip "
                         "with FramePack_Place")  # fmt: skip
    return latents_of(latent, name, "encode the image with FramePack_EncodeImage and HunyuanVideo's VAE")


def video_latent(latent: dict, name: str) -> Tensor:
    """The tensor `B 16 T H W` of a video's LATENT."""
    return latents_of(latent, name, "use a FramePack sampler's latent, or an empty one (EmptyHunyuanLatentVideo)")


def latents_of(latent: dict, name: str, remedy: str) -> Tensor:
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise ValueError(f"{name} has shape {tuple(samples.shape)}, expected (1, {CHANNELS}, 1, H, W); {remedy}")
    if "noise_mask" in latent:
        raise ValueError(f"{name} has a noise mask, but FramePack keeps or generates whole frames; remove the mask node")
    require_finite(samples, name, "look at the image, and start ComfyUI without --fp16-vae")
    return samples.float().cpu()


def require_finite(tensor: Tensor, name: str, remedy: str) -> None:
    if not is_finite(tensor):
        raise ValueError(f"{name} has values that are not finite (NaN or infinite), which make frames black; {remedy}")


def same_batch(given: Mapping[str, Tensor]) -> int:
    """Of how many videos these latents `B 16 T H W` are, by the names of the inputs; a single one is repeated.

    Raises ValueError if they do not fit together.
    """
    (first, one), *others = given.items()
    for name, latents in others:
        if latents.shape[3:] != one.shape[3:]:
            (sh, sw), (eh, ew) = one.shape[3:], latents.shape[3:]
            raise ValueError(f"{first} is {sw}x{sh} but {name} is {ew}x{eh}; encode both images at the same size")
    batches = {name: len(latents) for name, latents in given.items() if len(latents) > 1}
    if len(set(batches.values())) > 1:
        (first, count), (name, other) = list(batches.items())[:2]
        raise ValueError(f"{first} is a batch of {count} but {name} is a batch of {other}; give both the same "
                         "number of images, or one of them a single image")  # fmt: skip
    return max(batches.values(), default=1)


def require_numbers(guider) -> None:
    """What the widgets do not let through, but the API does."""
    conds = (cond for entries in guider.original_conds.values() for cond in entries)
    given = [("cfg", getattr(guider, "cfg", None)), *(("guidance", cond.get("guidance")) for cond in conds)]
    for name, value in given:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} is {value}; choose a number")


def require_conditioning(conds: dict[str, list[dict]], patcher) -> None:
    """Every condition must have text of the model's width and the pooled output that its text encoder gives, if it does."""
    own = family_of(patcher)
    width, remedy = own.text_width(patcher.model), own.family.encode_text
    for name, entries in conds.items():
        if not entries and name == "positive":
            raise ValueError(f"{name} is empty; {remedy}")
        for cond in entries:
            text, pooled = cond.get("cross_attn"), cond.get("pooled_output")
            if text is None or text.shape[-1] != width:
                found = "no text embedding" if text is None else f"text embeddings {text.shape[-1]} wide"
                raise ValueError(f"{name} has {found}, but the model takes {width}; {remedy}")
            if pooled is None and own.family.pooled is not None:
                raise ValueError(f"{name} has no pooled output; {remedy}")
            if pooled is not None and pooled.shape[-1] != own.family.pooled:
                expected = own.family.pooled or "none"
                raise ValueError(f"{name} has a pooled output {pooled.shape[-1]} wide, expected {expected}; {remedy}")
            for tensor in filter(torch.is_tensor, (text, pooled)):
                require_finite(tensor, name, "lower the weights of words in the prompt, such as (word:2.0)")


def require_regions(request: Request, told: Told) -> None:
    """Each section must have a prompt in every step and everywhere in the picture."""
    percent_to_sigma: Percent = request.guider.model_patcher.get_model_object("model_sampling").percent_to_sigma
    height, width = request.timeline.latents.shape[3:]
    for conds, schedules in _schedules(request, told):
        for name, entries in conds.items():
            for cond in entries:
                require_region(name, cond, height, width)
            require_prompt_everywhere(name, entries, schedules, percent_to_sigma, height, width)


def _schedules(request: Request, told: Told) -> Iterator[tuple[Conds, Iterable[Tensor]]]:
    """Conditions, and the schedules of the sections that have them."""
    if not told.conditions:
        yield request.guider.original_conds, [stage for sigmas in request.sigmas for stage in descents(sigmas)]
    for number, conds in told.conditions.items():
        yield conds, descents(request.sigmas[number])


def require_image_embedding(output, patcher) -> None:
    expected = family_of(patcher).image_width(patcher.model)
    if output is None or expected is None:
        return
    width = output["last_hidden_state"].shape[-1]
    if width != expected:
        raise ValueError(f"clip_vision_output is {width} wide, but the model takes {expected}; load "
                         "sigclip_vision_patch14_384.safetensors with Load CLIP Vision")  # fmt: skip
    require_finite(output["last_hidden_state"], "clip_vision_output", "look at the image")


def require_stages(sigmas: Tensor, stages: int) -> None:
    """A model of several stages has a schedule for each."""
    if stages > 1 and len(descents(sigmas)) != stages:
        raise ValueError(f"sigmas are one schedule, but the model makes a section in {stages} stages, each with its own; use "
                         "FramePack Sampler")  # fmt: skip
    if stages == 1 and len(descents(sigmas)) > 1:
        raise ValueError(f"sigmas rise, or are not numbers, {GO_DOWN}")


def require_schedule(sigmas: Tensor, from_noise: bool = True) -> None:
    """Sigmas go down to 0, from about 1 where sections begin as pure noise."""
    if len(sigmas) < 2:
        raise ValueError(f"sigmas holds {len(sigmas)} values, expected at least 2; use FramePack_Scheduler with 1 step or more")
    first, last, remedy = sigmas[0], sigmas[-1], ""
    if not is_finite(sigmas):
        found = "rise, or are not numbers"
    elif bool((first < LEAST_FIRST_SIGMA * from_noise) | (first > HIGHEST_SIGMA)):
        found = f"begin at {first:g}"
        remedy = f", {CHANGE}" if first < LEAST_FIRST_SIGMA else ""
    elif bool((last < 0) | (last > MOST_LAST_SIGMA)):
        found = f"end at {last:g}"
    else:
        return
    raise ValueError(f"sigmas {found}, {GO_DOWN}{remedy}")


def begins_in_noise(sigmas: Tensor, patcher) -> bool:
    """Whether nothing is left of what noise is added to: from the model's highest sigma on, as ComfyUI's samplers count."""
    highest = float(patcher.get_model_object("model_sampling").sigma_max)
    return len(sigmas) == 0 or bool(sigmas[0] > highest) or math.isclose(sigmas[0], highest, rel_tol=1e-5)


def sigma_warnings(schedules: Iterable[Tensor]) -> list[str]:
    """What the user should know about sigmas that are good enough to try."""
    first = min((sigmas[0].item() for sigmas in schedules), default=1.0)
    if first >= LEAST_GOOD_SIGMA:
        return []
    return [
        f"sigmas begin at {first:.3g}, but the first step gets pure noise, so the picture suffers: begin at 1 (denoise 1), "
        f"{CHANGE}"
    ]


def warnings(plan: Plan, patcher, what: str = "the plan") -> list[str]:
    """What the user should know: a checkpoint was made for another order, or never trained with this layout.

    What the file says about itself counts; if it says nothing, it is taken for a released checkpoint.
    """
    name, trained, family = checkpoint_name(patcher), patcher.model.trained, family_of(patcher).family
    found = released_warnings(plan, name, family, what) if trained is None else trained_warnings(plan, name, trained)
    if plan.loop:
        what = "what connects the loop's end with its beginning"
        other = plan.connection
        found += released_warnings(other, name, family, what) if trained is None else trained_warnings(other, name, trained)
    found = list(dict.fromkeys(found))
    for warning in found:
        log_once(warning)
    return found


def released_warnings(plan: Plan, name: str, family: Family, what: str = "the plan") -> list[str]:
    found = []
    if is_f1(name) and plan.order == INVERTED:
        found.append(f"{name} looks like F1, which was trained for the forward order, but {what} is inverted")
    if not is_f1(name) and re.search(r"framepack_?i2v", name, re.IGNORECASE) and plan.order == FORWARD:
        found.append(f"{name} was trained for the inverted order, but the plan is forward; F1 is the forward checkpoint")
    if not family.trained.knows_layout(plan):
        known = " and ".join(family.trained.layouts)
        found.append(f"layout {plan.layout} is untrained on this checkpoint: released ones know {known}")
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
    path = checkpoint_path(patcher)
    return "" if path is None else path.name


def checkpoint_path(patcher) -> Path | None:
    return None if patcher.cached_patcher_init is None else Path(str(patcher.cached_patcher_init[1][0]))


def is_f1(name: str) -> bool:
    return re.search(r"(?<![a-z0-9])f1(?![a-z0-9])|framepackf1", name, re.IGNORECASE) is not None
