"""Helios videos of a real server, through the nodes of its templates, equal diffusers' pipelines in float32 on a CPU."""

from pathlib import Path

import comfy.sd
import comfy.utils
import numpy
import pytest
import torch
from comfy.latent_formats import Wan21
from PIL import Image
from safetensors.torch import load_file
from support.helios import small_helios
from support.helios_pipelines import Inputs, oracle_video
from support.helios_prompt import Nodes, prompt
from support.ours import relative_error
from support.stand_ins.framepack_stand_ins import WanTarget, text_encoder
from support.stand_ins.prompt import HELIOS, WAN_VAE

from framepack_core.comfyui.chunked import encode_clip, encode_still
from framepack_core.comfyui.encoding import encode_images, fit_image
from framepack_core.helios.recipes import RECIPES
from scripts.support.server import Server

pytestmark = pytest.mark.server

PICTURE = Path(__file__).parents[1] / "support" / "stand_ins" / "start_image.png"
SEED, CHUNKS = 7, 2
SIZE = 128  # pixels: on the coarsest stage of 64, diffusers' cfg of Mid fails
GAMMA = RECIPES["mid"].gamma
STEPS = {"Base": 4, "Mid": 6, "Distilled": 6}
WORDS, UNWANTED = "A cat walks", "blurred"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def inputs(models_directory) -> Inputs:
    """What the server's nodes make of the picture and the words, made here of the same stand-ins."""
    weights = comfy.utils.load_torch_file(str(models_directory / "vae" / WAN_VAE))
    vae, clip = comfy.sd.VAE(sd=weights), text_encoder(WanTarget)
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(words))[0][0] for words in (WORDS, UNWANTED)]
    pixels = numpy.asarray(Image.open(PICTURE).convert("RGB"), dtype=numpy.float32) / 255
    image = fit_image(torch.from_numpy(pixels)[None], SIZE, 64)
    latents = encode_images(vae, image), encode_still(vae, image), encode_clip(vae, image.expand(33, -1, -1, -1))
    return Inputs(*(text.float() for text in texts), *map(Wan21().process_in, latents))


@pytest.fixture
def exact_factor(monkeypatch):
    """diffusers factors the covariance of the noise between stages in float32, where the released one is not definite."""
    factor = torch.linalg.cholesky

    def in_float64(covariance: torch.Tensor) -> torch.Tensor:
        exact = (1 + GAMMA) * torch.eye(4, dtype=torch.float64) - GAMMA
        assert torch.allclose(covariance.double(), exact, atol=1e-6)
        return factor(exact + 1e-14 * torch.eye(4)).float()

    monkeypatch.setattr(torch.linalg, "cholesky", in_float64)


def diffusers(variant: str, mode: str, inputs: Inputs) -> torch.Tensor:
    """All latents that are made."""
    transformer = small_helios(seed=5 + list(HELIOS).index(variant), text_dim=4096)
    recipe = RECIPES[variant.lower()]
    steps = STEPS[variant] // recipe.stages
    video = oracle_video(transformer, recipe.name, inputs, mode, CHUNKS, steps=steps, seed=SEED, gamma=GAMMA)
    return video[:, :, -9 * CHUNKS :]


def ours(server: Server, start_image: str, variant: str, mode: str) -> torch.Tensor:
    loaded = {"model_name": f"Helios-{variant}.safetensors", "weight_dtype": "default"}
    nodes: Nodes = {
        "model": ("FramePack_LoadModel", loaded),
        "unwanted": ("CLIPTextEncode", {"clip": ["clip", 0], "text": UNWANTED}),
    }
    asked = {"seed": SEED, "steps": STEPS[variant], "cfg": RECIPES[variant.lower()].cfg, "negative": ["unwanted", 0]}

    entry = server.run(prompt(start_image, mode, others=nodes, size=SIZE, **asked))

    (saved,) = (file for file in server.output_files(entry) if file.suffix == ".latent")
    return Wan21().process_in(load_file(saved)["latent_tensor"])


@pytest.mark.parametrize(
    ("variant", "mode"),
    [
        ("Base", "text"),
        ("Base", "image"),
        ("Base", "clip"),
        ("Mid", "text"),
        ("Mid", "image"),
        ("Distilled", "text"),
        ("Distilled", "image"),
        ("Distilled", "clip"),
    ],
)
def test_a_video_of_a_real_server_equals_diffusers(server: Server, start_image, inputs, exact_factor, variant, mode):
    expected = diffusers(variant, mode, inputs)

    found = ours(server, start_image, variant, mode)

    assert relative_error(found, expected) < TOLERANCE
