"""How latent frames, frames of the video and frames a second hang together."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.frames import frame_rate, latent_frames, pixel_frames


@pytest.mark.parametrize(("latent", "pixel"), [(1, 1), (2, 5), (10, 37), (28, 109)])
def test_the_first_latent_frame_holds_one_frame_and_every_other_four(latent, pixel):
    assert pixel_frames(latent) == pixel
    assert latent_frames(pixel) == latent


@given(st.integers(1, 100_000))
def test_a_vae_makes_as_many_latent_frames_as_are_full(frames):
    latent = latent_frames(frames)

    assert pixel_frames(latent) <= frames < pixel_frames(latent + 1)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(30.0, Fraction(30)), (24.5, Fraction(49, 2)), (29.97, Fraction(2997, 100)), (30_000 / 1001, Fraction(30_000, 1001)),
     (23.976, Fraction(2997, 125)), (24_000 / 1001, Fraction(24_000, 1001))],
)  # fmt: skip
def test_a_rate_is_the_fraction_that_was_meant(fps, rate):
    assert frame_rate(fps) == rate
