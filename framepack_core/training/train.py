"""The training loop, built on accelerate: for one process, several GPUs or several machines."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..media.files import whole_file
from . import lora, samples, state
from .examples import Examples, MicroBatch, planned
from .loss import flow_loss
from .optimizers import rate
from .preparation import Run, prepare
from .samples import Decode
from .settings import FREE, Settings

LORA = "lora.safetensors"
COLUMNS = ("step", "loss", "lr", "gradient", "seconds", "draws")


def train(settings: Settings, decode: Decode | None = None) -> Path:
    """Train until `settings.steps`, from the last state if there is one, and return the path of the exported checkpoint.

    `decode` turns a sample's latents `1 C T H W` in model space into pixels `1 3 F H W` in -1..1.
    """
    run = prepare(settings)
    resume(run)
    if decode is None and settings.sample_vae is not None:
        decode = samples.hunyuan_decoder(settings.sample_vae)
    return loop(run, decode)


def resume(run: Run) -> None:
    """Continue from the last state in the output folder. Raises ValueError if it belongs to other settings."""
    found = state.last_state(run.settings.output)
    if found is None:
        return
    step, settings = state.read_progress(found)
    now = json.loads(run.settings.to_json())
    changed = sorted(name for name in settings if name not in FREE and now.get(name) != settings[name])
    if changed:
        name = changed[0]
        raise ValueError(f"{found} was trained with {name} {settings[name]}, now it is {now.get(name)}; use the same settings "
                         "to continue, or another output folder")  # fmt: skip
    run.accelerator.load_state(str(found))
    if run.ema is not None:
        run.ema.load(state.read(found / state.EMA))
    run.step = step


def loop(run: Run, decode: Decode | None) -> Path:
    settings, accelerator = run.settings, run.accelerator
    settings.output.mkdir(parents=True, exist_ok=True)
    path = settings.output / "model" / (LORA if settings.lora_rank else state.WEIGHTS)
    log = Losses(settings.output / "losses.csv", run.step) if accelerator.is_main_process else None
    batches = iter(drawn_ahead(run))
    bar = tqdm(total=settings.steps, initial=run.step, disable=not accelerator.is_main_process, mininterval=1, unit="step")
    started = time.monotonic()
    while run.step < settings.steps:
        figures = take_step(run, batches)
        if log is not None:
            log.write(figures)
            bar.update()
            bar.set_postfix(loss=f"{figures['loss']:.4f}", lr=f"{figures['lr']:.2e}")
        if settings.sample_every and run.step % settings.sample_every == 0:
            write_sample(run, decode)
        if run.step % settings.save_every == 0 or overdue(run, started) or run.step == settings.steps:
            save(run)
            started = time.monotonic()
    bar.close()
    return path


@dataclass(frozen=True)
class MicroBatches(Dataset):
    """The micro-batches of all steps in a row: each has a section of its own, and its clips are split among the processes."""

    examples: Examples
    accumulation: int
    samples: range

    def __getitem__(self, number: int) -> MicroBatch:
        return self.examples.batch(*divmod(number, self.accumulation), self.samples)


def drawn_ahead(run: Run) -> DataLoader:
    """The micro-batches from this step on, drawn by worker processes if there are any."""
    settings, accelerator = run.settings, run.accelerator
    share = settings.batch // accelerator.num_processes
    mine = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    numbers = range(run.step * settings.accumulation, settings.steps * settings.accumulation)
    batches = MicroBatches(run.examples, settings.accumulation, mine)
    return DataLoader(batches, batch_size=None, sampler=numbers, num_workers=settings.workers)


def take_step(run: Run, batches: Iterator[MicroBatch]) -> dict:
    """One optimizer step."""
    settings, accelerator = run.settings, run.accelerator
    started = time.monotonic()
    factor = rate(settings, run.step)
    for optimizer, largest in zip(run.optimizers, run.rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = factor * largest
    run.model.train()
    total = torch.zeros((), device=accelerator.device)
    draws = []
    for micro in range(settings.accumulation):
        batch = next(batches).to(accelerator.device)
        draws.append(f"{batch.draw.recipe.order}/{batch.draw.recipe.layout}")
        with gradients_at_the_end(run, micro):
            loss = loss_of(run, batch) / settings.accumulation
            accelerator.backward(loss)
        total += loss.detach()
    loss = cast(Tensor, accelerator.reduce(total, "mean")).item()
    require_finite(run, loss)
    norm = cast(Tensor, accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm))
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    run.step += 1
    if run.ema is not None:
        run.ema.update(run.step)
    return {
        "step": run.step,
        "loss": loss,
        "lr": factor * settings.lr,
        "gradient": float(norm),
        "seconds": time.monotonic() - started,
        "draws": " ".join(draws),
    }


def loss_of(run: Run, batch: MicroBatch) -> Tensor:
    guidance = batch.x0.new_full((len(batch.x0),), run.settings.guidance) if run.transformer.config["guidance_embeds"] else None
    velocity = run.model(**batch.inputs, guidance=guidance)
    return flow_loss(velocity, batch.x0, batch.noise, batch.weight).mean()


@contextmanager
def gradients_at_the_end(run: Run, micro: int) -> Iterator[None]:
    """Let processes exchange gradients only after the last micro-batch."""
    if micro == run.settings.accumulation - 1:
        yield
    else:
        with run.accelerator.no_sync(run.model):
            yield


def require_finite(run: Run, loss: float) -> None:
    if not math.isfinite(loss):
        kept = state.last_state(run.settings.output)
        raise ValueError(f"the loss of step {run.step + 1} is {loss}; lower --lr or train in another precision"
                         + (f"; the last good state is {kept}" if kept else ""))  # fmt: skip


def overdue(run: Run, since: float) -> bool:
    """Whether the last state is too old; the first process decides for all."""
    if not run.settings.save_minutes:
        return False
    decision = [time.monotonic() - since > 60 * run.settings.save_minutes]
    if run.accelerator.num_processes > 1:
        broadcast_object_list(decision)
    return decision[0]


def save(run: Run) -> None:
    """Export first: a run that is killed between the two does it again."""
    settings = run.settings
    export(run)
    weights = None if run.ema is None else run.ema.weights
    state.save_state(run.accelerator, settings.output, run.step, settings.to_json(), weights)


def export(run: Run) -> None:
    """Write the model with its averaged weights, or only its LoRA."""
    settings, folder = run.settings, run.settings.output / "model"
    if run.accelerator.is_main_process:
        with averaged(run):
            if settings.lora_rank:
                adapter = lora.to_comfy(run.trained, settings.lora_alpha or settings.lora_rank)
                state.write_tensors(folder / LORA, adapter, run.metadata, torch.bfloat16)
            else:
                state.export(run.transformer, folder, run.metadata, torch.bfloat16)
    run.accelerator.wait_for_everyone()


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    if run.ema is None:
        yield
    else:
        with run.ema.applied():
            yield


def write_sample(run: Run, decode: Decode | None) -> None:
    """Write a short video from a held-out clip's first frame, made with the averaged weights; layouts and orders take turns."""
    settings, clips, choices = run.settings, run.examples.clips, run.examples.choices
    if run.accelerator.is_main_process:
        recipe = choices.recipes[(run.step // settings.sample_every - 1) % len(choices.recipes)]
        plan = planned(recipe, settings.sample_sections, settings.window, choices.paddings[0])
        clip = clips[max(0, len(clips) - settings.held_out) if settings.held_out else 0]
        with averaged(run):
            latents = samples.sample_video(
                run.transformer, clip, plan, settings.sample_steps, settings.guidance, settings.shift, settings.seed
            )
        path = settings.output / "samples" / f"{run.step:08d}-{recipe.order}-{plan.name}"
        samples.write_sample(path, latents, decode)
    run.accelerator.wait_for_everyone()


class Losses:
    """A file with a line per step, without the steps that a resumed run will do again."""

    def __init__(self, path: Path, step: int) -> None:
        rows = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["draws"] and int(row["step"]) <= step]
        with whole_file(path) as unfinished:
            self.write_rows(unfinished, rows)
        self.file = path.open("a", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, COLUMNS)

    def write_rows(self, path: Path, rows: list[dict]) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def write(self, figures: dict) -> None:
        rounded = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in figures.items()}
        self.writer.writerow(rounded)
