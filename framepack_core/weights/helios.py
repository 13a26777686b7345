"""Weight names of Helios: official/diffusers <-> ComfyUI's Wan. Every tensor maps to one tensor, unchanged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .names import Module, Weights

MARK = "patch_short.weight"  # which Wan lacks
_OLD_MARKS = ("multi_term_memory_patch.patch_short.weight", "clean_patch_embedding.proj.weight")
MARKS = (MARK, *_OLD_MARKS)
_DIFFUSERS_MARK = "condition_embedder.time_proj.weight"

_TRANSFORMER = {  # official -> ComfyUI's
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "norm_out.scale_shift_table": "head.modulation",
    "proj_out": "head.head",
    "patch_embedding": "patch_embedding",
    "patch_short": "patch_short",
    "patch_mid": "patch_mid",
    "patch_long": "patch_long",
}
_BLOCK = {
    "scale_shift_table": "modulation",
    "norm2": "norm3",  # the affine one, before cross-attention
    **{
        f"{official}.{old}": f"{new}.{short}"
        for official, new in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for old, short in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"),
                           ("norm_q", "norm_q"), ("norm_k", "norm_k"))
    },
    "attn1.history_key_scale": "self_attn.history_key_scale",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}  # fmt: skip
_OLDER = {  # spellings of earlier files -> official
    "scale_shift_table": "norm_out.scale_shift_table",
    "multi_term_memory_patch.patch_short": "patch_short",
    "multi_term_memory_patch.patch_mid": "patch_mid",
    "multi_term_memory_patch.patch_long": "patch_long",
    "clean_patch_embedding.proj": "patch_short",
    "clean_patch_embedding.proj_2x": "patch_mid",
    "clean_patch_embedding.proj_4x": "patch_long",
}
_OFFICIAL = {new: old for old, new in _TRANSFORMER.items()}
_OFFICIAL_BLOCK = {new: old for old, new in _BLOCK.items()}
_OF_A_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_LEFTOVERS = re.compile(r"(.*\.)?([qkv]_loras|gan_heads|gan_final_head)\..*")  # of training, without a use afterwards


def is_helios(keys: Collection[str]) -> bool:
    """Whether these are the names of Helios' weights, in any spelling, without a prefix."""
    return any(mark in keys for mark in MARKS)


def is_diffusers(keys: Collection[str]) -> bool:
    return _DIFFUSERS_MARK in keys


def rename_module(module: str) -> str | None:
    """The ComfyUI module or parameter for an official/diffusers one, or None if the name is not one."""
    return _renamed(_OLDER.get(module, module), _TRANSFORMER, _BLOCK)


def made_of(name: str) -> str | None:
    """The official/diffusers module or parameter that becomes a ComfyUI one, or None if the name is not one."""
    return _renamed(name, _OFFICIAL, _OFFICIAL_BLOCK)


def modules_for(name: str) -> dict[str, Module]:
    """What becomes a ComfyUI module, by its official/diffusers name and those of earlier files; nothing for an unknown name."""
    official = made_of(name)
    older = [old for old, new in _OLDER.items() if new == official]
    return dict.fromkeys([official, *older], Module(name)) if official else {}


def _renamed(name: str, transformer: Mapping[str, str], block: Mapping[str, str]) -> str | None:
    if match := _OF_A_BLOCK.fullmatch(name):
        return f"blocks.{match[1]}.{block[match[2]]}" if match[2] in block else None
    return transformer.get(name)


def module_of(key: str) -> str | None:
    """The ComfyUI module that an official/diffusers tensor becomes part of; None if training left it.

    Raises ValueError for an unknown name.
    """
    return None if _LEFTOVERS.fullmatch(key) else rename(key).rpartition(".")[0]


def to_comfy(weights: Weights) -> Weights:
    """Rename official/diffusers weights and their quantisation sidecars; what training left is dropped.

    Empties the given dict. Raises ValueError for an unknown name.
    """
    out: Weights = {}
    for key in list(weights):
        weight = weights.pop(key)
        if not _LEFTOVERS.fullmatch(key):
            out[rename(key)] = weight
    return out


def rename(key: str) -> str:
    """ComfyUI's name of an official/diffusers tensor. Raises ValueError if it is none."""
    module, _, leaf = key.rpartition(".")
    if parameter := rename_module(key):
        return parameter
    if renamed := rename_module(module):
        return f"{renamed}.{leaf}"
    raise ValueError(f"{key} is not a weight of Helios' transformer; choose another file, or remove that weight")
