"""What a video of sections that are clips of their own begins after: stills and clips, encoded in chunks of a section."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..helios.chunks import CHUNK_FRAMES, SEEN, clip_chunks
from . import private
from .decoding.fitting import takes_clips
from .encoding import encode_images
from .log import log_once

STEP = 64  # pixels, of sizes: a section may begin at a quarter of the video's height and width


def in_chunks(vae: Any) -> bool:
    """Whether the VAE is that of a family whose sections are clips of their own."""
    try:
        return takes_clips(vae) is True
    except private.Missing as missing:
        log_once(str(missing))
        return False


def encode_still(vae: Any, image_NHWC: Tensor) -> Tensor:
    """The last latent frame `1 16 1 H W` of an image `1 H W 3` that is shown for a chunk."""
    return encode_images(vae, image_NHWC.expand(CHUNK_FRAMES, -1, -1, -1))[:, :, -1:]


def seen_frames(images_NHWC: Tensor) -> Tensor:
    """The frames of a clip's last whole chunks, as many as sections see. Raises ValueError for a clip shorter than a chunk."""
    return images_NHWC[clip_chunks(len(images_NHWC))[-SEEN:][0][0] :]


def encode_clip(vae: Any, images_NHWC: Tensor) -> Tensor:
    """Whole chunks of a clip, each encoded by itself: `1 16 T H W` with nine latent frames for each."""
    return torch.cat([encode_images(vae, chunk) for chunk in images_NHWC.split(CHUNK_FRAMES)], dim=2)
