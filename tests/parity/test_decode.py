"""A video decoded in a stream is the video that ComfyUI decodes at once, and where it cannot be, cuts do not show."""

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.ldm.wan.vae import WanVAE
from framepack.framepack_core.comfyui import demo
from framepack.framepack_core.comfyui.decode import LINEAR, stream_frames
from framepack.framepack_core.comfyui.middle import Middle, whole_middle
from torch import Tensor

from scripts.benchmarks.decode import border_pairs, frame_steps, hunyuan_vae, psnr, scene_latents, tiled
from scripts.benchmarks.live import LiveBytes
from scripts.stand_ins.write_models import taehv

NARROW = 32


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def hunyuan() -> comfy.sd.VAE:
    return hunyuan_vae(NARROW)


@pytest.fixture(scope="module")
def tiny() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=taehv(seed=3))


@pytest.fixture(scope="module")
def demo_vae() -> comfy.sd.VAE:
    return demo.load_vae()


def streamed(vae: comfy.sd.VAE, latents: Tensor, **options) -> Tensor:
    return torch.cat(list(stream_frames(vae, latents, **options)))


# HunyuanVideo


@pytest.mark.parametrize("frames", [1, 2, 3, 10])
def test_hunyuan_video_is_decoded_as_comfyui_does_it(hunyuan, frames):
    latents = scene_latents(frames, 4, 6)

    found = streamed(hunyuan, latents)

    assert found.shape == (4 * frames - 3, 32, 48, 3)
    assert psnr(found, hunyuan.decode(latents)[0]) > 80


def test_the_released_widths_are_decoded_as_comfyui_does_it():
    vae, latents = hunyuan_vae(), scene_latents(5, 2, 2)

    assert psnr(streamed(vae, latents), vae.decode(latents)[0]) > 60


@pytest.mark.parametrize("frames", [11, 12])
def test_chunk_by_chunk_the_middle_block_is_exact_with_all_keys(hunyuan, frames):
    decoder, latents = hunyuan.first_stage_model.decoder, scene_latents(frames, 4, 6)
    chunks = latents.split(2, dim=2)

    found = torch.cat(list(Middle(decoder, lambda: iter(chunks), len(chunks), keys=len(chunks))), dim=2)

    expected = whole_middle(decoder, latents)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("attention", ["wide", "peaked", "alike"])
def test_beyond_its_budget_it_is_nearer_to_the_whole_than_blends_and_tiles_are(attention):
    """All see 18 latent frames at once."""
    vae, latents = hunyuan_vae(NARROW, attention), scene_latents(46, 4, 4)
    whole = vae.decode(latents)[0]

    ours, *others = (
        psnr(frames, whole)
        for frames in (
            streamed(vae, latents, attention_frames=18),
            streamed(vae, latents, blending=LINEAR),
            tiled(vae, latents),
        )
    )

    assert ours > max(others) + 3
