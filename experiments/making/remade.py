"""Films that the transformer finishes from a low noise level: they are what they were, but with the errors of a model.

A decoder that is trained on them learns to see through such errors, since it is known what each film shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from experiments.making.device import BF16, autocast
from framepack_core.demo.vae import DemoVAE
from framepack_core.orders import ORDERS
from framepack_core.training.cache import save_whole
from framepack_core.training.examples import MicroBatch, random
from framepack_core.training.loss import noisy
from framepack_core.training.preparation import Run, prepare
from framepack_core.training.settings import Settings
from framepack_core.training.transformer import TIMESTEPS

LEVELS = 0.1, 0.6  # of the noise; what the transformer makes from 0.5 is as far from what the VAE writes as its own videos are
STEPS = 3


@dataclass(frozen=True)
class Remade:
    """One section of several films: latents `B C T H W` in model space from latent frame `begins` of the films on, whose first
    `own` frames are the films' own. `seeds` are the films'."""

    latents: Tensor
    begins: int
    own: int
    seeds: tuple[int, ...]

    def save(self, path: Path) -> None:
        place = {"begins": self.begins, "own": self.own, "seeds": self.seeds}
        save_whole(path, {"latents": self.latents.bfloat16()}, {"place": json.dumps(place)})

    @classmethod
    def load(cls, path: Path) -> Remade:
        with safe_open(path, "pt") as file:
            place = json.loads(file.metadata()["place"])
            return cls(file.get_tensor("latents").float(), place["begins"], place["own"], tuple(place["seeds"]))


def write_remade(folder: Path, films: Path, checkpoint: Path, batches: int) -> None:
    """Write so many batches of eight films of a cache, whose clips are named by their seeds. Existing batches stay."""
    run = prepare(settings(films, checkpoint))
    run.model.eval()
    for number, step in enumerate(tqdm(islice(in_one_piece(run), batches), total=batches, desc="remade", mininterval=5)):
        path = folder / f"batch-{number:04}.safetensors"
        if not path.exists():
            remade(run, step).save(path)


def settings(films: Path, checkpoint: Path) -> Settings:
    """Sections of all orders in their own layouts, with histories as the demo was trained on."""
    layouts, orders = zip(*((order.layout, order.name) for order in ORDERS.values()), strict=True)
    return Settings(
        films, films, start=checkpoint, layouts=layouts, orders=orders, max_sections=6, end_probability=0.1,
        caption_dropout=0, corruption=0.15, batch=8, ema=0, held_out=0, precision="no", attention="plain" if BF16 else "auto",
    )  # fmt: skip


def in_one_piece(run: Run) -> Iterator[int]:
    """The steps whose sections do not make both ends of a video."""
    for step in count():
        target = run.examples.draw(step, 0)[0].section.target
        if target[-1] - target[0] == len(target) - 1:
            yield step


@torch.no_grad()
def remade(run: Run, step: int) -> Remade:
    batch = run.examples.batch(step, 0, range(run.settings.batch))
    first = batch.draw.section.target[0]
    begins = max(first - DemoVAE().reach_back, 0)
    films = [run.examples.clips[index].latents for index in batch.clips]
    own = torch.stack([latents[:, begins:first].float() for latents in films])
    low, high = LEVELS
    sigma = low + (high - low) * torch.rand(len(films), generator=random(run.settings.seed, step, 0))
    made = finished(run, batch, sigma)
    return Remade(torch.cat([own, made], dim=2), begins, first - begins, seeds(run, batch.clips))


def finished(run: Run, batch: MicroBatch, sigma_B: Tensor) -> Tensor:
    """The section's latents, noised to these levels and denoised again in a few Euler steps."""
    x = noisy(batch.x0, batch.noise, sigma_B)
    guidance = torch.full_like(sigma_B, run.settings.guidance) if run.transformer.config["guidance_embeds"] else None
    for step in range(STEPS):
        inputs = batch.inputs | {"latents": x, "timestep": sigma_B * (1 - step / STEPS) * TIMESTEPS}
        with autocast():
            velocity = run.model(**inputs, guidance=guidance)
        x = x - (sigma_B / STEPS).view(-1, 1, 1, 1, 1) * velocity.float()
    return x


def seeds(run: Run, clips: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(run.examples.clips.names[index].removeprefix("scene-")) for index in clips)
