"""Trains the demo's video autoencoder on the synthetic world; `psnr` measures it on clips it has not seen."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.making.device import DEVICE, WORKERS, autocast
from experiments.making.files import load_state, save_state
from framepack_core.demo.vae import SCALE, DemoVAE
from framepack_core.demo.world import Scene
from framepack_core.frames import PIXEL_FRAMES, pixel_frames

HELD_OUT = 2_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Settings:
    steps: int = 1000
    clips: int = 5
    frames: int = 13
    peak_lr: float = 1.2e-3
    warmup: int = 100
    noise: float = 0.1  # largest noise on unit latents: the decoder learns to tolerate errors of generated ones
    unit_weight: float = 0.02  # keeps the latents' deviation near one
    shape_weight: float = 3.0
    square_weight: float = 4.0  # of the squared error, beside the absolute one
    ema: float = 0.998
    shapes: int | None = None  # of each scene; None as the world draws them
    cuts: int = 0  # clips of each step in which another clip's frames come first, or a still of another clip is placed
    seed: int = 0


# With four shapes in each picture, a step sees four times as much of what the decoder is worst at. The shipped decoder's
# learning rate was planned for 7,000 steps until step 1,410.
DECODER = Settings(steps=5000, clips=8, peak_lr=1e-3, warmup=100, shapes=4, seed=1)

# After it: a decoder that never sees a cut leans on the frames before, which pictures that are placed in a video do not follow.
CUTS = Settings(steps=8000, clips=8, peak_lr=1e-3, warmup=100, shapes=4, shape_weight=6, square_weight=16, cuts=4, seed=2)


@dataclass(frozen=True)
class Batches(Dataset):
    """The pixels and weights of each step, to be rendered by worker processes."""

    settings: Settings

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return batch(self.settings, step)


def train(settings: Settings, state_file: Path, save_minutes: float = 2) -> DemoVAE:
    """Train up to `settings.steps`, continuing from `state_file` if there is one; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    return calibrated(fit(DemoVAE(), settings, state_file, save_minutes), settings)


