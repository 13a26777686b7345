"""LoRA files: all the names that trainers give a module, what a tensor of a file belongs to, and which model a file is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from . import helios, names
from .names import PREFIXES, Module

DOTTED = ("", *PREFIXES, "base_model.model.")  # what trainers put before names with dots
UNDERSCORED = ("lora_unet_", "lora_transformer_", "lycoris_")  # and before names in which dots have become underscores
OF_TEXT_ENCODERS = ("lora_te", "text_encoder", "te1", "te2")  # how the names of their weights begin

_OF_BIAS = {"diff_b": "diff", "b_norm": "diff"}  # the change of a bias, named like one of the weight beside it
_RENAMED = {"lora_magnitude_vector": "dora_scale"}  # peft's name for it


@dataclass(frozen=True)
class LoraNames:
    """What LoRAs for a family of models have in common.

    They are `made_for` its models or for the `base` model that these come from. `modules_for` has all that becomes a ComfyUI
    module by the names that trainers give it besides ComfyUI's, `groups` says in words where modules are by how their names
    begin, and `elsewhere` has a remedy for LoRAs of another model by a part of its name.
    """

    made_for: str
    base: str
    modules_for: Callable[[str], Mapping[str, Module]]
    groups: Mapping[str, str]
    elsewhere: Mapping[str, str]


FRAMEPACK = LoraNames(
    "FramePack or HunyuanVideo",
    "HunyuanVideo",
    names.modules_for,
    {"double_blocks.": "the double blocks", "single_blocks.": "the single blocks", "txt_in.": "the text refiner"},
    {"wan": "load it on a Wan model, with ComfyUI's Load LoRA: Wan's names are left to the models that have them"},
)
HELIOS = LoraNames(
    "Helios or Wan 14B",
    "Wan",
    helios.modules_for,
    {"blocks.": "the blocks", "patch_": "the embedders of frames"},
    dict.fromkeys(("hunyuan", "framepack"), "load it on a FramePack model"),
)

_FAMILIES = (
    (HELIOS.base, re.compile(r"(^|\.|unet_+)blocks[._]\d+[._](self_attn|cross_attn|ffn|attn[12])[._]")),
    ("Stable Diffusion", re.compile(r"(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)[._]")),
    ("LTX-Video or CogVideoX", re.compile(r"transformer_blocks[._]\d+[._]attn[12][._]")),
    ("Qwen-Image", re.compile(r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]")),
    (
        "HunyuanVideo 1.5",
        re.compile(r"double_blocks[._](2\d|[345]\d)[._]|(?<!single_)transformer_blocks[._](2\d|[345]\d)[._]attn"),
    ),
    (FRAMEPACK.base, re.compile(r"(double_blocks|single_blocks|single_transformer_blocks)[._]\d+[._]|token_refiner[._]")),
)


def spellings(module: str) -> Iterator[str]:
    """Every name under which a trainer may store a module of the transformer."""
    yield from (prefix + module for prefix in DOTTED)
    yield from (prefix + module.replace(".", "_") for prefix in UNDERSCORED)


def split(key: str, modules: Container[str]) -> tuple[str, str] | None:
    """A tensor's module and what it is of it: `weight.` or `bias.`, and its name. None if it is of none of the modules.

    `x.lora_A.weight` is `weight.lora_A.weight` of `x`; `x.diff_b` is `bias.diff`.
    """
    module, rest = key, ""
    while "." in module:
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
        if module in modules:
            return module, _leaf(rest)
    return None


def _leaf(rest: str) -> str:
    if rest in _OF_BIAS:
        return f"bias.{_OF_BIAS[rest]}"
    return rest if rest.startswith("bias.") else f"weight.{_RENAMED.get(rest, rest)}"


def family(keys: Iterable[str], own: LoraNames) -> str | None:
    """The models that a file seems to be for, by its tensors' names; None if they do not tell, or if these are the own."""
    others = [(name, mark) for name, mark in _FAMILIES if name != own.base]
    return next((name for key in keys for name, mark in others if mark.search(key)), None)
