"""Which optimizer trains which weights, and how fast."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .settings import Settings
from .transformer import PackedTransformer


def make_optimizers(settings: Settings, transformer: PackedTransformer) -> tuple[list[torch.optim.Optimizer], list[float]]:
    """The optimizers and their largest learning rates."""
    trained = {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    muon = {name for name, parameter in trained.items() if settings.optimizer == "muon" and for_muon(name, parameter)}
    rest = [(name, parameter) for name, parameter in trained.items() if name not in muon]
    groups = [
        {"params": [parameter for _, parameter in rest if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for _, parameter in rest if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99), fused=True)]
    rates = [settings.lr]
    if muon:
        matrices = [trained[name] for name in sorted(muon)]
        optimizers.append(torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay))
        rates.append(settings.muon_lr)
    return optimizers, rates


def for_muon(name: str, parameter: Tensor) -> bool:
    """Matrices inside the blocks, except the modulations, whose input is one vector per clip."""
    inside = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
    return inside and parameter.ndim == 2 and ".linear." not in name


def rate(settings: Settings, step: int) -> float:
    """A step's learning rate as a share of the largest."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.schedule == "constant":
        return warm
    done = min(1.0, max(0.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup)))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
