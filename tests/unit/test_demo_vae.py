"""The demo's video autoencoder: HunyuanVideo's compression, causal in time."""

from __future__ import annotations

import pytest
import torch

from framepack_core.demo.vae import DemoVAE, to_depth, to_space


@pytest.fixture(scope="module")
def vae() -> DemoVAE:
    torch.manual_seed(0)
    return DemoVAE().eval().requires_grad_(False)


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(1, 3, 13, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_four_frames_and_8_by_8_pixels_become_one_latent_and_the_first_frame_stands_alone(vae, video):
    latents = vae.encode(video)

    assert latents.shape == (1, 16, 4, 4, 6)
    assert vae.decode(latents).shape == video.shape
    assert vae.encode(video[:, :, :1]).shape == (1, 16, 1, 4, 6)


def test_frames_beyond_a_multiple_of_four_and_one_are_left_out(vae, video):
    torch.testing.assert_close(vae.encode(video[:, :, :12]), vae.encode(video[:, :, :9]))


def test_encoding_and_decoding_are_causal(vae, video):
    latents = vae.encode(video)

    torch.testing.assert_close(vae.encode(video[:, :, :5]), latents[:, :, :2])
    torch.testing.assert_close(vae.decode(latents[:, :, :2]), vae.decode(latents)[:, :, :5])
    changed = latents.clone()
    changed[:, :, 1] += 1
    assert not torch.allclose(vae.decode(changed)[:, :, 9:], vae.decode(latents)[:, :, 9:])  # it does look back


def test_a_single_picture_has_the_same_latent_as_the_video_that_begins_with_it(vae, video):
    torch.testing.assert_close(vae.encode(video[:, :, :1]), vae.encode(video)[:, :, :1])


def test_space_to_depth_is_inverted_exactly(video):
    pixels = video[:, :, :12]

    assert torch.equal(to_space(to_depth(pixels)), pixels)
    assert torch.equal(to_depth(pixels)[0, :, 0, 0, 0], pixels[0, :, :4, :8, :8].flatten())


def test_a_size_that_eight_does_not_divide_is_refused(vae):
    with pytest.raises(ValueError, match="multiples of 8 pixels, not 30x32"):
        vae.encode(torch.zeros(1, 3, 1, 32, 30))
