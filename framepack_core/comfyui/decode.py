"""Frames of a video of any length, a few at a time, in memory that does not grow with it.

How a decoder can be cut in time depends on its architecture. HunyuanVideo's goes up from latent to pixel resolution in steps
of two latent frames and carries the state of its convolutions: that is repeated here step by step, and gives what the whole
decode gives. Its middle block sees the whole video (see `middle`). The demo's VAE and the tiny TAEHV are causal: a chunk
needs a few latent frames before it, and no others. Any other VAE is decoded in windows that overlap and are blended.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import AutoencodingEngineLegacy
from comfy.ldm.modules.diffusionmodules.model import Decoder, conv_carry_causal_3d
from comfy.taesd.taehv import TAEHV, MemBlock, TGrow
from torch import Tensor, nn
from torch.nn import functional as F

from ..demo.vae import DemoVAE
from .latents import CHANNELS
from .middle import Middle, whole_middle

EXACT, LINEAR = "exact", "linear"
ATTENTION_FRAMES = 96  # what the middle block then needs, HunyuanVideo's up path needs anyway

STEP = 2  # latent frames: HunyuanVideo's decoder goes up in twos
CAUSAL_STEP = 8
TILE_OVERLAP, SMALLEST_TILE = 8, 24  # latents

# What is in memory at once, in latent frames of the middle block's features: in that block for each of its frames, in a step
# of the up path (more with a larger tile), and in the state that it carries.
MIDDLE_PLANES, UP_PLANES, CARRIED_PLANES = 8, 950, 600

WINDOW, ADVANCE = 18, 9  # latent frames, as the official program decodes: each section with the one before

Frames = Iterator[Tensor]

try:  # the C library's, if it is glibc: what chunks have freed would otherwise lie in pieces between what is still used
    malloc_trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):

    def malloc_trim(pad: int) -> None:
        pass


def stream_frames(
    vae: comfy.sd.VAE, latents: Tensor, blending: str = EXACT, attention_frames: int = ATTENTION_FRAMES
) -> Frames:
    """The frames `F H W 3` in 0..1, on the CPU, of latents `B 16 T H W`: 4 T - 3 of each video, one video after the other.

    `exact` gives what `vae.decode` gives for the whole video, as far as the VAE's architecture allows it: HunyuanVideo's up to
    `attention_frames` latent frames, and near it beyond. `linear` decodes sections with the one before and blends them, as the
    official program does. Raises ValueError for other latents. Between chunks it shows progress and can be interrupted.
    """
    if latents.ndim != 5 or latents.shape[1] != CHANNELS:
        raise ValueError(f"latent has shape {tuple(latents.shape)}, expected (B, {CHANNELS}, T, H, W) from a FramePack "
                         "sampler")  # fmt: skip
    return _reported((frames for video in latents.split(1) for frames in _chunks(vae, video, blending, attention_frames)),
                     total=len(latents) * frame_count(latents.shape[2]))  # fmt: skip


def decode_video(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """All frames `N H W 3` at once, N = B (4 T - 3), in the same way. Raises ValueError for other latents."""
    chunks = stream_frames(vae, latents)
    width, height = frame_size(vae, latents)
    images = torch.empty(len(latents) * frame_count(latents.shape[2]), height, width, 3, dtype=vae.vae_output_dtype())
    end = 0
    for frames in chunks:
        start, end = end, end + len(frames)
        images[start:end] = frames
    return images


def frame_size(vae: comfy.sd.VAE, latents: Tensor) -> tuple[int, int]:
    """Width and height of the frames, in pixels."""
    ratio = vae.spacial_compression_decode()
    return latents.shape[-1] * ratio, latents.shape[-2] * ratio


def frame_count(latent_frames: int) -> int:
    return 4 * latent_frames - 3


def _reported(chunks: Frames, total: int) -> Frames:
    bar = comfy.utils.ProgressBar(total)
    for frames in chunks:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield frames
        bar.update(len(frames))
        malloc_trim(0)


def _chunks(vae: comfy.sd.VAE, latents: Tensor, blending: str, attention_frames: int) -> Frames:
    model = vae.first_stage_model
    if blending == LINEAR:
        return blended(vae, latents)
    if is_carried(model):
        return carried(vae, latents, attention_frames)
    if (before := frames_before(model)) is not None:
        return causal(vae, latents, before)
    return blended(vae, latents)


# HunyuanVideo


def is_carried(model: nn.Module) -> bool:
    """Whether it is HunyuanVideo's architecture, whose decoder carries the state of its convolutions."""
    return isinstance(model, AutoencodingEngineLegacy) and isinstance(model.decoder, Decoder) and model.decoder.carried


