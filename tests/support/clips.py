"""Encoded clips to train on: small, and predictable enough that a loss can fall."""

from pathlib import Path

import torch

from framepack_core.training.cache import Clip, write_clip, write_empty

CHANNELS, TEXT, POOLED, IMAGE = 16, 8, 768, 12


def clip(seed: int, frames: int, height: int = 4, width: int = 4, words: int = 3) -> Clip:
    """A picture that moves one latent pixel to the right every frame."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(CHANNELS, 1, height, width, generator=generator)
    return Clip(
        latents=torch.cat([picture.roll(frame, -1) for frame in range(frames)], dim=1),
        text=torch.randn(words, TEXT, generator=generator),
        pooled=torch.randn(POOLED, generator=generator),
        image=torch.randn(2, IMAGE, generator=generator),
        caption=f"clip {seed}",
    )


def write_cache(folder: Path, lengths=(29, 29, 29, 29), **size) -> Path:
    for seed, frames in enumerate(lengths):
        write_clip(folder, f"clip{seed}", clip(seed, frames, **size))
    empty = clip(99, 1)
    write_empty(folder, empty.text[:1], empty.pooled)
    return folder
