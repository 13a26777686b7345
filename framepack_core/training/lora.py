"""LoRA: which matrices are adapted, and the file that ComfyUI's LoRA loader reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from ..weights.names import rename_module

ADAPTED = (
    r"(single_)?transformer_blocks\.\d+\."
    r"(attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)
PREFIX = "diffusion_model."


def add_lora(transformer: nn.Module, rank: int, alpha: float) -> None:
    """Freeze the transformer and give every matrix of its blocks a LoRA in float32, which changes nothing at first."""
    transformer.requires_grad_(False)
    config: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": ADAPTED}  # peft declares alpha as an integer
    inject_adapter_in_model(LoraConfig(**config), transformer)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def to_comfy(adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """peft's weights (`<module>.lora_A.default.weight`) under ComfyUI's names for HunyuanVideo.

    What ComfyUI keeps in one matrix (q, k, v and a single block's mlp) gets one LoRA: the inner ranks side by side, the outer
    matrices on a diagonal, and alpha times the number of parts, so that alpha / rank stays the same.
    """
    joined: dict[str, dict[int, tuple[Tensor, Tensor]]] = defaultdict(dict)
    for key, inner in adapter.items():
        if ".lora_A." in key:
            module = rename_module(key.partition(".lora_A.")[0])
            if module is None:
                raise ValueError(f"{key} is not a weight of FramePack's transformer")
            joined[module.name][module.part or 0] = inner, adapter[key.replace(".lora_A.", ".lora_B.")]
    out: dict[str, Tensor] = {}
    for name, parts in joined.items():
        inners, outers = zip(*(parts[part] for part in sorted(parts)), strict=True)
        out[f"{PREFIX}{name}.lora_A.weight"] = torch.cat(inners)
        out[f"{PREFIX}{name}.lora_B.weight"] = torch.block_diag(*outers)
        out[f"{PREFIX}{name}.alpha"] = torch.tensor(alpha * len(parts))
    return out
