"""The demo's models as ComfyUI's own objects: MODEL, CLIP, VAE and CLIP_VISION.

The encoders and the VAE are plain torch modules. The encoders stay on the CPU, where they take milliseconds; the VAE is always
loaded whole.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ..demo.scenes import UNSEEN, picture
from ..demo.text import PAD, TOKENS, TextEncoder, Tokenizer
from ..demo.vae import CHANNELS, PATCH, SCALE, DemoVAE
from ..demo.vision import IMAGE_SIZE, VisionEncoder
from ..demo.world import Scene
from ..frames import PIXEL_FRAMES, latent_frames, pixel_frames
from . import private
from .loading.checkpoints import load_path, read_checkpoint

private.require_for(private.DEMO)

log = logging.getLogger("framepack")

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS = Path(__file__).resolve().parents[1] / "demo" / "weights"
TRANSFORMER, VAE, TEXT, VISION = (f"demo_{part}.safetensors" for part in ("transformer", "vae", "text", "vision"))
REMEDY = (
    "the demo's files come with the pack: install it again, or run `git checkout -- framepack_core/demo/weights` in its folder"
)

CPU = torch.device("cpu")

# Numbers that the VAE keeps at once per latent pixel, as tests/comfyui/test_demo.py measures, plus some for workspace.
VAE_NUMBERS = 3072


def load_demo() -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE, comfy.clip_vision.ClipVisionModel]:
    """All four models. Raises ValueError for a file that is missing, damaged or from another version of the pack."""
    try:
        return load_transformer(str(weights_file(TRANSFORMER))), load_clip(), load_vae(), load_vision()
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDY}") from error


# Transformer


class DemoLatents(private.HunyuanVideoLatents):
    """HunyuanVideo's scale and, for previews, the colours that the demo VAE's channels stand for."""

    taesd_decoder_name = None

    def __init__(self, colours: Tensor) -> None:
        self.latent_rgb_factors, self.latent_rgb_factors_bias = colours[:-1].tolist(), colours[-1].tolist()


def load_transformer(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    patcher = load_path(path, {}, disable_dynamic=disable_dynamic)
    patcher.model.latent_format = DemoLatents(latent_colours(fill(DemoVAE(), VAE)))
    patcher.cached_patcher_init = (load_transformer, (path,))
    return patcher


@torch.inference_mode()
def latent_colours(vae: DemoVAE, scenes: int = 8) -> Tensor:
    """`17 3`: the best linear map from a latent at the model's scale, followed by a 1, to the mean of its pixels in -1..1."""
    pixels = torch.cat([picture(Scene.draw(UNSEEN + seed)) for seed in range(scenes)]).movedim(-1, 1)[:, :, None] * 2 - 1
    latents = (vae.encode(pixels) * SCALE).movedim(1, -1).flatten(0, -2)
    means = nn.functional.avg_pool3d(pixels, (1, PATCH, PATCH)).movedim(1, -1).flatten(0, -2)
    return torch.linalg.lstsq(torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1), means).solution


# Text


