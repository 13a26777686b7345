"""Where weights are while they are not on the card: in memory of their own, or in their file."""

from __future__ import annotations

from collections.abc import Iterator

import comfy.memory_management
import comfy.model_management
import torch
from torch import Tensor, nn

RESERVE = 4 * 2**30  # bytes left for text encoders and everything else


class MappedWeight(nn.Parameter):
    """A weight that is still in its file. ComfyUI pins plain parameters only: pinning would copy this one into memory."""


def settle(model: nn.Module, device: torch.device) -> None:
    """Give every weight of a model that has just been loaded its dtype and, if there is room, memory of its own.

    ComfyUI does so for any model. Without room, weights that have their dtype stay in the file, which is read again when it is
    needed; copies would be swapped out instead.
    """
    size = sum(weight.numel() * dtype.itemsize for _, _, weight, dtype in plain_weights(model))
    copies = device.type != "cpu" or has_room(size)
    for module, name, weight, dtype in plain_weights(model):
        if copies or weight.dtype != dtype:
            setattr(module, name, nn.Parameter(weight.to(device, dtype, copy=True), requires_grad=False))
        else:
            setattr(module, name, MappedWeight(weight, requires_grad=False))


def cast(model: nn.Module) -> None:
    """Give every weight of a model that has just been loaded its dtype. The others stay in the file."""
    for module, name, weight, dtype in plain_weights(model):
        if weight.dtype != dtype:
            setattr(module, name, nn.Parameter(weight.to(dtype), requires_grad=False))


def plain_weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor, torch.dtype]]:
    """Module, name, weight, and the dtype that ComfyUI notes for it. Quantised weights have formats of their own."""
    for module in model.modules():
        for name in list(module._parameters):
            weight, dtype = module._parameters[name], getattr(module, f"{name}_comfy_model_dtype", None)
            if weight is not None and dtype is not None and not hasattr(weight, "_layout_cls"):
                yield module, name, weight.data, dtype


def has_room(size: int) -> bool:
    """Whether so many bytes may be taken from the computer's memory.

    They must be if dynamic VRAM is on but not used: it maps files read-only, and LoRA hooks, for which ComfyUI goes back to the
    older patcher, write into weights.
    """
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    return comfy.memory_management.aimdo_enabled or size + RESERVE <= free
