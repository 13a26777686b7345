"""Encoders in a folder of diffusers' layout give what diffusers' pipeline gives."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackPipeline
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_framepack as official
from transformers import AutoTokenizer, CLIPTextModel, LlamaModel, SiglipImageProcessor, SiglipVisionModel

from framepack_core.training import encoders
from framepack_core.training.encoders import Demo, Hunyuan

CAPTIONS = ["", "a cat", "a red circle moves left over a striped background", "long " * 400]


@pytest.fixture(scope="module")
def hunyuan(hunyuan_folder) -> Hunyuan:
    return Hunyuan(hunyuan_folder, hunyuan_folder)


@pytest.fixture(scope="module")
def pipeline(hunyuan_folder) -> HunyuanVideoFramepackPipeline:
    """Diffusers' pipeline around the same encoders."""
    parts = {
        "text_encoder": LlamaModel.from_pretrained(hunyuan_folder / "text_encoder"),
        "tokenizer": AutoTokenizer.from_pretrained(hunyuan_folder / "tokenizer"),
        "text_encoder_2": CLIPTextModel.from_pretrained(hunyuan_folder / "text_encoder_2"),
        "tokenizer_2": AutoTokenizer.from_pretrained(hunyuan_folder / "tokenizer_2"),
        "vae": AutoencoderKLHunyuanVideo.from_pretrained(hunyuan_folder / "vae"),
        "image_encoder": SiglipVisionModel.from_pretrained(hunyuan_folder / "image_encoder"),
        "feature_extractor": SiglipImageProcessor.from_pretrained(hunyuan_folder / "feature_extractor"),
    }
    return HunyuanVideoFramepackPipeline(transformer=None, scheduler=None, **parts)


def frames(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_the_instruction_is_that_of_the_pipeline():
    assert official.DEFAULT_PROMPT_TEMPLATE == {"template": encoders.TEMPLATE, "crop_start": encoders.TEMPLATE_TOKENS}


@pytest.mark.parametrize("caption", CAPTIONS, ids=["empty", "short", "sentence", "too long"])
@torch.inference_mode()
def test_texts_are_the_pipelines_at_their_true_length(hunyuan, pipeline, caption):
    text, pooled = hunyuan.text().encode(caption)

    expected, expected_pooled, mask = pipeline.encode_prompt(caption)
    length = int(mask.sum())
    assert 0 < length <= 256 and mask[0, :length].all()
    assert text.shape == (length, expected.shape[-1])
    torch.testing.assert_close(text, expected[0, :length], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, expected_pooled[0], atol=1e-5, rtol=1e-5)


def test_different_captions_have_different_embeddings(hunyuan):
    (text, pooled), (other, other_pooled) = map(hunyuan.text().encode, ("a cat", "a dog"))

    assert text.shape == other.shape and not torch.allclose(text, other)
    assert not torch.allclose(pooled, other_pooled)


@pytest.mark.parametrize("count", [1, 9, 21], ids=["image", "3 latents", "more than the VAE takes at once"])
@torch.inference_mode()
def test_latents_are_the_vaes_in_model_space(hunyuan, pipeline, count):
    pixels = frames(count)

    latents = hunyuan.pictures().latents(pixels)

    video = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None] / 127.5 - 1
    first, expected = (pipeline.vae.encode(part).latent_dist.mean[0] * 0.476986 for part in (video[:, :, :1], video))
    assert latents.shape == (16, (count + 3) // 4, 4, 6)
    torch.testing.assert_close(latents[:, :1], first)
    torch.testing.assert_close(latents[:, 1:], expected[:, 1:])


@torch.inference_mode()
def test_tiles_take_less_at_once_and_change_little(hunyuan_folder):
    pixels = np.repeat(np.repeat(frames(1, 5, 4), 64, axis=1), 64, axis=2)
    whole, tiled = (Hunyuan(hunyuan_folder, None, tiled=tiled).pictures() for tiled in (False, True))

    assert tiled.vae.use_tiling and not whole.vae.use_tiling
    a, b = whole.latents(pixels), tiled.latents(pixels)
    assert a.shape == b.shape and not torch.equal(a, b)


@torch.inference_mode()
def test_images_are_the_pipelines_and_not_cropped(hunyuan, pipeline):
    across, down = np.meshgrid(np.linspace(0, 200, 48), np.linspace(0, 250, 32))
    pixels = np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)

    image = hunyuan.pictures().image(pixels)

    expected = pipeline.encode_image(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    torch.testing.assert_close(image, expected, atol=2e-2, rtol=2e-2)  # the pipeline resizes without rounding to 8 bits
    processed = SiglipImageProcessor(size={"height": 28, "width": 28})(images=pixels, return_tensors="pt").pixel_values
    torch.testing.assert_close(image, pipeline.image_encoder(processed).last_hidden_state[0])


def test_there_is_no_image_without_a_vision_encoder(hunyuan_folder):
    assert Hunyuan(hunyuan_folder, None).pictures().image(frames(1)[0]) is None


def test_precision_is_that_asked_for(hunyuan_folder):
    encoder = Hunyuan(hunyuan_folder, hunyuan_folder, dtype=torch.bfloat16).pictures()

    assert encoder.latents(frames(1)).dtype == encoder.image(frames(1)[0]).dtype == torch.bfloat16


def test_missing_folders_are_named_with_where_they_are_from(tmp_path, hunyuan_folder):
    with pytest.raises(FileNotFoundError, match=r"lacks text_encoder, .*vae; download .*hunyuanvideo-community/HunyuanVideo"):
        Hunyuan(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=r"lacks image_encoder, feature_extractor; download .*flux_redux_bfl"):
        Hunyuan(hunyuan_folder, tmp_path)


def test_a_folder_of_another_model_is_said(tmp_path, hunyuan_folder):
    for part in encoders.HUNYUAN_FOLDERS:
        (tmp_path / part).symlink_to(hunyuan_folder / part)
    (tmp_path / "vae").unlink()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({}))

    with pytest.raises((ValueError, OSError), match=r"vae"):
        Hunyuan(tmp_path, None).pictures()