class WordTokenizer:
    """A text as `TOKENS` word ids with ComfyUI's weights, `(red:1.2)`. Logs unknown words and texts that are too long."""

    def __init__(self, embedding_directory=None, tokenizer_data: dict | None = None) -> None:
        self.words = Tokenizer()

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict[str, list[list[tuple]]]:
        pairs, unknown = [], []
        for part, weight in private.token_weights(private.escape_important(text), 1.0):
            for word in private.unescape_important(part).split():
                ids, strange = self.words.encode(word)
                pairs += [(number, weight) for number in ids if number != self.pad]
                unknown += strange
        self.report(text, unknown, len(pairs))
        pairs = (pairs + [(self.pad, 1.0)] * TOKENS)[:TOKENS]
        if return_word_ids:
            pairs = [(*pair, place + 1) for place, pair in enumerate(pairs)]
        return {"words": [pairs]}

    def report(self, text: str, unknown: list[str], count: int) -> None:
        if unknown:
            known = " ".join(word for word in self.words.words if word.isalpha())
            log.warning(
                "FramePack: the demo does not know %s; its words are: %s", ", ".join(map(repr, dict.fromkeys(unknown))), known
            )
        if count > TOKENS:
            log.warning("FramePack: the demo reads the first %d words of %r, which has %d", TOKENS, text, count)

    @property
    def pad(self) -> int:
        return self.words.words.index(PAD)

    def untokenize(self, pairs: list[tuple]) -> list[tuple]:
        return [(pair, self.words.words[pair[0]]) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class TextModel(nn.Module, private.ClipTokenWeightEncoder):
    """The text encoder as `comfy.sd.CLIP` calls it; weights scale a word's distance from the empty text."""

    disable_offload = True

    def __init__(self, dtype=None, device=None, model_options: dict | None = None) -> None:
        super().__init__()
        self.encoder = TextEncoder().to(device, dtype)
        self.dtypes = {dtype}
        self.special_tokens = {"pad": WordTokenizer().pad}

    def encode_token_weights(self, tokens: dict) -> tuple[Tensor, Tensor]:
        return super().encode_token_weights(tokens["words"])

    def encode(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        return self.encoder(torch.tensor(ids))

    def set_clip_options(self, options: dict) -> None:
        """There are no layers to stop at."""

    def reset_clip_options(self) -> None:
        pass


class ClipTarget:
    """What comfy.sd.CLIP needs to know about a text encoder."""

    params = {}
    clip = TextModel
    tokenizer = WordTokenizer


def load_clip() -> comfy.sd.CLIP:
    options = {"dtype": torch.float32, "load_device": CPU, "offload_device": CPU, "initial_device": CPU}
    clip = private.CLIP(ClipTarget, model_options=options)
    fill(clip.cond_stage_model.encoder, TEXT)
    return reloadable(clip, load_clip)


# Video


def load_vae() -> comfy.sd.VAE:
    """Built as ComfyUI's smallest VAE, which then gets the demo's network and its sizes."""
    vae = private.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    vae.first_stage_model = fill(DemoVAE(), VAE)
    vae.latent_dim, vae.latent_channels = 3, CHANNELS
    vae.upscale_ratio = (lambda latents: max(0, pixel_frames(latents)), PATCH, PATCH)
    vae.downscale_ratio = (lambda frames: latent_shape(frames, 0, 0)[0], PATCH, PATCH)
    vae.upscale_index_formula = vae.downscale_index_formula = (PIXEL_FRAMES, PATCH, PATCH)
    vae.memory_used_decode = lambda shape, dtype: VAE_NUMBERS * math.prod(shape[2:]) * dtype.itemsize
    vae.memory_used_encode = lambda shape, dtype: vae.memory_used_decode((1, CHANNELS, *latent_shape(*shape[2:])), dtype)
    vae.working_dtypes = [torch.float32]
    vae.vae_dtype = comfy.model_management.vae_dtype(vae.device, vae.working_dtypes)
    vae.first_stage_model.to(vae.vae_dtype)
    vae.disable_offload = True
    offload = comfy.model_management.vae_offload_device()
    vae.patcher = private.ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=offload)
    vae.size = None
    vae.model_size()
    return reloadable(vae, load_vae)


def latent_shape(frames: int, height: int, width: int) -> tuple[int, int, int]:
    return latent_frames(frames), height // PATCH, width // PATCH


# Images


HALF = [0.5, 0.5, 0.5]
SMALLEST_CLIP = {
    "model_type": "clip_vision_model",
    "num_hidden_layers": 1,
    "hidden_size": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "num_channels": 3,
    "patch_size": IMAGE_SIZE,
    "hidden_act": "gelu",
}


class VisionModel(nn.Module):
    """The vision encoder as `ClipVisionModel` calls it: last and penultimate hidden states, pooled, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = VisionEncoder()

    def forward(self, pixel_values: Tensor, intermediate_output=None) -> tuple[Tensor, Tensor, Tensor, None]:
        tokens = self.encoder(pixel_values)
        return tokens, tokens, tokens.mean(dim=1), None


def load_vision() -> comfy.clip_vision.ClipVisionModel:
    """Built as a minimal ClipVisionModel, which then gets the demo's network."""
    vision = private.ClipVisionModel(SMALLEST_CLIP | {"image_size": IMAGE_SIZE, "image_mean": HALF, "image_std": HALF})
    vision.model = VisionModel()
    fill(vision.model.encoder, VISION)
    vision.load_device, vision.dtype = CPU, torch.float32
    vision.patcher = private.ModelPatcher(vision.model, load_device=CPU, offload_device=CPU)
    return reloadable(vision, load_vision)


# Files


def fill(module: Module, name: str) -> Module:
    """The module with a file's weights, in its own precision. Raises ValueError if they do not fit."""
    weights, _ = read_checkpoint(weights_file(name))
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{name} does not fit this version of the pack ({error})") from error
    return module.requires_grad_(False).eval()


def weights_file(name: str) -> Path:
    if not (WEIGHTS / name).is_file():
        raise ValueError(f"{name} is missing in {WEIGHTS}")
    return WEIGHTS / name


def reloadable(owner, load: Callable):
    """The owner, with what ComfyUI needs to load the same model a second time for another device."""
    owner.patcher.cached_patcher_init = (_patcher_of, (load,))
    return owner


def _patcher_of(load: Callable, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load().patcher
