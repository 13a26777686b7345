"""How latent frames, frames of the video and frames per second are related."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.frames import Length, frame_rate, latent_frames, pixel_frames


@pytest.mark.parametrize(("latent", "pixel"), [(1, 1), (2, 5), (10, 37), (28, 109)])
def test_the_first_latent_frame_holds_one_frame_and_every_other_four(latent, pixel):
    assert pixel_frames(latent) == pixel
    assert latent_frames(pixel) == latent


@given(st.integers(1, 100_000))
def test_a_vae_makes_as_many_latent_frames_as_are_full(frames):
    latent = latent_frames(frames)

    assert pixel_frames(latent) <= frames < pixel_frames(latent + 1)


@given(st.integers(0, 500))
def test_in_clips_of_their_own_the_first_latent_frame_of_each_holds_one_frame(latent):
    length = Length(500, apart=9)

    assert length.begins(latent) == 33 * (latent // 9) + (4 * (latent % 9) - 3 if latent % 9 else 0)
    assert length.shown(latent) == (1 if latent % 9 == 0 else 4)


@given(st.sampled_from([None, 3, 9]), st.integers(0, 20), st.integers(0, 200))
def test_what_begins_at_a_latent_frame_is_placed_there(apart, hidden, latent):
    length = Length(hidden + 300, apart=apart, hidden=hidden if apart else 0)

    assert length.place(length.begins(length.hidden + latent)) == length.hidden + latent


def test_hidden_latent_frames_stand_for_no_frames():
    length = Length(28, apart=9, hidden=1)

    assert (length.frames, length.begins(1), length.shown(0)) == (99, 0, 0)


def test_an_exact_length_says_what_it_is_cut_from():
    assert (Length(27, exact=90, apart=9).frames, Length(27, exact=90, apart=9).uncut.frames) == (90, 99)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(30.0, Fraction(30)), (24.5, Fraction(49, 2)), (29.97, Fraction(2997, 100)), (30_000 / 1001, Fraction(30_000, 1001)),
     (23.976, Fraction(2997, 125)), (24_000 / 1001, Fraction(24_000, 1001))],
)  # fmt: skip
def test_a_rate_is_the_fraction_that_was_meant(fps, rate):
    assert frame_rate(fps) == rate
