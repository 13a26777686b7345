"""Latent frames, frames of the video, and seconds."""

from __future__ import annotations

from fractions import Fraction

PIXEL_FRAMES = 4  # frames of the video in a latent frame; the first latent frame holds a single one
MAX_FPS = 240.0


def pixel_frames(latent_frames: int) -> int:
    """Frames of a video with this many latent frames: 4 T - 3."""
    return PIXEL_FRAMES * latent_frames - (PIXEL_FRAMES - 1)


def latent_frames(pixel_frames: int) -> int:
    """Latent frames that a VAE makes of so many frames of a video; it leaves out those beyond 4 T - 3."""
    return (pixel_frames + PIXEL_FRAMES - 1) // PIXEL_FRAMES


def frame_rate(fps: float) -> Fraction:
    """Frames per second as files and encoders want them: 23.976 and 29.97 stay as they are, 30000/1001 is made exact."""
    return Fraction(fps).limit_denominator(1001)
