"""What the pack's nodes say of a video in its LATENT, beside the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..frames import Length

GIVEN = "framepack_given"  # the latent frames that were given
LENGTH = "framepack_length"  # the frames that are shown


def length_of(latent: Mapping[str, Any]) -> Length:
    """What is shown of a video. Another node may have cut or joined it since it was sampled: then all of it is."""
    frames = latent["samples"].shape[2]
    length = latent.get(LENGTH)
    return length if length is not None and length.latents == frames else Length(frames)
