"""What the pack's nodes say of a video in its LATENT, beside the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..frames import Length
from ..made import Made

MADE = "framepack_made"  # how the sampler made it
LENGTH = "framepack_length"  # the frames that are shown
BEFORE = "framepack_before"  # a Placed: what a video of sections apart begins after, which is no part of it
STILL = "framepack_still"  # beside an image's latent: the last latent frame `1 16 1 H W` of a clip that shows it for a section


def made_of(latent: Mapping[str, Any]) -> Made | None:
    """How a sampler made a video; None if the latent comes from elsewhere, or is of another length since."""
    made = latent.get(MADE)
    return made if made is not None and made.frames == latent["samples"].shape[2] else None


def marked_length(latent: Mapping[str, Any]) -> Length | None:
    """What is shown of a sampler's video; None if the latent comes from elsewhere, or was cut or joined since."""
    length = latent.get(LENGTH)
    return length if length is not None and latent["samples"].shape[2:3] == (length.latents,) else None


def length_of(latent: Mapping[str, Any]) -> Length:
    """What is shown of a video. Another node may have cut or joined it since it was sampled: then all of it is."""
    return marked_length(latent) or Length(latent["samples"].shape[2])
