"""HunyuanVideo's decoder in steps of two latent frames, each of which hands the state of its convolutions to the next.

ComfyUI runs the decoder's up path in the same way, so the frames are those of a whole decode. The middle block, which sees
the whole video, is in `middle`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import private
from ..encoding import CHANNELS
from .middle import Middle, whole_middle

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.model import Decoder

STEP = 2  # latent frames that the decoder's up path takes at a time
TILE_OVERLAP, SMALLEST_TILE = 8, 24  # latents

# Memory in use at once, counted in latent frames of the middle block's features: in that block for each of its frames, in a
# step of the up path (more with a larger tile), and in the state that it carries.
MIDDLE_PLANES, UP_PLANES, CARRIED_PLANES = 8, 950, 600


def is_carried(vae: comfy.sd.VAE) -> bool:
    """Whether the VAE has HunyuanVideo's architecture, whose decoder carries convolution state. Raises private.Missing."""
    model = vae.first_stage_model
    if not (isinstance(model, private.AutoencodingEngineLegacy) and isinstance(model.decoder, private.Decoder)):
        return False
    private.require("conv_carry_causal_3d", "ResnetBlock", "Upsample")
    private.require_attributes(vae, "memory_used_decode", "process_output", serves=private.EXACT_DECODING)
    private.require_attributes(model, "post_quant_conv", serves=private.EXACT_DECODING)
    private.require_attributes(model.decoder, "carried", serves=private.EXACT_DECODING)
    return model.decoder.carried


def carried(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int) -> Iterator[Tensor]:
    model, shape = vae.first_stage_model, (1, CHANNELS, STEP, *latents.shape[3:])
    memory = vae.memory_used_decode(shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)
    up = up_path(model.decoder, latents.shape[3], latents.shape[4], planes_free(vae, latents))
    for h in features(vae, latents, attention_frames):
        frames = up(h).to(vae.output_device, vae.vae_output_dtype(), copy=True)
        yield vae.process_output(frames)[0].movedim(0, -1)


def planes_free(vae: comfy.sd.VAE, latents: Tensor) -> float:
    """How many latent frames of the middle block's features there is memory for."""
    channels = vae.first_stage_model.decoder.mid.block_1.out_channels
    plane = channels * latents.shape[3] * latents.shape[4] * vae.vae_dtype.itemsize
    return vae.patcher.get_free_memory(vae.device) / plane


def features(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int) -> Iterator[Tensor]:
    """The input of the decoder's up path, `1 C 2 H W` at a time."""
    model, count = vae.first_stage_model, latents.shape[2]

    def prepared(latents: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model.post_quant_conv(latents.to(vae.device, vae.vae_dtype))

    if count <= attention_frames and MIDDLE_PLANES * count < planes_free(vae, latents):
        yield from whole_middle(model.decoder, prepared(latents)).split(STEP, dim=2)
    else:
        chunks = latents.split(STEP, dim=2)
        yield from Middle(model.decoder, lambda: map(prepared, chunks), len(chunks), math.ceil(attention_frames / STEP))


def up_path(decoder: Decoder, height: int, width: int, planes: float) -> Callable[[Tensor], Tensor]:
    """The decoder's up path, in as many tiles as it takes to fit into memory."""
    share = (planes - CARRIED_PLANES) / UP_PLANES
    if share >= 1:
        return Up(decoder)
    return TiledUp(decoder, height, width, max(SMALLEST_TILE, math.isqrt(int(max(0.0, share) * height * width))))


class Up:
    """Turns features `1 C 2 H W` into pixels `1 3 F 8H 8W`; each call continues where the one before ended."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.carry = decoder, None

    def __call__(self, h: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level in reversed(self.decoder.up):
            for block in level.block:
                h = block(h, None, self.carry, kept)
            if hasattr(level, "upsample"):
                h = level.upsample(h, self.carry, kept)
        h = private.conv_carry_causal_3d([F.silu(self.decoder.norm_out(h))], self.decoder.conv_out, self.carry, kept)
        self.carry = kept
        return h


class TiledUp:
    """The same in square tiles of this `side` that overlap and are blended, for cards too small for the whole picture."""

    def __init__(self, decoder: Decoder, height: int, width: int, side: int) -> None:
        self.tiles = [(y, x, Up(decoder)) for y in spans(height, side) for x in spans(width, side)]

    def __call__(self, h: Tensor) -> Tensor:
        H, W = h.shape[3:]
        pixels = weights = torch.zeros(())
        for y, x, up in self.tiles:
            part = up(h[..., slice(*y), slice(*x)])
            weight = ramp(*y, H)[:, None] * ramp(*x, W)
            around = (8 * x[0], 8 * (W - x[1]), 8 * y[0], 8 * (H - y[1]))
            pixels = pixels + F.pad(part.float().cpu() * weight, around)
            weights = weights + F.pad(weight, around)
        return pixels / weights


def spans(length: int, side: int) -> list[tuple[int, int]]:
    """Evenly spread tiles along one axis, each of which shares `TILE_OVERLAP` or more with the next."""
    if length <= side:
        return [(0, length)]
    last = math.ceil((length - side) / (side - TILE_OVERLAP))
    starts = [(length - side) * place // last for place in range(last + 1)]
    return [(start, start + side) for start in starts]


def ramp(start: int, end: int, length: int) -> Tensor:
    """Weights of a tile's pixels along one axis: they fade towards other tiles, not towards the picture's edge."""
    pixels, fade = torch.arange(8 * (end - start)) + 0.5, 8 * TILE_OVERLAP
    left = pixels / fade if start > 0 else torch.ones_like(pixels)
    right = pixels.flip(0) / fade if end < length else torch.ones_like(pixels)
    return torch.minimum(left, right).clamp(max=1)
