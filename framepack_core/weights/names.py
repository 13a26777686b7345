"""Weight names: official/diffusers -> ComfyUI's HunyuanVideo.

ComfyUI keeps q, k and v (and a single block's mlp) in one matrix, and the last modulation as (shift, scale).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .fp8 import fuse_scaled

Weights = dict[str, Tensor]
Value = TypeVar("Value")

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.model.", "model.")
MARK = "clean_x_embedder.proj.weight"  # which HunyuanVideo lacks
_DIFFUSERS_MARK = "transformer_blocks.0.norm1.linear.weight"


def _joined(module: str, matrix: str) -> dict[str, tuple[str, int]]:
    """q, k and v, which become the first rows of one matrix."""
    return {module.format(part): (matrix, place) for place, part in enumerate("qkv")}


_TRANSFORMER = {
    "x_embedder.proj": "img_in.proj",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
    "context_embedder.proj_in": "txt_in.input_embedder",
}
_EMBEDDERS = {
    "time_text_embed.timestep_embedder": "time_in",
    "time_text_embed.guidance_embedder": "guidance_in",
    "time_text_embed.text_embedder": "vector_in",
    "context_embedder.time_text_embed.timestep_embedder": "txt_in.t_embedder",
    "context_embedder.time_text_embed.text_embedder": "txt_in.c_embedder",
}
_REFINER = {
    "norm1": "norm1",
    "norm2": "norm2",
    **_joined("attn.to_{}", "self_attn.qkv"),
    "attn.to_out.0": "self_attn.proj",
    "ff.net.0.proj": "mlp.0",
    "ff.net.2": "mlp.2",
    "norm_out.linear": "adaLN_modulation.1",
}
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    **_joined("attn.to_{}", "img_attn.qkv"),
    **_joined("attn.add_{}_proj", "txt_attn.qkv"),
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SINGLE = {
    **_joined("attn.to_{}", "linear1"),
    "proj_mlp": ("linear1", 3),
    "proj_out": "linear2",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "norm.linear": "modulation.lin",
}
_BLOCKS = (
    (re.compile(r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\.(.+)"),
     "txt_in.individual_token_refiner.blocks.{}.", _REFINER),
    (re.compile(r"transformer_blocks\.(\d+)\.(.+)"), "double_blocks.{}.", _DOUBLE),
    (re.compile(r"single_transformer_blocks\.(\d+)\.(.+)"), "single_blocks.{}.", _SINGLE),
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """Where a module goes: its ComfyUI name and, if several become one matrix, its place among their rows."""

    name: str
    part: int | None = None


def rename_module(module: str) -> Module | None:
    """The ComfyUI module for an official/diffusers one, or None if the name is not one."""
    if module.startswith(("clean_x_embedder.", "image_projection.")):
        return Module(module)
    if module in _TRANSFORMER:
        return Module(_TRANSFORMER[module])
    owner, _, leaf = module.rpartition(".")
    if owner in _EMBEDDERS and leaf in ("linear_1", "linear_2"):
        return Module(f"{_EMBEDDERS[owner]}.{'in_layer' if leaf == 'linear_1' else 'out_layer'}")
    for pattern, block, names in _BLOCKS:
        if (match := pattern.fullmatch(module)) and match[2] in names:
            new = names[match[2]]
            name, part = new if isinstance(new, tuple) else (new, None)
            return Module(block.format(match[1]) + name, part)
    return None


def strip_prefix(weights: dict[str, Value]) -> dict[str, Value]:
    """The weights without the prefix that checkpoints and trainers put before the names of the whole transformer."""
    for prefix in _PREFIXES:
        if any(f"{prefix}{mark}" in weights for mark in (_DIFFUSERS_MARK, MARK)):
            return {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    return weights


def is_framepack(keys: Iterable[str]) -> bool:
    return MARK in keys


def is_diffusers(keys: Iterable[str]) -> bool:
    return _DIFFUSERS_MARK in keys


def to_comfy(weights: Weights) -> Weights:
    """Rename official/diffusers weights and their quantisation sidecars, and join what ComfyUI keeps in one matrix.

    Empties the given dict, so that at most one joined layer exists twice at any time. Raises ValueError for an unknown name.
    """
    out: Weights = {}
    joined: dict[str, dict[int, Weights]] = defaultdict(dict)
    for key in list(weights):
        module, _, leaf = key.rpartition(".")
        new = rename_module(module)
        if new is None:
            raise ValueError(f"{key} is not a weight of FramePack's transformer; choose another file, or remove that weight")
        if new.part is None:
            out[f"{new.name}.{leaf}"] = weights.pop(key)
        else:
            joined[new.name].setdefault(new.part, {})[leaf] = weights.pop(key)
    for key in (f"{_TRANSFORMER['norm_out.linear']}.{leaf}" for leaf in ("weight", "bias")):
        if key in out:
            scale, shift = out[key].chunk(2)
            out[key] = torch.cat([shift, scale])
    for name in list(joined):
        for leaf, tensor in _join(name, joined.pop(name)).items():
            out[f"{name}.{leaf}"] = tensor
    return out


def _join(name: str, parts: Mapping[int, Weights]) -> Weights:
    labels = "q, k, v, mlp" if name.endswith("linear1") else "q, k, v"
    ordered = [parts.get(i, {}) for i in range(labels.count(",") + 1)]
    leaves = {leaf for part in ordered for leaf in part}
    missing = sorted(f"{label}'s {leaf}" for label, part in zip(labels.split(", "), ordered, strict=True)
                     for leaf in leaves - part.keys())  # fmt: skip
    if missing:
        raise ValueError(f"{name} is made of {labels}, but the checkpoint lacks {', '.join(missing)}; "
                         "it is incomplete, so download it again")  # fmt: skip
    return fuse_scaled(ordered) if "weight_scale" in leaves else _concatenate(ordered)


def _concatenate(parts: list[Weights]) -> Weights:
    if "comfy_quant" in parts[0]:
        raise ValueError("separate q, k and v weights in this quantised format cannot be joined; use a file with "
                         "ComfyUI's names")  # fmt: skip
    return {leaf: _stack([part[leaf] for part in parts]) for leaf in parts[0]}


def _stack(tensors: list[Tensor]) -> Tensor:
    """The rows of all, in the widest of their dtypes: some files keep a part in higher precision."""
    widest = max((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.itemsize)
    return torch.cat([tensor.to(widest) for tensor in tensors])
