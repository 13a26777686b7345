"""Encodes clips of the synthetic world with the demo's encoders into a cache for `framepack_core.training`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.making.device import DEVICE, WORKERS
from experiments.making.encoders import picture
from framepack_core.demo.text import TextEncoder, Tokenizer
from framepack_core.demo.vae import SCALE, DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene
from framepack_core.frames import pixel_frames
from framepack_core.training.cache import Clip, write_clip, write_empty

LATENT_FRAMES = 56  # a start frame, six sections of nine and an end frame


@dataclass(frozen=True)
class Rendered(Dataset):
    """The videos of scenes by their seeds, uint8 `F H W 3`, to be rendered by worker processes."""

    scenes: dict[int, Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, number: int) -> tuple[int, Tensor]:
        seed = list(self.scenes)[number]
        return seed, torch.from_numpy(self.scenes[seed].render(pixel_frames(LATENT_FRAMES)))


@torch.no_grad()
def write_clips(folder: Path, scenes: dict[int, Scene], vae: DemoVAE, text: TextEncoder, vision: VisionEncoder) -> None:
    """Write one clip per scene, by its seed, from its first frame on. Existing clips stay."""
    vae.to(DEVICE)
    tokenizer = Tokenizer()
    words, pooled = text(tokenizer.batch([""]))
    write_empty(folder, words[0], pooled[0])
    missing = {seed: scene for seed, scene in scenes.items() if not (folder / f"{clip_name(seed)}.safetensors").exists()}
    rendered = DataLoader(Rendered(missing), batch_size=None, num_workers=WORKERS)
    for seed, video in tqdm(rendered, desc="clips", mininterval=5):
        scene = scenes[int(seed)]
        words, pooled = text(tokenizer.batch([scene.caption]))
        image = vision(picture(scene)[None])[0]
        write_clip(folder, clip_name(seed), Clip(encode(video, vae), words[0], pooled[0], image, scene.caption))


def clip_name(seed: int) -> str:
    return f"scene-{seed:07}"


def encode(video: Tensor, vae: DemoVAE) -> Tensor:
    """Latents `C T H W` in model space, of frames uint8 `F H W 3`."""
    pixels = video.to(DEVICE)[None].movedim(-1, 1) / 127.5 - 1
    with torch.autocast(DEVICE, torch.bfloat16):
        return vae.encode(pixels)[0].float() * SCALE