def carried(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int) -> Frames:
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
    return comfy.model_management.get_free_memory(vae.device) / plane


def features(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int) -> Iterator[Tensor]:
    """What the decoder's up path is given, `1 C 2 H W` each time."""
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
    """The decoder's up path, in as many tiles as make it fit."""
    share = (planes - CARRIED_PLANES) / UP_PLANES
    if share >= 1:
        return Up(decoder)
    return TiledUp(decoder, height, width, max(SMALLEST_TILE, math.isqrt(int(max(0.0, share) * height * width))))


class Up:
    """Features `1 C 2 H W` to pixels `1 3 F 8H 8W`; goes on where the call before ended."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.carry = decoder, None

    def __call__(self, h: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level in reversed(self.decoder.up):
            for block in level.block:
                h = block(h, None, self.carry, kept)
            if hasattr(level, "upsample"):
                h = level.upsample(h, self.carry, kept)
        h = conv_carry_causal_3d([F.silu(self.decoder.norm_out(h))], self.decoder.conv_out, self.carry, kept)
        self.carry = kept
        return h


class TiledUp:
    """The same in square tiles of `side`, which overlap and are blended: for cards too small for the whole picture."""

    def __init__(self, decoder: Decoder, height: int, width: int, side: int) -> None:
        self.tiles = [(y, x, Up(decoder)) for y in spans(height, side) for x in spans(width, side)]

    def __call__(self, h: Tensor) -> Tensor:
        H, W = h.shape[3:]
        pixels = weights = 0
        for y, x, up in self.tiles:
            part = up(h[..., slice(*y), slice(*x)])
            weight = ramp(*y, H)[:, None] * ramp(*x, W)
            around = (8 * x[0], 8 * (W - x[1]), 8 * y[0], 8 * (H - y[1]))
            pixels = pixels + F.pad(part.float().cpu() * weight, around)
            weights = weights + F.pad(weight, around)
        return pixels / weights


def spans(length: int, side: int) -> list[tuple[int, int]]:
    """Tiles of one axis, evenly spread, that share `TILE_OVERLAP` or more with the next."""
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


# Causal decoders


def frames_before(model: nn.Module) -> int | None:
    """How many latent frames before it a latent frame of a causal decoder depends on; None for other decoders."""
    if isinstance(model, DemoVAE):
        return len(model.decoder.blocks)
    if isinstance(model, TAEHV):
        return _memory(model.decoder)
    return None


def _memory(decoder: nn.Sequential) -> int:
    """Each MemBlock looks one frame back, at the frame rate that the layers before it have grown to."""
    rate, latent_frames = 1, 0.0
    for layer in decoder:
        if isinstance(layer, TGrow):
            rate *= layer.stride
        if isinstance(layer, MemBlock):
            latent_frames += 1 / rate
    return math.ceil(latent_frames)


def causal(vae: comfy.sd.VAE, latents: Tensor, before: int) -> Frames:
    for start in range(0, latents.shape[2], CAUSAL_STEP):
        chunk = latents[:, :, max(0, start - before) : start + CAUSAL_STEP]
        new = min(CAUSAL_STEP, latents.shape[2] - start)
        yield _decode(vae, chunk)[-4 * new :]


# Windows


def blended(vae: comfy.sd.VAE, latents: Tensor) -> Frames:
    """Windows that each advance by half, blended linearly over the frames that two of them share."""
    tail = None
    ends = range(latents.shape[2], WINDOW - ADVANCE, -ADVANCE)[::-1] or [latents.shape[2]]
    for end in ends:
        frames = _decode(vae, latents[:, :, max(0, end - WINDOW) : end])
        if tail is not None:
            weight = torch.linspace(1, 0, len(tail), device=frames.device).view(-1, 1, 1, 1)
            frames[: len(tail)] = weight * tail + (1 - weight) * frames[: len(tail)]
        shared = 0 if end == ends[-1] else frame_count(WINDOW - ADVANCE)
        yield frames[: len(frames) - shared]
        tail = frames[len(frames) - shared :]


def _decode(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """ComfyUI's own decode, `F H W 3`. Raises ValueError when the VAE gives another number of frames."""
    images, expected = vae.decode(latents), frame_count(latents.shape[2])
    if images.ndim != 5 or images.shape[1] != expected:
        raise ValueError(f"vae decodes {latents.shape[2]} latent frames to shape {tuple(images.shape)}, expected {expected} "
                         "frames; load HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)")  # fmt: skip
    return images[0]
