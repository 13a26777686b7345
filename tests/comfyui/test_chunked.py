"""Stills and clips that a Helios video begins after, encoded with Wan's VAE as diffusers' pipelines encode them."""

import comfy.sd
import pytest
import torch
from support.stand_ins.write_models import taehv, wan_taehv
from support.threads import one_thread  # noqa: F401 - a fixture

from framepack_core.comfyui.chunked import encode_still, in_chunks
from framepack_core.comfyui.encoding import fit_image
from framepack_core.comfyui.placing import Picture, place
from framepack_core.placing import Frames

SIZE = 64  # pixels


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def wan() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=wan_taehv(seed=5))


@pytest.fixture(scope="module")
def hunyuan() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=taehv(seed=5))


def clip(frames: int) -> torch.Tensor:
    return torch.rand(frames, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))


def placed(vae, images: torch.Tensor, fps: float = 24.0):
    frames, used = place(Picture(images, "start", "fixed", fps=fps), Frames(fps=24.0), vae, None, SIZE)
    return frames.placed[0], used


def test_the_vae_says_how_its_model_s_videos_begin(wan, hunyuan):
    assert (in_chunks(wan), in_chunks(hunyuan)) == (True, False)


def test_a_still_is_the_last_latent_frame_of_33_pictures_and_the_picture_alone(wan):
    found, used = placed(wan, clip(1))

    assert torch.equal(found.latents, wan.encode(clip(1).expand(33, -1, -1, -1))[:, :, -1:])
    assert torch.equal(found.picture, wan.encode(clip(1)))
    assert torch.equal(found.latents, encode_still(wan, clip(1)))
    assert found.apart
    assert torch.equal(used, clip(1))


@pytest.mark.parametrize(("frames", "begins", "chunks"), [(33, 0, 1), (70, 4, 2), (140, 41, 3)])
def test_a_clip_is_its_last_chunks_each_encoded_alone_and_its_very_first_frame(wan, frames, begins, chunks):
    images = clip(frames)

    found, used = placed(wan, images)

    expected = [wan.encode(images[start : start + 33]) for start in range(begins, frames, 33)]
    assert torch.equal(found.latents, torch.cat(expected, dim=2))
    assert found.length == 9 * chunks
    assert torch.equal(found.picture, wan.encode(images[:1]))
    assert torch.equal(used, images[begins:])


def test_frames_count_at_the_video_s_rate(wan):
    with pytest.raises(ValueError, match="the clip has 30 frames"):
        placed(wan, clip(60), fps=48.0)


def test_a_clip_shorter_than_a_chunk_is_refused(wan):
    with pytest.raises(ValueError, match="the clip has 32 frames, but Helios continues clips of 33 frames or more"):
        placed(wan, clip(32))


def test_other_vaes_encode_as_before(hunyuan):
    found, used = placed(hunyuan, clip(40))

    assert torch.equal(found.latents, hunyuan.encode(clip(40)[-37:]))
    assert not found.apart
    assert len(used) == 37


def test_sizes_can_be_halved_twice():
    assert fit_image(torch.rand(1, 720, 1280, 3), 480, 64).shape == (1, 384, 640, 3)
    assert fit_image(torch.rand(1, 720, 1280, 3), 640).shape == (1, 480, 832, 3)
