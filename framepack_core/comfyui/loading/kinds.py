"""What a checkpoint file is, and what of loading depends on it. FramePack and Helios part here, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...trained import Trained
from ...weights import helios, loras, names
from ...weights.loras import LoraNames
from ...weights.variants import AUTO, KEY, VARIANTS, variant_of
from .. import private

log = logging.getLogger("framepack")


@dataclass(frozen=True)
class Kind:
    """A family of models as its files have it.

    `marks` are weights of its own in any spelling, `shape_weights` those whose shapes tell ComfyUI how to build the
    transformer. `module_of` names the ComfyUI module that an official tensor becomes part of, if any. `describe` notes on a
    loaded model what the header, the path and the user's choice of a variant say of it, and `said` has the entries of a header
    that say the same without the path. `loras` is about LoRAs for these models.
    """

    name: str
    serves: str  # what private symbols of ComfyUI are for
    marks: Collection[str]
    shape_weights: tuple[str, ...]
    is_diffusers: Callable[[Collection[str]], bool]
    to_comfy: Callable[[names.Weights], names.Weights]
    module_of: Callable[[str], str | None]
    describe: Callable[[Any, Mapping[str, str], Path, str], None]
    said: Callable[[Mapping[str, str], Path], dict[str, str]]
    loras: LoraNames


def kind_of(weights: Collection[str], name: str) -> Kind:
    """Which of them it is, by the names of its weights. Raises a ValueError that says what the file is instead."""
    for kind in KINDS:
        if any(prefix + mark in weights for prefix in ("", *names.PREFIXES) for mark in kind.marks):
            return kind
    what, remedy = _something_else(weights)
    raise ValueError(f"{name} is {what}; {remedy}")


def kind_of_model(model: Any) -> Kind:
    """Which of them a loaded model of a family is (see `families.family_of`)."""
    return next(kind for kind in KINDS if kind.name == model.family)


def _something_else(weights: Collection[str]) -> tuple[str, str]:
    def has(*modules: str) -> bool:
        return any(key.endswith(modules) for key in weights)

    if has("double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.norm1.linear.weight"):
        return "a plain HunyuanVideo model without FramePack's context embedders", "load it with Load Diffusion Model"
    if has("blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight"):
        return "a plain Wan model without Helios' history embedders", "load it with Load Diffusion Model"
    if any(key.startswith(("decoder.", "encoder.", "first_stage_model.")) for key in weights):
        return "a VAE", "put it into models/vae and load it with Load VAE"
    return f"not a FramePack or Helios transformer (it starts with {next(iter(weights), 'nothing')})", "choose another file"


def _describe_framepack(model: Any, metadata: Mapping[str, str], path: Path, variant: str) -> None:
    model.trained = read_trained(metadata, path.name)
    if variant != AUTO:
        log.warning("FramePack: variant is %s, but %s is FramePack, which has no variants", variant, path.name)


def read_trained(metadata: Mapping[str, str], name: str) -> Trained | None:
    """The layouts and orders that the file names; None, with a warning, if they cannot be understood."""
    try:
        return Trained.of_metadata(metadata)
    except ValueError as error:
        log.warning("FramePack: what %s was trained with is unknown: %s", name, error)
        return None


def _describe_helios(model: Any, metadata: Mapping[str, str], path: Path, variant: str) -> None:
    found = variant_of(variant, metadata, path)
    model.variant = found or VARIANTS[0]
    if found is None:
        log.warning(
            "FramePack: nothing says which Helios %s is, Base, Mid or Distilled, so it is taken for Base. Choose the variant "
            "in Load FramePack Model, or give the file a name like Helios-Distilled.safetensors",
            path.name,
        )


FRAMEPACK = Kind(
    "FramePack",
    private.MODELS,
    names.MARKS,
    (
        "img_in.proj.weight",
        "final_layer.linear.weight",
        "txt_in.input_embedder.weight",
        "txt_in.individual_token_refiner.blocks.0.norm1.weight",
        "vector_in.in_layer.weight",
    ),
    names.is_diffusers,
    names.to_comfy,
    names.module_of,
    _describe_framepack,
    lambda metadata, path: {key: value for key, value in metadata.items() if key.startswith("framepack.")},
    loras.FRAMEPACK,
)
HELIOS = Kind(
    "Helios",
    private.HELIOS,
    helios.MARKS,
    (
        "head.modulation",
        "head.head.weight",
        "patch_embedding.weight",
        "text_embedding.0.weight",
        "blocks.0.ffn.0.weight",
        helios.MARK,
    ),
    helios.is_diffusers,
    helios.to_comfy,
    helios.module_of,
    _describe_helios,
    lambda metadata, path: {KEY: variant} if (variant := variant_of(AUTO, metadata, path)) else {},
    loras.HELIOS,
)
KINDS = (FRAMEPACK, HELIOS)
