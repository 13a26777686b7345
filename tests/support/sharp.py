"""Random weights with which a wrong index, phase or kernel shows."""

import hashlib

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from torch import nn


def sharp_transformer(config: dict) -> HunyuanVideoFramepackTransformer3DModel:
    model = HunyuanVideoFramepackTransformer3DModel(**config).eval().requires_grad_(False)
    sharp_weights(model)
    return model


def sharp_weights(model: nn.Module) -> None:
    """Fill the parameters by name, so that equal names give equal weights in any class: attention far from uniform, gates
    wide open."""
    for name, weight in model.named_parameters():
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
        draw = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(_scaled(name, draw))


def _scaled(name: str, draw: torch.Tensor) -> torch.Tensor:
    if "norm_q" in name or "norm_k" in name:
        return 1.75 + 0.15 * draw
    if "x_embedder" in name:
        return 0.3 * draw
    if "norm" in name and "linear" in name:
        return 0.05 * draw
    if draw.ndim > 1:
        return draw * draw[0].numel() ** -0.5
    return 0.1 * draw
