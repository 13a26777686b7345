"""Sections that are clips of their own for the VAE, as Helios' chunks are with Wan's, are decoded one by one."""

from dataclasses import replace

import comfy.sd
import pytest
import torch
from comfy.ldm.wan.vae import WanVAE
from support.stand_ins.write_models import taehv, wan_taehv
from support.threads import one_thread  # noqa: F401 - a fixture
from torch import Tensor

from experiments.benchmarks.decode import hunyuan_vae, psnr, scene_latents
from experiments.benchmarks.live import LiveBytes
from framepack_core.comfyui.decoding import fitting
from framepack_core.comfyui.decoding.stream import LINEAR, decode_video, footage, stream_frames
from framepack_core.comfyui.latent import LENGTH, marked_length
from framepack_core.family import FRAMEPACK
from framepack_core.frames import Length

CHUNK = 9
WAN = replace(FRAMEPACK, name="Helios", apart=True, vae="Wan's VAE")
VAES = ["wan", "tiny"]


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def families(monkeypatch):
    monkeypatch.setattr(fitting, "FAMILIES", (FRAMEPACK, WAN))


def wan_vae(width: int = 8) -> comfy.sd.VAE:
    """Wan 2.1's, narrow, with random weights and pictures within 0..1, as ComfyUI loads it from a file."""
    model = WanVAE(dim=width, z_dim=16, temperal_downsample=[False, True, True]).requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "gamma" in name:
            weight.copy_(torch.ones_like(weight))
        else:
            weight.copy_(noise * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1))
    model.decoder.head[-1].weight.mul_(0.3)
    return comfy.sd.VAE(sd=model.state_dict())


@pytest.fixture(scope="module")
def wan() -> comfy.sd.VAE:
    return wan_vae()


@pytest.fixture(scope="module")
def tiny() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=wan_taehv(seed=5))


def apart(latents: Tensor, **options) -> Length:
    return Length(latents.shape[2], apart=CHUNK, **options)


def alone(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """The reference: ComfyUI decodes each chunk."""
    return torch.cat([vae.decode(chunk)[0] for chunk in latents.split(CHUNK, dim=2)])


def streamed(vae: comfy.sd.VAE, latents: Tensor, **options) -> Tensor:
    return torch.cat(list(stream_frames(vae, latents, **options)))


@pytest.mark.parametrize("frames", [9, 27])
@pytest.mark.parametrize("name", VAES)
def test_each_chunk_is_what_comfyui_makes_of_it_alone(request, name, frames):
    vae, latents = request.getfixturevalue(name), scene_latents(frames, 2, 3)

    found = streamed(vae, latents, length=apart(latents))

    assert found.shape == (33 * frames // 9, 16, 24, 3)
    assert torch.equal(found, alone(vae, latents))
    assert 0.05 < found.std() < 0.5  # frames that are black or white would be equal whatever is decoded


@pytest.mark.parametrize("name", VAES)
def test_decoded_as_one_video_it_is_another(request, name):
    """Whose chunks do not begin with a single frame: the mark decides, and a latent without it is decoded as before."""
    vae, latents = request.getfixturevalue(name), scene_latents(18, 2, 3)

    as_one = streamed(vae, latents)

    assert len(as_one) == 4 * 18 - 3
    assert psnr(as_one, vae.decode(latents)[0]) > 80
    assert psnr(as_one[:66], alone(vae, latents)) < 40


@pytest.mark.parametrize("options", [{"blending": LINEAR}, {"attention_frames": 16}])
def test_blending_and_attention_frames_change_nothing(wan, options):
    latents = scene_latents(27, 2, 3)

    assert torch.equal(streamed(wan, latents, length=apart(latents), **options), alone(wan, latents))


@pytest.mark.parametrize("exact", [1, 33, 65, 97])
def test_a_video_that_is_cut_ends_sooner_with_the_same_frames(tiny, monkeypatch, exact):
    latents, decoded, decode = scene_latents(27, 2, 3), [], tiny.decode
    expected = alone(tiny, latents)[:exact]
    monkeypatch.setattr(tiny, "decode", lambda chunk: decoded.append(chunk.shape[2]) or decode(chunk))

    found = decode_video(tiny, latents, apart(latents, exact=exact))

    assert torch.equal(found, expected)
    assert decoded == [9] * -(-exact // 33)  # what is cut off is not decoded


def test_frames_before_the_video_are_not_decoded(tiny):
    """The still or the clip that it continues; with a still, chunks begin after one latent frame."""
    latents = scene_latents(19, 2, 3)

    found = decode_video(tiny, latents, apart(latents, hidden=1))

    assert torch.equal(found, alone(tiny, latents[:, :, 1:]))


def test_a_chunk_that_was_not_finished_is_shown_as_far_as_it_is(tiny):
    latents = scene_latents(13, 2, 3)

    assert torch.equal(decode_video(tiny, latents, apart(latents)), alone(tiny, latents))


def test_every_video_of_a_batch_is_decoded_chunk_by_chunk(wan):
    latents = torch.cat([scene_latents(18, 2, 3, seed) for seed in (1, 2)])

    found = decode_video(wan, latents, apart(latents))

    assert torch.equal(found, torch.cat([alone(wan, one) for one in latents.split(1)]))
    assert footage(wan, latents, length=apart(latents)).count == len(found) == 132


@pytest.mark.slow
@pytest.mark.parametrize("name", VAES)
def test_the_memory_is_that_of_one_chunk_however_long_the_video(request, name, one_thread):  # noqa: F811 - the fixture
    """Of the chunk before, its frames may still be held."""
    vae, peaks = request.getfixturevalue(name), []
    for chunks in (2, 6):
        latents = scene_latents(CHUNK * chunks, 2, 3)
        with LiveBytes() as live:
            for frames in stream_frames(vae, latents, length=apart(latents)):
                assert len(frames) == 33
        peaks.append(live.peak)

    assert peaks[1] < 1.05 * peaks[0]


# Which VAE


def test_a_vae_of_another_family_is_refused_by_name(wan, tiny):
    latents = scene_latents(9, 4, 4)
    hunyuan, tiny_hunyuan = hunyuan_vae(32), comfy.sd.VAE(sd=taehv(seed=3))

    for vae in (hunyuan, tiny_hunyuan):
        with pytest.raises(ValueError, match="vae is not that of the model that made the latent; load Wan's VAE"):
            footage(vae, latents, length=apart(latents))
    for vae in (wan, tiny):
        with pytest.raises(ValueError, match="vae is not that of the model that made the latent; load HunyuanVideo's VAE"):
            footage(vae, latents, length=Length(9))


def test_a_vae_of_other_channels_is_refused_by_name(tiny):
    video_2_2 = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})

    with pytest.raises(ValueError, match="vae is not that of the model that made the latent; load Wan's VAE"):
        footage(video_2_2, scene_latents(9, 4, 4), length=Length(9, apart=9))


def test_a_latent_from_elsewhere_is_decoded_by_any_vae(wan):
    """Another node has made it, or has cut it or joined it to another since, and its mark does not count."""
    latents = scene_latents(10, 4, 4)
    latent = {"samples": latents, LENGTH: Length(18, apart=9)}

    found = streamed(wan, latents, length=marked_length(latent))

    assert marked_length(latent) is None
    assert marked_length({**latent, "samples": scene_latents(18, 4, 4)}) == latent[LENGTH]
    assert torch.equal(found, wan.decode(latents)[0])
