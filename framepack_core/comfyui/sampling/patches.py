"""What other nodes have put on the model or into the conditioning: refused if it cannot work, named if it has no effect."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .. import private
from ..families import family_of
from ..model.conditions import CONTEXT_KEY
from .timed import TIME, WORDS

# Of conditions: what the model, ComfyUI's sampling and our samplers read.
READ_CONDITIONS = {
    *("cross_attn", "pooled_output", "guidance", "clip_vision_output", "attention_mask", CONTEXT_KEY, TIME, WORDS),
    *(
        "model_conds",
        "uuid",
        "hooks",
        "default",
        "prompt_type",
        "strength",
        "area",
        "mask",
        "mask_strength",
        "set_area_to_bounds",
    ),
    *("start_percent", "end_percent", "timestep_start", "timestep_end", "clip_start_percent", "clip_end_percent"),
}
CONDITIONS = {  # nodes by what they add
    "control": "ControlNet",
    "control_apply_to_uncond": "ControlNet",
    "gligen": "GLIGEN",
    "reference_latents": "reference latents",
    "concat_latent_image": "an image to be continued (concat_latent_image)",
    "concat_mask": "an image to be continued (concat_latent_image)",
    "unclip_conditioning": "unCLIP conditioning",
    "ref_latent": "HunyuanVideo's image to video",
    "guiding_frame_index": "HunyuanVideo's image to video",
}
READ_PATCHES = ("attn1_patch", "attn1_output_patch")
U_NETS = "patches for U-Nets (Kohya Deep Shrink and the like)"
CROSS_ATTENTION = "patches of cross-attention (hypernetworks)"
PATCHES = {
    **dict.fromkeys(("input_block_patch", "input_block_patch_after_skip", "output_block_patch", "middle_patch"), U_NETS),
    **dict.fromkeys(("attn2_patch", "attn2_output_patch"), CROSS_ATTENTION),
}


def require_fitting_patches(patcher) -> None:
    """Raises ValueError for patches of other models, which would fail in the first step or give noise."""
    sampling = patcher.get_model_object("model_sampling")
    if not isinstance(sampling, private.CONST):
        raise ValueError(
            f"the model's sampling is {type(sampling).__mro__[1].__name__}, but FramePack is a flow model; remove the node "
            "that changes it, or choose one for flow models (ModelSamplingSD3)"
        )
    if "context_handler" in patcher.model_options:
        raise ValueError(
            "context windows cut a section into pieces whose places the model cannot know; remove their node: FramePack makes "
            "long videos in sections already"
        )
    for patch in _options(patcher).get("patches", {}).get("attn1_patch", ()):
        _require_fitting(patch)


def _require_fitting(patch: Any) -> None:
    """Patches of a U-Net's attention are called with other arguments."""
    try:
        inspect.signature(patch).bind(None, None, None, pe=None, attn_mask=None, extra_options=None)
    except TypeError as error:
        name = getattr(patch, "__qualname__", type(patch).__qualname__).partition(".")[0]
        raise ValueError(
            f"the model has a patch for U-Nets ({name}), which does not fit FramePack's transformer; remove its node (ToMe, "
            "HyperTile and the like)"
        ) from error


def require_unconditional(predictions: Mapping[str, Any]) -> list[Tensor]:
    """ComfyUI's `sampler_pre_cfg_function`. Raises ValueError if the unconditional prediction is used, but there is none.

    ComfyUI would put zeros in its place. At a scale of 1, where patches may still look at it, it is the conditional one.
    Guiders with more predictions than two know themselves which they use.
    """
    scale, options, conds = predictions["cond_scale"], predictions["model_options"], predictions["conds"]
    if len(conds) != 2 or conds[1]:
        return predictions["conds_out"]
    if not math.isclose(scale, 1.0) or options.get("disable_cfg1_optimization", False):
        raise ValueError(
            f"the sampler or a patch of the model uses a negative prompt (cfg {scale:g}), but there is none; connect negative, "
            "or choose a sampler without cfg_pp and remove patches that change cfg"
        )
    conditional, _ = predictions["conds_out"]
    return [conditional, conditional]


def without_effect(patcher, conds: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """A line that names what FramePack has no use for, if there is something."""
    found = dict.fromkeys([*_ignored_conditions(conds), *_ignored_patches(patcher)])
    return [f"without effect on {family_of(patcher).family.name}: {', '.join(found)}"] if found else []


def unused_image_embedding(output, patcher) -> list[str]:
    if output is None or family_of(patcher).image_width(patcher.model) is not None:
        return []
    return ["clip_vision_output is without effect: this checkpoint does not look at images"]


def _ignored_conditions(conds: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    for cond in (cond for entries in conds.values() for cond in entries):
        for key in sorted(cond.keys() - READ_CONDITIONS):
            if cond[key] is not None:
                yield CONDITIONS.get(key, key)


def _ignored_patches(patcher) -> Iterator[str]:
    options = _options(patcher)
    for key in sorted(options.get("patches", {}).keys() - {*READ_PATCHES}):
        yield PATCHES.get(key, f"patches of {key}")
    replaced = options.get("patches_replace", {})
    for key in sorted(replaced.keys() - {"dit"}):
        yield f"replaced parts of U-Nets ({key}: PAG and the like)"
    counts = family_of(patcher).blocks(patcher.model)
    for kind, number, *_ in replaced.get("dit", {}):
        if number >= counts.get(kind, 0):
            yield f"the replaced {kind.replace('_', ' ')} {number}, which the model lacks"
    if options.get("rope_options"):
        yield "scaled rotary phases (rope options)"
    if "denoise_mask_function" in patcher.model_options:
        yield "Differential Diffusion, since there is no mask"


def _options(patcher) -> Mapping[str, Any]:
    return patcher.model_options.get("transformer_options", {})
