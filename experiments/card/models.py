"""The released models on a fake card: their shapes, without weights."""

from __future__ import annotations

import re
from unittest.mock import patch

import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.model.helios.transformer import HeliosTransformer
from scripts.support.quantising.sizes import is_modulation, released_shapes
from scripts.support.trial import autoencoder


def released_vae(dtype: torch.dtype | None = None) -> comfy.sd.VAE:
    """HunyuanVideo's VAE, as ComfyUI's loader makes it of a file; in the dtype that ComfyUI chooses if None is given."""
    weights = {name: torch.empty(weight.shape, dtype=torch.bfloat16) for name, weight in autoencoder().state_dict().items()}
    return comfy.sd.VAE(sd=weights, dtype=dtype)


def released_weights(
    dtype: torch.dtype = torch.bfloat16, blocks: int | None = None, modulations: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The released transformer in ComfyUI's names, or one with this many blocks of each kind.

    With fp8, only the blocks' matrices are, as with `weight_dtype` fp8 and in the files of scripts/quantize.py. The modulation
    layers' can be of another dtype, as in the fp8 files that are shared.
    """
    others = torch.bfloat16 if dtype.itemsize == 1 else dtype
    matrices = {True: modulations or dtype, False: dtype}
    return {
        name: torch.empty(shape, dtype=matrices[is_modulation(name)] if "_blocks." in name and len(shape) == 2 else others)
        for name, shape in released_shapes().items()
        if blocks is None or not (match := re.match(r"(?:double|single)_blocks\.(\d+)", name)) or int(match[1]) < blocks
    }


def weights_on(device: str, model: ModelPatcher, modulations: bool) -> int:
    """Bytes of the transformer's modulation layers, or of all others, that are on a device."""
    named = model.model.diffusion_model.named_parameters()
    return sum(weight.nbytes for name, weight in named if weight.device.type == device and is_modulation(name) == modulations)


def gguf_weights(kind: str, blocks: int | None = None) -> dict[str, Tensor]:
    """The same with the blocks' matrices in a GGUF type."""
    from framepack_core.comfyui.loading.gguf import BLOCKS, quantised_tensor

    elements, size, _ = BLOCKS[kind]
    weights = released_weights(blocks=blocks)
    for name, weight in weights.items():
        if name.startswith(("double_blocks.", "single_blocks.")) and weight.ndim == 2:
            data = torch.empty(weight.numel() // elements * size, dtype=torch.uint8)
            weights[name] = quantised_tensor(((kind, data.numel()),), data, tuple(weight.shape))
    return weights


def quantised_weights(name: str, blocks: int | None = None) -> dict[str, Tensor]:
    """The same as scripts/quantize.py writes it in one of ComfyUI's quantised formats, whose names are real tensors."""
    return quantised(released_weights(blocks=blocks), name)


def quantised(full: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A transformer's weights in one of ComfyUI's quantised formats."""
    from framepack_core.comfyui.loading.quantise import format_of, mark, mark_key, specs

    weights: dict[str, Tensor] = {}
    for key, weight in full.items():
        if format := format_of(key, tuple(weight.shape), name):
            found = specs(key, tuple(weight.shape), format)
            weights |= {part: torch.empty(shape, dtype=dtype) for part, (dtype, shape) in found.items()}
            with unset_fake_temporarily():
                weights[mark_key(key)] = torch.frombuffer(bytearray(mark(key, format)), dtype=torch.uint8)
        else:
            weights[key] = weight
    return weights


def helios_weights(dtype: torch.dtype = torch.bfloat16, blocks: int = 40) -> dict[str, Tensor]:
    """The released Helios in ComfyUI's names, or one with this many blocks. With fp8, only the blocks' matrices are."""
    others = torch.bfloat16 if dtype.itemsize == 1 else dtype
    sizes = {"dim": 5120, "num_heads": 40, "ffn_dim": 13824}
    shapes = HeliosTransformer(**sizes, num_layers=blocks, device="meta", operations=comfy.ops.disable_weight_init).state_dict()
    return {
        name: torch.empty(meta.shape, dtype=dtype if name.startswith("blocks.") and meta.ndim == 2 else others)
        for name, meta in shapes.items()
    }


def released_transformer(weights: dict[str, Tensor], name: str = "FramePackI2V_HY", **options) -> ModelPatcher:
    """A model of these weights, through all of the pack's own loading; `options` are ComfyUI's `model_options`."""
    suffix = ".gguf" if any(hasattr(weight, "_layout_cls") for weight in weights.values()) else ".safetensors"
    with patch.object(checkpoints, "read_checkpoint", lambda path: (dict(weights), {})):
        return checkpoints.load_path(f"{name}{suffix}", options)
