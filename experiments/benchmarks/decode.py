"""Compares ways to decode a long video in parts with decoding it whole, on HunyuanVideo's decoder at its widths.

`python3 scripts/bench.py decode [--help]`. The weights are random, and so are the latents, which drift slowly. There are three
kinds of attention: wide, peaked, and to similar content. Pixels are compared, in dB, with ComfyUI's decode of the whole video.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from framepack_core.frames import pixel_frames
from scripts.support.pack import load_comfyui

WIDTH, WINDOW, OVERLAP = 128, 18, 4
ATTENTION = ("wide", "peaked", "alike")

Psnr = Callable[[Tensor], float]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument(
        "--width", type=int, default=WIDTH, help="channels of the decoder's last level; the released VAE has 128"
    )
    parser.add_argument("--frames", type=int, default=38, help="latent frames")
    parser.add_argument("--size", type=int, default=4, help="latent height and width")
    parser.add_argument("--attention", nargs="+", choices=ATTENTION, default=list(ATTENTION))
    options = parser.parse_args()
    load_comfyui(options.comfyui, cpu=not torch.cuda.is_available())
    latents = scene_latents(options.frames, options.size, options.size)
    print(f"{options.frames} latent frames of {options.size}x{options.size}, width {options.width}; parts see {WINDOW} frames")
    print(f"{'attention':<12}{'scheme':<28}{'dB':>8}{'border':>10}{'99th':>8}   (largest step at a chunk border, percentile)")
    for attention in options.attention:
        for scheme, found, expected in compared(hunyuan_vae(options.width, attention), latents):
            steps = frame_steps(found)
            print(
                f"{attention:<12}{scheme:<28}{psnr(found, expected):>8.1f}"
                f"{steps[border_pairs(len(found))].max():>10.4f}{steps.quantile(0.99):>8.4f}",
                flush=True,
            )
    return 0


@torch.inference_mode()
def compared(vae, latents: Tensor):
    """(scheme, frames, frames of the whole decode)."""
    from framepack_core.comfyui.decoding.stream import LINEAR, stream_frames

    def streamed(**options) -> Tensor:
        return torch.cat(list(stream_frames(vae, latents, **options)))

    whole = vae.decode(latents)[0]
    yield "whole (ComfyUI)", whole, whole
    yield "streamed, all keys", streamed(attention_frames=latents.shape[2]), whole
    yield f"streamed, {WINDOW} frames' keys", streamed(attention_frames=WINDOW), whole
    yield "overlap and blend (official)", streamed(blending=LINEAR), whole
    yield "decode_tiled", tiled(vae, latents), whole


def tiled(vae, latents: Tensor) -> Tensor:
    """Tiled in time only: a tile in space would have to be as large as the video for the same memory."""
    side = max(latents.shape[3:])
    return vae.decode_tiled(latents, tile_x=side, tile_y=side, overlap=0, tile_t=WINDOW, overlap_t=OVERLAP)[0]


def psnr(found: Tensor, expected: Tensor) -> float:
    return float(-10 * torch.log10((found - expected).square().mean()))


def frame_steps(frames: Tensor) -> Tensor:
    """How much each frame differs from the one before it."""
    return frames.diff(dim=0).abs().mean(dim=(1, 2, 3))


def border_pairs(frames: int) -> Tensor:
    """The steps from one chunk of two latent frames to the next: the first chunk has 5 frames, the others 8."""
    return torch.arange(4, frames - 1, 8)


# Stand-ins


def hunyuan_vae(width: int = WIDTH, attention: str = "wide"):
    """HunyuanVideo's VAE, built from ComfyUI's classes with random weights, as a `comfy.sd.VAE`."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd

    from scripts.support.trial import autoencoder

    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    vae.first_stage_model = autoencoder(width).eval().requires_grad_(False)
    sharpen(vae.first_stage_model, attention)
    vae.latent_dim, vae.latent_channels = 3, 16
    vae.upscale_ratio, vae.upscale_index_formula = (lambda frames: max(0, pixel_frames(frames)), 8, 8), (4, 8, 8)
    vae.memory_used_decode = lambda shape, dtype: 2800 * 8 * 64 * math.prod(shape[3:]) * dtype.itemsize
    vae.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
    vae.vae_dtype = torch.float32
    vae.first_stage_model.to(vae.vae_dtype)
    offload = comfy.model_management.vae_offload_device()
    vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=offload)
    return vae


def sharpen(model: Any, attention: str) -> None:
    """Set weights with which every layer matters."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        draw = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.copy_(draw * draw[0].numel() ** -0.5)
        else:
            weight.copy_(1 + 0.2 * draw if "norm" in name and name.endswith("weight") else 0.1 * draw)
    layer = model.decoder.mid.attn_1
    layer.proj_out.weight.mul_(2)
    if attention == "peaked":
        layer.q.weight.mul_(3)
    if attention == "alike":
        layer.k.weight.copy_(layer.q.weight)
    model.decoder.conv_out.conv.weight.mul_(0.4)


def scene_latents(frames: int, height: int, width: int, seed: int = 2) -> Tensor:
    """`1 16 T H W` of unit deviation: smooth motion, a background that slowly becomes another, and a little noise."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(1, 16, *shape, generator=generator)

    motion = F.avg_pool3d(noise(frames + 8, height + 2, width + 2), (9, 3, 3), stride=1)
    first, last = noise(1, height, width), noise(1, height, width)
    passed = torch.linspace(0, 1, frames).view(1, 1, -1, 1, 1)
    latents = motion / motion.std() + first * (1 - passed) + last * passed + noise(frames, height, width) / 6
    return latents / latents.std()


if __name__ == "__main__":
    sys.exit(main())
