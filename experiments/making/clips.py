"""Encodes clips of the synthetic world with the demo's encoders into a cache for `framepack_core.training`."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from experiments.making.encoders import picture
from framepack_core.demo.text import TextEncoder, Tokenizer
from framepack_core.demo.vae import SCALE, DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene
from framepack_core.frames import pixel_frames
from framepack_core.training.cache import Clip, write_clip, write_empty

LATENT_FRAMES = 56  # a start frame, six sections of nine and an end frame


@torch.no_grad()
def write_clips(folder: Path, seeds: range, vae: DemoVAE, text: TextEncoder, vision: VisionEncoder) -> None:
    """Write one clip per seed, from its first frame on. Existing clips stay."""
    tokenizer = Tokenizer()
    words, pooled = text(tokenizer.batch([""]))
    write_empty(folder, words[0], pooled[0])
    for seed in tqdm(seeds, desc="clips", mininterval=5):
        name = f"scene-{seed:07}"
        if not (folder / f"{name}.safetensors").exists():
            write_clip(folder, name, encode(Scene.draw(seed), tokenizer, vae, text, vision))


def encode(scene: Scene, tokenizer: Tokenizer, vae: DemoVAE, text: TextEncoder, vision: VisionEncoder) -> Clip:
    video = torch.from_numpy(scene.render(pixel_frames(LATENT_FRAMES))[None]).movedim(-1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(video / 127.5 - 1)[0].float() * SCALE
    words, pooled = text(tokenizer.batch([scene.caption]))
    return Clip(latents, words[0], pooled[0], vision(picture(scene)[None])[0], scene.caption)