def test_the_demos_encoders_give_what_its_model_sees(demo_folder):
    demo = Demo(demo_folder)
    pixels = frames(9, 128, 128)

    text, pooled = demo.text().encode("a red circle moves left")
    pictures = demo.pictures()

    assert text.shape == (24, 128) and pooled.shape == (768,)
    latents = pictures.latents(pixels)
    assert latents.shape == (16, 3, 16, 16)
    video = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(latents, 0.476986 * pictures.vae.encode(video)[0])
    torch.testing.assert_close(latents[:, :1], pictures.latents(pixels[:1]), atol=1e-5, rtol=1e-5)
    assert pictures.image(pixels[0]).shape == (16, 128)


def test_the_demos_image_is_resized_as_comfyui_does(demo_folder, monkeypatch):
    """A picture of 64 x 64 is used as it is, a larger one resized by bicubic interpolation with antialiasing, in 8 bits."""
    seen = []
    pictures = Demo(demo_folder).pictures()
    monkeypatch.setattr(pictures, "vision", lambda image: (seen.append(image), image)[1])

    small, large = frames(1, 64, 64)[0], frames(1, 128, 96)[0]
    pictures.image(small)
    pictures.image(large)

    torch.testing.assert_close(seen[0][0], torch.from_numpy(small).permute(2, 0, 1) / 127.5 - 1)
    assert seen[1].shape == (1, 3, 64, 64)
    levels = (seen[1] + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_words_that_the_demo_does_not_know_are_logged(demo_folder, caplog):
    Demo(demo_folder).text().encode("a zebra moves left")

    assert "does not know zebra in 'a zebra moves left'" in caplog.text


def test_missing_weights_of_the_demo_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"demo_text\.safetensors is missing"):
        Demo(tmp_path)
