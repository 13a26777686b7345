"""Encodes clips of the synthetic world with the demo's encoders into a cache for `framepack_core.training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.making.device import DEVICE, WORKERS, autocast
from experiments.making.encoders import picture
from framepack_core.demo.text import TextEncoder, Tokenizer
from framepack_core.demo.vae import SCALE, DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.demo.world import Scene
from framepack_core.frames import pixel_frames
from framepack_core.training.cache import Clip, write_clip, write_empty

WINDOW, SECTIONS = 9, 6
LATENT_FRAMES = 1 + SECTIONS * WINDOW + 1  # with a start frame and an end frame
LASTING = ("left", "right", "up", "down", "stop", "spin")  # motions that look the same whenever they begin


@dataclass(frozen=True)
class Film:
    """A scene, and the captions that count from a latent frame on instead of its own."""

    scene: Scene
    later: Mapping[int, str] = field(default_factory=dict)


def film(seed: int) -> Film:
    """Every other film has two shapes, and in seven of twenty the motion changes."""
    shapes = 1 + seed % 2
    return changing(seed, shapes) if seed % 20 < 7 else Film(Scene.draw(seed, shapes))


def changing(seed: int, shapes: int | None = None) -> Film:
    """A film in which the first shape's motion changes, where a section begins if a start image comes before the first one."""
    rng, scene = np.random.default_rng([seed, 3]), Scene.draw(seed, shapes)
    shape, motion = scene.actors[0].shape, scene.actors[0].motion
    frame = 1 + WINDOW * int(rng.integers(1, SECTIONS))
    then = str(rng.choice([other for other in LASTING if other != motion and (other, shape) != ("spin", "circle")]))
    return Film(scene.changed(pixel_frames(frame), then), {frame: scene.with_motion(then, seed).caption})


@dataclass(frozen=True)
class Rendered(Dataset):
    """The videos of some films' scenes, uint8 `F H W 3`, to be rendered by worker processes."""

    films: tuple[tuple[int, Film], ...]

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, number: int) -> tuple[int, Tensor]:
        seed, film = self.films[number]
        return seed, torch.from_numpy(film.scene.render(pixel_frames(LATENT_FRAMES)))


@torch.no_grad()
def write_clips(folder: Path, films: Mapping[int, Film], vae: DemoVAE, text: TextEncoder, vision: VisionEncoder) -> None:
    """Write one clip per film, by its seed. Existing clips stay."""
    vae.to(DEVICE)
    tokenizer = Tokenizer()

    def encoded(caption: str) -> tuple[Tensor, Tensor]:
        words, pooled = text(tokenizer.batch([caption]))
        return words[0], pooled[0]

    write_empty(folder, *encoded(""))
    missing = tuple((seed, film) for seed, film in films.items() if not (folder / f"{clip_name(seed)}.safetensors").exists())
    rendered = DataLoader(Rendered(missing), batch_size=None, num_workers=WORKERS)
    for seed, video in tqdm(rendered, desc="clips", mininterval=5):
        scene, later = films[int(seed)].scene, films[int(seed)].later
        told = {frame: encoded(caption) for frame, caption in later.items()}
        image = vision(picture(scene)[None])[0]
        write_clip(folder, clip_name(seed), Clip(encode(video, vae), *encoded(scene.caption), image, scene.caption, told))


def clip_name(seed: int) -> str:
    return f"scene-{seed:07}"


def encode(video: Tensor, vae: DemoVAE) -> Tensor:
    """Latents `C T H W` in model space, of frames uint8 `F H W 3`."""
    pixels = video.to(DEVICE)[None].movedim(-1, 1) / 127.5 - 1
    with autocast():
        return vae.encode(pixels)[0].float() * SCALE
