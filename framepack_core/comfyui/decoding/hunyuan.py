"""HunyuanVideo's decoder in steps of two latent frames, each of which hands the state of its convolutions to the next.

ComfyUI runs the decoder's up path in the same way, so the frames are those of a whole decode. The middle block, which sees
the whole video, is in `middle`. What a card has no memory for is done in parts: see `bands` and `room`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import private
from .bands import Bands, largest_layer
from .middle import Middle, whole_middle
from .room import CPU, Room
from .windows import decode_window

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.model import Decoder

STEP = 2  # latent frames that the decoder's up path takes at a time

# Memory in use at once, counted in latent frames of the middle block's features: in that block for each of its frames, and in
# a step of the up path with the state that it carries. `tests/card/test_decoding.py` counts them.
MIDDLE_PLANES, UP_PLANES = 8, 1750
SMALLEST = 2**28  # bytes that decoding needs besides the weights, however slowly


def is_carried(vae: comfy.sd.VAE) -> bool:
    """Whether the VAE has HunyuanVideo's architecture, whose decoder carries convolution state. Raises private.Missing."""
    model = vae.first_stage_model
    if not (isinstance(model, private.AutoencodingEngineLegacy) and isinstance(model.decoder, private.Decoder)):
        return False
    private.require("conv_carry_causal_3d", "ResnetBlock", "Upsample", "CarriedConv3d", "is_oom")
    private.require_attributes(vae, "memory_used_decode", "process_output", serves=private.EXACT_DECODING)
    private.require_attributes(model, "post_quant_conv", serves=private.EXACT_DECODING)
    private.require_attributes(model.decoder, "carried", serves=private.EXACT_DECODING)
    return model.decoder.carried


def carried(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int, most: float = math.inf) -> Iterator[Tensor]:
    """Chunks of frames `F H W 3` on the CPU, made in at most `most` bytes of the card's memory besides the VAE's weights."""
    decoder, up = vae.first_stage_model.decoder, None
    needed = UP_PLANES * plane_size(vae, latents)
    load(vae, min(needed, most))
    room = Room(vae.device, min(most, vae.patcher.get_free_memory(vae.device)))
    for h in features(vae, latents, attention_frames, room):
        up = up or UpPath(decoder, room, needed, largest_layer(decoder, h.shape[3], h.shape[4]) * h.itemsize)
        frames = up(h).to(CPU, vae.vae_output_dtype(), copy=True)
        yield vae.process_output(frames)[0].movedim(0, -1)


def decode_any_memory(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """All frames `F H W 3` at once, by ComfyUI's own decode if the memory that it asks for is free."""
    needed = vae.memory_used_decode(latents.shape, vae.vae_dtype)
    load(vae, needed)
    if vae.patcher.get_free_memory(vae.device) >= needed:
        return decode_window(vae, latents)
    return torch.cat(list(carried(vae, latents, latents.shape[2])))


def plane_size(vae: comfy.sd.VAE, latents: Tensor) -> int:
    """Bytes of a latent frame of the middle block's features."""
    channels = vae.first_stage_model.decoder.mid.block_1.out_channels
    return channels * latents.shape[3] * latents.shape[4] * vae.vae_dtype.itemsize


def load(vae: comfy.sd.VAE, memory: float) -> None:
    """Load the VAE and free `memory` bytes beside it, as far as the card has them.

    Other models leave the card for that, as they do for ComfyUI's own decoding, but the VAE's weights stay on it even if less
    is free.
    """

    def attempt() -> None:
        comfy.model_management.load_models_gpu(
            [vae.patcher], memory_required=memory, minimum_memory_required=SMALLEST, force_full_load=vae.disable_offload
        )

    try:
        return attempt()
    except Exception as error:
        if not private.is_oom(error):
            raise
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    attempt()


def features(vae: comfy.sd.VAE, latents: Tensor, attention_frames: int, room: Room) -> Iterator[Tensor]:
    """The input of the decoder's up path, `1 C 2 H W` at a time."""
    model, count = vae.first_stage_model, latents.shape[2]

    def prepared(latents: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return room.survive(lambda: model.post_quant_conv(latents.to(vae.device, vae.vae_dtype)))

    if count <= attention_frames and MIDDLE_PLANES * count * plane_size(vae, latents) < room.free:
        try:
            whole = whole_middle(model.decoder, prepared(latents), room).to(CPU)  # the up path may need all of the card
        except Exception as error:
            if not private.is_oom(error):
                raise
        else:
            for h in whole.split(STEP, dim=2):
                yield room.survive(lambda h=h: h.to(vae.device))
            return
        room.make()
    chunks = latents.split(STEP, dim=2)
    yield from Middle(model.decoder, lambda: map(prepared, chunks), len(chunks), math.ceil(attention_frames / STEP), room)


class UpPath:
    """The decoder's up path: `Up` while there is room for it, and `Bands` from then on, which give the same frames."""

    def __init__(self, decoder: Decoder, room: Room, needed: int, spare: int) -> None:
        self.whole = Up(decoder) if needed <= room.free - room.used else None
        self.bands = Bands(decoder, room, spare)
        self.room = room

    def __call__(self, h: Tensor) -> Tensor:
        if self.whole:
            try:
                return self.whole(h)
            except Exception as error:
                if not private.is_oom(error):
                    raise
            if self.whole.carry:
                self.bands.take_over(self.whole.carry)
            self.whole = None
            self.room.make()
        return self.bands(h)


class Up:
    """Turns features `1 C 2 H W` into pixels `1 3 F 8H 8W`; each call continues where the one before ended."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.carry = decoder, None

    def __call__(self, h: Tensor) -> Tensor:
        carry = self.carry and [*self.carry]  # ComfyUI's layers take from this list, but a call that fails must change nothing
        kept: list[Tensor] = []
        for level in reversed(self.decoder.up):
            for block in level.block:
                h = block(h, None, carry, kept)
            if hasattr(level, "upsample"):
                h = level.upsample(h, carry, kept)
        h = private.conv_carry_causal_3d([F.silu(self.decoder.norm_out(h))], self.decoder.conv_out, carry, kept)
        self.carry = kept
        return h
