"""Any decoder, in overlapping windows that are blended, as in the official program."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import comfy.sd
import torch
from torch import Tensor

from ...family import VAES
from ...frames import pixel_frames

WINDOW, ADVANCE = 18, 9  # latent frames: each section together with the one before it


def blended(vae: comfy.sd.VAE, latents: Tensor, decode: Callable[[comfy.sd.VAE, Tensor], Tensor]) -> Iterator[Tensor]:
    """Decode in windows that advance by half their length, blended linearly over the frames they share.

    `decode` gives the frames `F H W 3` of a window.
    """
    tail = None
    ends = range(latents.shape[2], WINDOW - ADVANCE, -ADVANCE)[::-1] or [latents.shape[2]]
    for end in ends:
        frames = decode(vae, latents[:, :, max(0, end - WINDOW) : end])
        if tail is not None:
            weight = torch.linspace(1, 0, len(tail), device=frames.device).view(-1, 1, 1, 1)
            frames[: len(tail)] = weight * tail + (1 - weight) * frames[: len(tail)]
        shared = 0 if end == ends[-1] else pixel_frames(WINDOW - ADVANCE)
        yield frames[: len(frames) - shared]
        tail = frames[len(frames) - shared :]


def decode_window(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """ComfyUI's own decode, `F H W 3`. Raises ValueError if the VAE gives another number of frames."""
    images, expected = vae.decode(latents), pixel_frames(latents.shape[2])
    if images.ndim != 5 or images.shape[1] != expected:
        raise ValueError(f"vae decodes {latents.shape[2]} latent frames to shape {tuple(images.shape)}, expected {expected} "
                         f"frames; load {VAES}")  # fmt: skip
    return images[0]
