"""Causal decoders, such as the tiny TAEHV and the demo's: a chunk needs only a few latent frames before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import comfy.sd
from torch import Tensor, nn

from ...frames import PIXEL_FRAMES
from .. import private
from .windows import decode_window

CAUSAL_STEP = 8  # latent frames


def reach_back(model: nn.Module) -> int | None:
    """How many earlier latent frames each latent frame depends on in a causal decoder; None for other decoders.

    A VAE may state it itself, as `reach_back`.
    """
    if isinstance(model, private.TAEHV):
        return _reach_of_taehv(model.decoder)
    return getattr(model, "reach_back", None)


def _reach_of_taehv(decoder: Any) -> int:
    """Each MemBlock looks one frame back, at the frame rate that the layers before it have reached."""
    rate, latent_frames = 1, 0.0
    for layer in decoder:
        if isinstance(layer, private.TGrow):
            rate *= layer.stride
        if isinstance(layer, private.MemBlock):
            latent_frames += 1 / rate
    return math.ceil(latent_frames)


def causal(vae: comfy.sd.VAE, latents: Tensor, reach: int) -> Iterator[Tensor]:
    for start in range(0, latents.shape[2], CAUSAL_STEP):
        chunk = latents[:, :, max(0, start - reach) : start + CAUSAL_STEP]
        new = min(CAUSAL_STEP, latents.shape[2] - start)
        yield decode_window(vae, chunk)[-PIXEL_FRAMES * new :]
