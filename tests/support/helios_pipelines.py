"""diffusers' Helios as an oracle: a small transformer with sharp random weights, and the pipelines on given embeddings."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from diffusers import (
    DiffusionPipeline,
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)

from framepack_core.helios.recipes import RECIPES

CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "rope_dim": (4, 4, 4),
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
}
WEIGHTS, PREDICTIONS = 0.3, 0.1  # what they deviate by: enough for an error to show, not so much that it grows
CHUNK_FRAMES = 33


def small_transformer(**config) -> HeliosTransformer3DModel:
    """All of its weights are random, since biases of 0 and norms of 1 hide errors."""
    transformer = HeliosTransformer3DModel(**{**CONFIG, **config}).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, weight in transformer.named_parameters():
        weight.copy_((PREDICTIONS if name.startswith("proj_out") else WEIGHTS) * torch.randn(weight.shape, generator=generator))
    return transformer


@dataclass(frozen=True)
class Inputs:
    """Text embeddings, and what may be given of a video, in model space: an image, a still's last frame, and a clip."""

    positive: torch.Tensor
    negative: torch.Tensor
    image: torch.Tensor
    still: torch.Tensor
    clip: torch.Tensor

    @classmethod
    def of(cls, height: int, width: int) -> "Inputs":
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(5))
        return cls(
            positive=normal(1, 9, CONFIG["text_dim"]),
            negative=normal(1, 9, CONFIG["text_dim"]),
            image=normal(1, 16, 1, height, width),
            still=normal(1, 16, 1, height, width),
            clip=normal(1, 16, 18, height, width),
        )

    def given(self, mode: str) -> dict:
        """What the pipelines are told of what a video begins with: nothing (`text`), an `image` or a `clip`."""
        match mode:
            case "text":
                return {}
            case "image":
                return {"image_latents": self.image, "fake_image_latents": self.still}
        return {"image_latents": self.image, "video_latents": self.clip, "add_noise_to_image_latents": False}


class Given:
    """What both pipelines need to run on given embeddings: no text encoder, and a VAE that does nothing."""

    def prepare(self, transformer, scheduler) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(transformer=transformer, scheduler=scheduler)
        config = SimpleNamespace(latents_mean=[0.0] * 16, latents_std=[1.0] * 16, z_dim=16)
        self.vae = SimpleNamespace(dtype=torch.float32, config=config, decode=lambda *_, **__: (torch.zeros(1, 3, 1, 1, 1),))
        self.vae_scale_factor_temporal, self.vae_scale_factor_spatial = 4, 8
        self.set_progress_bar_config(disable=True)

    def video(self, inputs: Inputs, chunks: int, cfg: float, seed: int, **options) -> torch.Tensor:
        H, W = inputs.image.shape[-2:]
        return self(
            prompt_embeds=inputs.positive,
            negative_prompt_embeds=inputs.negative,
            height=H * 8,
            width=W * 8,
            num_frames=CHUNK_FRAMES * chunks,
            guidance_scale=cfg,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            **options,
        ).frames


class Whole(Given, HeliosPipeline):
    """Base: one stage."""

    def __init__(self, transformer, scheduler) -> None:
        self.prepare(transformer, scheduler)

    @classmethod
    def on(cls, transformer, solver: str) -> "Whole":
        scheduler = HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True, scheduler_type=solver)
        return cls(transformer, scheduler)


class Pyramid(Given, HeliosPyramidPipeline):
    """Mid and Distilled: three stages."""

    def __init__(self, transformer, scheduler, is_cfg_zero_star: bool = False, is_distilled: bool = False) -> None:
        self.prepare(transformer, scheduler)
        self.register_to_config(is_cfg_zero_star=is_cfg_zero_star)
        self.register_to_config(is_distilled=is_distilled)

    @classmethod
    def mid(cls, transformer, solver: str, gamma: float) -> "Pyramid":
        scheduler = HeliosScheduler(gamma=gamma, use_dynamic_shifting=True, scheduler_type=solver)
        return cls(transformer, scheduler, is_cfg_zero_star=True)

    @classmethod
    def distilled(cls, transformer, gamma: float) -> "Pyramid":
        return cls(transformer, HeliosDMDScheduler(gamma=gamma, use_dynamic_shifting=True), is_distilled=True)


def oracle_video(
    transformer: HeliosTransformer3DModel,
    variant: str,
    inputs: Inputs,
    mode: str,
    count: int,
    *,
    steps: int,
    seed: int,
    gamma: float,
    solver: str = "unipc",
    reanchored: bool = False,
) -> torch.Tensor:
    """All latents `1 16 T H W` of `count` chunks of a variant, with those that are given before them.

    `steps` are those of a stage; Distilled has twice as many in its first chunk. `solver` is that of Base and Mid.
    """
    options = {"pyramid_num_inference_steps_list": [steps] * RECIPES[variant].stages}
    match variant:
        case "base":
            pipeline, options = Whole.on(transformer, solver), {"num_inference_steps": steps}
        case "mid":
            pipeline = Pyramid.mid(transformer, solver, gamma)
        case _:
            pipeline, options = Pyramid.distilled(transformer, gamma), {**options, "is_amplify_first_chunk": True}
    options |= {"is_skip_first_chunk": reanchored, **inputs.given(mode)}
    return pipeline.video(inputs, count, RECIPES[variant].cfg, seed, **options)
