"""Scaled fp8: weight = fp8 * scale. ComfyUI's layout has one scale per matrix."""

from __future__ import annotations

import torch
from torch import Tensor

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)


def dequantise(weight: Tensor, scale: Tensor) -> Tensor:
    """float32 weight `out in` from one scale, one per row `[out, 1]`, or one per block of columns `[out, blocks, 1]`."""
    if scale.ndim == 3:
        return (weight.float().unflatten(1, (scale.shape[1], -1)) * scale.float()).flatten(1)
    return weight.float() * scale.float()


def quantise(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(fp8 weight, scalar float32 scale) whose largest value uses the whole range of the dtype."""
    scale = weight.abs().amax().clamp(min=1e-12) / torch.finfo(dtype).max
    return (weight / scale).to(dtype), scale


def one_scale(weights: dict[str, Tensor]) -> None:
    """Give every matrix with a scale per row or block (`scale_weight`) a single one, in place."""
    for key in [key for key in weights if key.endswith(".scale_weight")]:
        if weights[key].numel() > 1:
            name = key.removesuffix("scale_weight") + "weight"
            full = dequantise(weights[name], weights[key])
            weights[name], weights[key] = quantise(full, weights[name].dtype)


def fuse_scaled(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Matrices with a scale each, joined by rows into one with a single scale; sidecars have ComfyUI's names."""
    full = torch.cat([dequantise(part["weight"], part["weight_scale"]) for part in parts])
    weight, scale = quantise(full, parts[0]["weight"].dtype)
    fused = {"weight": weight, "weight_scale": scale}
    if "bias" in parts[0]:
        fused["bias"] = torch.cat([part["bias"] for part in parts])
    if "input_scale" in parts[0]:
        fused["input_scale"] = torch.stack([part["input_scale"] for part in parts]).amax(dim=0)
    if "comfy_quant" in parts[0]:
        fused["comfy_quant"] = parts[0]["comfy_quant"]
    return fused
