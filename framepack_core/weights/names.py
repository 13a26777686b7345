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

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.model.", "model.")
MARK = "clean_x_embedder.proj.weight"  # which HunyuanVideo lacks
MARKS = (MARK,)  # in every spelling
_DIFFUSERS_MARK = "transformer_blocks.0.norm1.linear.weight"


def _joined(module: str, matrix: str) -> dict[str, tuple[str, int]]:
    """q, k and v, which become the first rows of one matrix."""
    return {module.format(part): (matrix, place) for place, part in enumerate("qkv")}


def _embedder(module: str, new: str) -> dict[str, str]:
    """The two layers of an embedder."""
    return {f"{module}.linear_1": f"{new}.in_layer", f"{module}.linear_2": f"{new}.out_layer"}


_SAME = ("clean_x_embedder.", "image_projection.")
_TRANSFORMER = {
    "x_embedder.proj": "img_in.proj",
    **_embedder("time_text_embed.timestep_embedder", "time_in"),
    **_embedder("time_text_embed.guidance_embedder", "guidance_in"),
    **_embedder("time_text_embed.text_embedder", "vector_in"),
    **_embedder("context_embedder.time_text_embed.timestep_embedder", "txt_in.t_embedder"),
    **_embedder("context_embedder.time_text_embed.text_embedder", "txt_in.c_embedder"),
    "context_embedder.proj_in": "txt_in.input_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
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
    ("context_embedder.token_refiner.refiner_blocks", "txt_in.individual_token_refiner.blocks", _REFINER),
    ("transformer_blocks", "double_blocks", _DOUBLE),
    ("single_transformer_blocks", "single_blocks", _SINGLE),
)
_SWAPPED = _TRANSFORMER["norm_out.linear"]  # ComfyUI's (shift, scale) are (scale, shift) in official names


@dataclass(frozen=True)
class Module:
    """Where a module goes: its ComfyUI name, if several become one matrix its place among their rows, and whether the halves of
    its rows change places."""

    name: str
    part: int | None = None
    swapped: bool = False

    def rows(self, height: int, width: int) -> tuple[int, int]:
        """(first row, number of rows) of this module in its ComfyUI matrix. Of several parts, q, k and v are square, and mlp is
        the rest."""
        if self.part is None:
            return 0, height
        first = self.part * width
        return first, width if self.part < 3 else height - first


def rename_module(module: str) -> Module | None:
    """The ComfyUI module for an official/diffusers one, or None if the name is not one."""
    if module.startswith(_SAME):
        return Module(module)
    if module in _TRANSFORMER:
        return Module(_TRANSFORMER[module], swapped=_TRANSFORMER[module] == _SWAPPED)
    for official, block, names in _BLOCKS:
        if (place := _within(module, official)) and place[1] in names:
            number, leaf = place
            name, part = _place(names[leaf])
            return Module(f"{block}.{number}.{name}", part)
    return None


def module_of(key: str) -> str:
    """The ComfyUI module that an official/diffusers tensor becomes part of. Raises ValueError for an unknown name."""
    renamed = rename_module(key.rpartition(".")[0])
    if renamed is None:
        raise ValueError(f"{key} is not a weight of FramePack's transformer; choose another file, or remove that weight")
    return renamed.name


def made_of(name: str) -> list[str]:
    """The official/diffusers modules that become a ComfyUI module, in the order of their rows; none for an unknown name."""
    if name.startswith(_SAME):
        return [name]
    for official, block, names in _BLOCKS:
        if place := _within(name, block):
            number, leaf = place
            return [f"{official}.{number}.{old}" for old, new in names.items() if _place(new)[0] == leaf]
    return [old for old, new in _TRANSFORMER.items() if new == name]


def modules_for(name: str) -> dict[str, Module]:
    """What becomes a ComfyUI module, or part of it, by its official/diffusers name; nothing for an unknown name."""
    return {official: module for official in made_of(name) if (module := rename_module(official))}


def _within(module: str, blocks: str) -> tuple[str, str] | None:
    """(number of the block, name within it), if the module is in one of these blocks."""
    match = re.fullmatch(rf"{re.escape(blocks)}\.(\d+)\.(.+)", module)
    return (match[1], match[2]) if match else None


def _place(new: str | tuple[str, int]) -> tuple[str, int | None]:
    return new if isinstance(new, tuple) else (new, None)


def swap_halves(rows: Tensor) -> Tensor:
    first, second = rows.chunk(2)
    return torch.cat([second, first])


def strip_prefix(weights: dict[str, Value], marks: Iterable[str] = (_DIFFUSERS_MARK, MARK)) -> dict[str, Value]:
    """The weights without the prefix that checkpoints and trainers put before the names of the whole transformer.

    `marks` are names without it, of which a file has one.
    """
    for prefix in PREFIXES:
        if any(f"{prefix}{mark}" in weights for mark in marks):
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
    for key in (f"{_SWAPPED}.{leaf}" for leaf in ("weight", "bias")):
        if key in out:
            out[key] = swap_halves(out[key])
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
