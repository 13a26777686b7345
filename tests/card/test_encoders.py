"""Texts and images on small cards: ComfyUI's own encoders, whose weights are fetched where they do not fit."""

import comfy.clip_vision
import comfy.ldm.modules.attention
import comfy.model_management
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.hunyuan_video
import pytest
import torch

from experiments.card.card import GB, FakeCard
from experiments.card.models import released_vae
from framepack_core.comfyui.encoding import encode_images

SIGLIP = "clip_vision_siglip_384.json"


@pytest.mark.parametrize("size", [1.5, 3, 8])
def test_the_start_image_is_encoded(size):
    """As a whole or, after running out of memory, in tiles."""
    with FakeCard(size * GB) as card:
        latent = encode_images(released_vae(torch.bfloat16), torch.zeros(1, 608, 640, 3))

    assert latent.shape == (1, 16, 1, 76, 80)
    assert card.memory.peak <= size * GB


@pytest.mark.parametrize("size", [2, 8])
def test_what_the_image_shows_is_encoded(size):
    with FakeCard(size * GB) as card:
        vision = comfy.clip_vision.ClipVisionModel(f"{comfy.__path__[0]}/{SIGLIP}")
        output = vision.encode_image(torch.zeros(1, 608, 640, 3), crop=False)

    assert output["last_hidden_state"].shape == (1, 729, 1152)
    assert not card.memory.refused


@pytest.mark.parametrize("size", [3, 24])
def test_the_prompt_is_encoded(size):
    """Llama with 8 billion parameters in bf16, and CLIP-L."""
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.hunyuan_video.HunyuanVideoTokenizer,
        comfy.text_encoders.hunyuan_video.hunyuan_video_clip(dtype_llama=torch.bfloat16),
    )
    with FakeCard(size * GB) as card:
        clip = comfy.sd.CLIP(target)
        [[text, extra]] = clip.encode_from_tokens_scheduled(clip.tokenize("a dancer in the rain"))

    assert text.shape[2] == 4096 and extra["pooled_output"].shape == (1, 768)
    assert card.memory.peak <= size * GB
    assert not card.memory.refused
