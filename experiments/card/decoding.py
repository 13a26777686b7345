"""Decoding on a fake card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.card.card import GB, FakeCard
from experiments.card.models import released_vae
from framepack_core.comfyui.decoding import middle
from framepack_core.comfyui.decoding.stream import stream_frames
from framepack_core.frames import pixel_frames

SIZES = {"640x608": (76, 80), "832x480": (60, 104)}  # latent height and width
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LONG = 450  # latent frames: a minute
BLOCKS = 3


def decode(
    free: float,
    frames: int,
    size: tuple[int, int],
    dtype: torch.dtype,
    steps: int | None = None,
    watching: Sequence[TorchDispatchMode] = (),
) -> FakeCard:
    """The card after decoding with so many GB free, or after this many steps of it."""
    with FakeCard(free * GB, watching=watching) as card:
        chunks = stream_frames(released_vae(dtype), torch.zeros(1, 16, frames, *size))
        found = sum(len(chunk) for chunk in islice(chunks, steps))
        assert steps or found == pixel_frames(frames)
    return card


def decode_long(free: float, size: tuple[int, int], dtype: torch.dtype) -> FakeCard:
    """The card after two steps of decoding a minute; before the first, the middle block passes over the whole video.

    Where keys are fetched to the card one block after the other, each block takes the same memory; so only some are.
    """
    over_blocks = middle._over_blocks
    with patch.object(middle, "_over_blocks", lambda queries, blocks: over_blocks(queries, blocks[:BLOCKS])):
        return decode(free, LONG, size, dtype, steps=2)