def train_decoder(vae: DemoVAE, settings: Settings, state_file: Path, save_minutes: float = 2) -> DemoVAE:
    """Train the decoder alone, so that what was encoded, and models of it, stay valid."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    return fit(vae, settings, state_file, save_minutes).eval()


def fit(vae: DemoVAE, settings: Settings, state_file: Path, save_minutes: float) -> DemoVAE:
    """What can be trained of it, averaged over the last steps."""
    vae.to(DEVICE)
    torch_to: Any = vae.to  # whose declaration lacks the memory format
    torch_to(memory_format=torch.channels_last)
    average = copy.deepcopy(vae).requires_grad_(False)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.peak_lr, betas=(0.9, 0.98), weight_decay=1e-4)
    first = load_state(state_file, vae=vae, average=average, optimizer=optimizer)
    saved = time.monotonic()
    batches = iter(DataLoader(Batches(settings), batch_size=None, sampler=range(first, settings.steps), num_workers=WORKERS))
    with tqdm(range(first, settings.steps), initial=first, total=settings.steps, desc="vae", mininterval=5) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings)
            loss = training_loss(vae, settings, step, next(batches))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            update_average(average, vae, min(settings.ema, (step + 1) / (step + 10)))
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
            if time.monotonic() - saved > save_minutes * 60:
                save_state(state_file, step + 1, vae=vae, average=average, optimizer=optimizer)
                saved = time.monotonic()
    save_state(state_file, settings.steps, vae=vae, average=average, optimizer=optimizer)
    return average.cpu()


def training_loss(vae: DemoVAE, settings: Settings, step: int, drawn: tuple[Tensor, Tensor]) -> Tensor:
    """Weighted absolute and squared error; every draw depends on the step, so that a resumed run is the same run."""
    generator = torch.Generator().manual_seed(step * 1_000_003 + settings.seed)
    pixels, weight = (part.to(DEVICE) for part in drawn)
    with autocast():
        latents = vae.encode(pixels)
        cut(vae, settings.cuts, latents, pixels, weight, generator)
        level = settings.noise * torch.rand(settings.clips, 1, 1, 1, 1, generator=generator)
        noise = level / SCALE * torch.randn(latents.shape, generator=generator)
        error = (vae.decode(latents + noise.to(DEVICE)) - pixels).float()
    spread = (latents.float() * SCALE).square().mean(dim=(0, 2, 3, 4))
    unit = (spread - 1 - spread.log()).mean()
    return ((error.abs() + settings.square_weight * error**2) * weight).mean() + settings.unit_weight * unit


def cut(vae: DemoVAE, cuts: int, latents: Tensor, pixels: Tensor, weight: Tensor, generator: torch.Generator) -> None:
    """In the first clips, from another clip: what comes before a latent frame, or a still in its place, by turns."""
    others = latents.roll(1, 0), pixels.roll(1, 0), weight.roll(1, 0)
    for clip in range(cuts):
        latent = int(torch.randint(1, latents.shape[2], (), generator=generator))
        first, stop = pixel_frames(latent), pixel_frames(latent + 1)
        if clip % 2:
            for part, other, until in zip((latents, pixels, weight), others, (latent, first, first), strict=True):
                part[clip, :, :until] = other[clip, :, :until]
        else:
            still = others[1][clip, :, first : first + 1]
            latents[clip, :, latent] = vae.encode(still[None].expand(-1, -1, 1 + PIXEL_FRAMES, -1, -1))[0, :, 1]
            pixels[clip, :, first:stop] = still
            weight[clip, :, first:stop] = others[2][clip, :, first : first + 1]


@torch.no_grad()
def calibrated(vae: DemoVAE, settings: Settings, clips: int = 200) -> DemoVAE:
    """The VAE with its channels' moments over the world filled in, so that latents have unit deviation."""
    latents = torch.stack([vae.encode(batch(settings, -step)[0]) * SCALE for step in range(1, clips // settings.clips + 1)])
    channels = latents.movedim(2, 0).flatten(1)
    vae.mean.copy_(channels.mean(dim=1))
    vae.deviation.copy_(channels.std(dim=1))
    return vae.eval()


def batch(settings: Settings, step: int) -> tuple[Tensor, Tensor]:
    """Pixels `B 3 F H W` in -1..1 from random moments, and weights `B 1 F H W` of mean about 1 that favour the shapes."""
    rng = np.random.default_rng([settings.seed, 3, abs(step), step < 0])
    clips, weights = [], []
    for seed in rng.integers(1_000_000, size=settings.clips):
        scene, start = Scene.draw(int(seed), settings.shapes), int(rng.integers(200))
        clips.append(scene.render(settings.frames, start))
        weights.append(1 + settings.shape_weight * box(scene, settings.frames, start))
    pixels = torch.from_numpy(np.stack(clips)).movedim(-1, 1) / 127.5 - 1
    return pixels, torch.from_numpy(np.stack(weights))[:, None]


def box(scene: Scene, frames: int, start: int, size: int = 128) -> np.ndarray:
    """1 inside the bounding boxes of the shapes, float32 `F H W`."""
    inside = np.zeros((frames, size, size), np.float32)
    for number in range(frames):
        for place in scene.truth(start + number):
            reach = place.radius + 2
            rows, columns = (slice(max(int(at - reach), 0), max(int(at + reach), 0)) for at in (place.y, place.x))
            inside[number, rows, columns] = 1
    return inside


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < settings.warmup:
        return settings.peak_lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.peak_lr * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


@torch.no_grad()
def psnr(vae: DemoVAE, clips: int = 40, frames: int = 33, report: Callable[[str], None] = print) -> tuple[float, float]:
    """Mean dB over held-out clips: for whole frames, and inside the shapes' boxes."""
    whole, inside = [], []
    for number in range(clips):
        scene = Scene.draw(HELD_OUT + number)
        truth = scene.render(frames)
        pixels = torch.from_numpy(truth[None]).movedim(-1, 1) / 127.5 - 1
        made = (vae.decode(vae.encode(pixels))[0].movedim(0, -1).clamp(-1, 1).numpy() + 1) / 2
        error = (made - truth / 255.0) ** 2
        mask = box(scene, frames, 0) > 0
        whole.append(-10 * math.log10(error.mean()))
        inside.append(-10 * math.log10(error[mask].mean()))
    report(f"PSNR of {clips} held-out clips: {np.mean(whole):.2f} dB, in the shapes' boxes {np.mean(inside):.2f} dB")
    return float(np.mean(whole)), float(np.mean(inside))
