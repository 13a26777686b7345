"""The demo's plain torch modules inside ComfyUI's objects: the same numbers, ComfyUI's conventions, checked files."""

import logging
import shutil

import comfy.model_management
import pytest
import torch
from safetensors.torch import load_file

import nodes
from experiments.benchmarks.live import LiveBytes
from framepack_core.comfyui import demo
from framepack_core.comfyui.encoding import fit_image
from framepack_core.comfyui.model.framepack import FramePackModel
from framepack_core.demo.text import TextEncoder, Tokenizer
from framepack_core.demo.vae import SCALE, DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene

FILES = ("demo_transformer.safetensors", "demo_vae.safetensors", "demo_text.safetensors", "demo_vision.safetensors")


@pytest.fixture(scope="module")
def loaded():
    return demo.load_demo()


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


@pytest.fixture(scope="module")
def clip(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def vae(loaded):
    return loaded[2]


@pytest.fixture(scope="module")
def vision(loaded):
    return loaded[3]


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


def plain(module: torch.nn.Module, name: str) -> torch.nn.Module:
    module.load_state_dict(load_file(demo.WEIGHTS / name))
    return module.eval()


def video(frames: int, seed: int = 0) -> torch.Tensor:
    """Images `N H W C` in 0..1."""
    return torch.from_numpy(Scene.draw(seed).render(frames)) / 255


# MODEL


def test_the_model_is_framepack_and_says_what_it_was_trained_with(model):
    assert isinstance(model.model, FramePackModel)
    assert model.model.trained.orders == ("inverted", "forward", "endpoints")
    assert {"framepack", "f1", "endpoints", "geometric"} <= set(model.model.trained.layouts)


def test_the_files_are_small():
    assert sum((demo.WEIGHTS / name).stat().st_size for name in FILES) <= 40e6


def test_previews_have_the_colours_of_the_picture(model):
    """For scenes that the colours were not fitted to."""
    colours = torch.tensor([*model.model.latent_format.latent_rgb_factors, model.model.latent_format.latent_rgb_factors_bias])
    pixels = torch.cat([video(1, seed) for seed in range(20)]).movedim(-1, 1)[:, :, None] * 2 - 1
    latents = plain(DemoVAE(), FILES[1]).encode(pixels) * SCALE

    found = latents.movedim(1, -1) @ colours[:-1] + colours[-1]

    expected = torch.nn.functional.avg_pool3d(pixels, (1, 8, 8)).movedim(1, -1)
    assert (found - expected).pow(2).mean() < 0.25 * expected.flatten(0, -2).var(dim=0).mean()


# CLIP


def encode(clip, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    ((cond, pooled),) = nodes.CLIPTextEncode().encode(clip, text)[0]
    return cond, pooled["pooled_output"]


@pytest.mark.parametrize("text", ["A red star moves left, on a striped background.", ""])
def test_the_text_is_what_the_encoder_gives(clip, text):
    expected = plain(TextEncoder(), FILES[2])(Tokenizer().batch([text]))

    for found, wanted in zip(encode(clip, text), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_weight_changes_its_words_and_no_others(clip):
    even, _ = encode(clip, "a red star moves left")
    weighted, _ = encode(clip, "a (red:1.5) star moves left")

    assert (weighted - even).abs().amax(dim=-1)[0].nonzero().flatten().tolist() == [1]


def test_nested_and_escaped_parentheses_are_read(clip):
    plain_text = encode(clip, "red star")[0]

    assert torch.equal(encode(clip, "(red:1.0) (star:1.0)")[0], plain_text)
    assert not torch.equal(encode(clip, "((red) star)")[0], plain_text)
    assert encode(clip, r"\(red\) (star")[0].isfinite().all()


def test_unknown_words_are_named_with_those_that_are_known(clip, caplog):
    with caplog.at_level(logging.WARNING):
        encode(clip, "the girl dances left, the girl waves")

    assert "does not know 'girl', 'dances', 'waves'; its words are: a an and around" in caplog.text


def test_a_text_that_is_too_long_is_cut_with_a_warning(clip, caplog):
    known = "a red star moves left and a blue cross moves right on a striped background " * 2

    with caplog.at_level(logging.WARNING):
        text, _ = encode(clip, known)

    assert text.shape == (1, 24, 128) and "reads the first 24 words" in caplog.text


@pytest.mark.parametrize("text", ["a red star", "", "  ", "a (red:1.2) star."])
def test_known_words_cause_no_warning(clip, caplog, text):
    with caplog.at_level(logging.WARNING):
        encode(clip, text)

    assert not caplog.records


# VAE


def test_an_image_becomes_one_latent_frame_and_comes_back(vae):
    image = video(1)

    latent = nodes.VAEEncode().encode(vae, image)[0]["samples"]

    assert latent.shape == (1, 16, 1, 16, 16)
    assert torch.equal(latent, plain(DemoVAE(), FILES[1]).encode(image.movedim(-1, 0)[None] * 2 - 1))
    assert psnr(nodes.VAEDecode().decode(vae, {"samples": latent})[0], image) > 25


@pytest.mark.parametrize(("frames", "latents"), [(33, 9), (34, 9), (5, 2)])
def test_a_batch_of_images_is_a_video(vae, frames, latents):
    images = video(frames)

    latent = nodes.VAEEncode().encode(vae, images)[0]["samples"]
    decoded = nodes.VAEDecode().decode(vae, {"samples": latent})[0]

    assert latent.shape == (1, 16, latents, 16, 16)
    assert decoded.shape == (4 * latents - 3, 128, 128, 3) and decoded.min() >= 0 and decoded.max() <= 1
    assert psnr(decoded, images[: len(decoded)]) > 25


def test_a_frame_knows_nothing_of_later_ones(vae):
    images = video(33)

    whole, start = (nodes.VAEEncode().encode(vae, part)[0]["samples"] for part in (images, images[:17]))

    assert torch.allclose(whole[:, :, :5], start, atol=1e-4)


def test_tiles_give_nearly_the_same(vae):
    images = video(33)
    latent = nodes.VAEEncode().encode(vae, images)[0]
    settings = {"tile_size": 96, "overlap": 24, "temporal_size": 64, "temporal_overlap": 8}

    tiled = nodes.VAEEncodeTiled().encode(vae, images, **settings)[0]["samples"]
    decoded = nodes.VAEDecodeTiled().decode(vae, latent, **settings)[0]

    assert (tiled - latent["samples"]).norm() < 0.2 * latent["samples"].norm()
    assert psnr(decoded, nodes.VAEDecode().decode(vae, latent)[0]) > 28


def test_other_sizes_are_cropped_to_multiples_of_eight(vae):
    image = torch.rand(1, 100, 70, 4)

    assert nodes.VAEEncode().encode(vae, image)[0]["samples"].shape == (1, 16, 1, 12, 8)


def test_comfyui_knows_the_sizes(vae):
    assert (vae.spacial_compression_encode(), vae.spacial_compression_decode(), vae.temporal_compression_decode()) == (8, 8, 4)
    assert vae.size == sum(weight.nbytes for weight in vae.first_stage_model.state_dict().values())


@pytest.mark.parametrize("frames", [1, 9, 37])
def test_the_vae_s_estimates_cover_a_call(vae, frames):
    """The estimate is no less than a call takes, and no more than twice as much."""
    pixels, latents = (1, 3, 4 * frames - 3, 128, 192), (1, 16, frames, 16, 24)
    network = DemoVAE().to("meta")
    calls = [(network.encode, pixels, vae.memory_used_encode), (network.decode, latents, vae.memory_used_decode)]

    for call, shape, estimate in calls:
        given = torch.empty(shape, device="meta")
        with LiveBytes() as live:
            call(given)
        assert 1.0 < estimate(shape, torch.float32) / live.peak < 2.0


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (-10 * (found - expected).pow(2).mean().log10()).item()


def test_an_image_of_a_trained_size_reaches_the_vae_as_it_is():
    image = video(1)

    assert torch.equal(fit_image(image, 128), image)
    assert fit_image(torch.rand(1, 100, 300, 4), 128).shape == (1, 96, 192, 3)


# CLIP_VISION


def test_the_image_is_squeezed_without_cropping(vision):
    image = video(1)[:, :, 16:112]  # taller than wide

    found = nodes.CLIPVisionEncode().encode(vision, image, "none")[0]

    small = torch.nn.functional.interpolate(image.movedim(-1, 1), (64, 64), mode="bicubic", antialias=True)
    small = (small * 255).clamp(0, 255).round() / 255
    expected = plain(VisionEncoder(), FILES[3])(small * 2 - 1)
    assert torch.allclose(found["last_hidden_state"], expected, atol=1e-5)


def test_a_cropped_image_is_another_embedding(vision):
    image = video(1)[:, :, 16:112]

    whole, cropped = (nodes.CLIPVisionEncode().encode(vision, image, crop)[0] for crop in ("none", "center"))

    assert whole["last_hidden_state"].shape == cropped["last_hidden_state"].shape == (1, 16, 128)
    assert not torch.allclose(whole["last_hidden_state"], cropped["last_hidden_state"], atol=1e-2)


# Model management


def test_encoders_stay_on_the_cpu_and_all_can_be_loaded_again(loaded):
    """ComfyUI does so for a second device."""
    model, clip, vae, vision = loaded

    assert clip.patcher.load_device == vision.patcher.load_device == torch.device("cpu")
    for patcher in (model, clip.patcher, vae.patcher, vision.patcher):
        again = patcher.deepclone_multigpu()
        assert again.model is not patcher.model
        for name, weight in patcher.model.state_dict().items():
            assert torch.equal(weight, again.model.state_dict()[name])


def test_unloading_everything_leaves_them_usable(clip, vae):
    before = encode(clip, "a red star")[0]
    comfy.model_management.unload_all_models()

    assert torch.equal(encode(clip, "a red star")[0], before)
    assert vae.encode(video(1)).isfinite().all()


# Files


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A copy of the weights that the demo loads from."""
    folder = tmp_path / "weights"
    shutil.copytree(demo.WEIGHTS, folder)
    monkeypatch.setattr(demo, "WEIGHTS", folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_remedy(weights, name):
    (weights / name).unlink()

    with pytest.raises(ValueError, match=f"{name} is missing in .*; the demo's files come with the pack: install it again"):
        demo.load_demo()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_the_remedy(weights, name):
    whole = (weights / name).read_bytes()
    (weights / name).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ValueError, match=f"{name} cannot be read: it is damaged.*; the demo's files come with the pack"):
        demo.load_demo()


@pytest.mark.parametrize(("name", "other"), [(FILES[1], FILES[2]), (FILES[2], FILES[3]), (FILES[3], FILES[1])])
def test_a_file_of_something_else_is_named_with_the_remedy(weights, name, other):
    shutil.copy(weights / other, weights / name)

    with pytest.raises(ValueError, match=f"(?s){name} does not fit this version of the pack.*; the demo's files come with"):
        demo.load_demo()
