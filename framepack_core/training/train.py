"""The training loop, on accelerate: one process, several GPUs or several machines."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, set_seed
from torch import Tensor, nn
from tqdm import tqdm

from ..layout import Kernel
from ..media.files import whole_file
from ..trained import Trained
from . import lora, samples, state
from .cache import ClipCache
from .examples import Choices, Examples, MicroBatch, all_kernels, planned, recipes
from .history import Codebook
from .loss import flow_loss
from .samples import Decode
from .settings import FREE, Settings
from .transformer import PackedTransformer

LORA = "lora.safetensors"
FROZEN = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # weights that a LoRA leaves as they are
COLUMNS = ("step", "loss", "lr", "gradient", "seconds", "draws")


class Ema:
    """The moving average of the trained weights, in float32."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = parameters
        self.weights = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After `step` steps; young averages follow faster."""
        decay = min(self.decay, step / (step + 9))
        live = [parameter.detach().float() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average as its weights."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            assign(self.parameters, self.weights)
            yield
        finally:
            assign(self.parameters, kept)


@torch.no_grad()
def assign(parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


@dataclass
class Run:
    """Everything a step needs."""

    settings: Settings
    accelerator: Accelerator
    model: nn.Module
    transformer: PackedTransformer
    optimizers: list
    examples: Examples
    ema: Ema | None
    metadata: dict[str, str]
    rates: list[float] = field(default_factory=list)
    step: int = 0

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.transformer.named_parameters() if parameter.requires_grad}


def train(settings: Settings, decode: Decode | None = None) -> Path:
    """Train until `settings.steps` are done, from the last state if there is one; the path of the exported checkpoint.

    `decode` turns a sample's latents `1 C T H W` in model space into pixels `1 3 F H W` in -1..1.
    """
    run = prepare(settings)
    resume(run)
    if decode is None and settings.sample_vae is not None:
        decode = samples.hunyuan_decoder(settings.sample_vae)
    return loop(run, decode)


def prepare(settings: Settings) -> Run:
    distributed = DistributedDataParallelKwargs(find_unused_parameters=True)  # a section uses some of the kernels
    accelerator = Accelerator(mixed_precision=settings.precision, kwargs_handlers=[distributed])
    if settings.batch % accelerator.num_processes:
        raise ValueError(f"--batch is {settings.batch}, which does not divide among {accelerator.num_processes} processes")
    set_seed(settings.seed)
    found = recipes(settings.layouts, settings.orders)
    clips = ClipCache(settings.cache)
    transformer = make_transformer(settings, clips)
    set_kernels(transformer, all_kernels(found), settings.base_kernels)
    if settings.lora_rank:
        lora.add_lora(transformer, settings.lora_rank, settings.lora_alpha or settings.lora_rank)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.plain_attention = plain_attention(settings, accelerator)
    config = transformer.config
    choices = choices_of(settings, found)
    examples = Examples(clips, choices, settings.seed, config["rope_axes_dim"], config["rope_theta"], settings.held_out)
    optimizers, rates = make_optimizers(settings, transformer)
    if settings.compile:
        transformer.compile(whole=accelerator.device.type != "cpu")
    model, *optimizers = accelerator.prepare(transformer, *optimizers)
    transformer = accelerator.unwrap_model(model, keep_torch_compile=True)
    layouts, orders = (tuple(dict.fromkeys(names)) for names in zip(*((r.layout, r.order) for r in found), strict=True))
    metadata = Trained(layouts, orders).metadata()
    run = Run(settings, accelerator, model, transformer, optimizers, examples, None, metadata, rates)
    if settings.ema:
        run.ema = Ema(run.trained, settings.ema)
    if settings.lora_rank:
        state.keep_trained_only(accelerator, run.trained)
    return run


def choices_of(settings: Settings, found) -> Choices:
    return Choices(
        recipes=found,
        window=settings.window,
        sections=(settings.min_sections, settings.max_sections),
        paddings=settings.paddings,
        end_probability=settings.end_probability,
        caption_dropout=settings.caption_dropout,
        sigmas=settings.sigmas,
        shift=settings.shift,
        motion_weight=settings.motion_weight,
        corruption=settings.corruption,
        codebook=Codebook.load(settings.codebook) if settings.codebook else None,
    )


def make_transformer(settings: Settings, clips: ClipCache) -> PackedTransformer:
    """The checkpoint to start from, or a new transformer that fits the cached embeddings."""
    if settings.start is not None:
        dtype = FROZEN[settings.precision] if settings.lora_rank else torch.float32
        transformer = state.load_transformer(settings.start)
        nn.Module.to(transformer, dtype)  # diffusers' own `to` has no usable type
        return transformer
    clip = clips[0]
    config = {
        "in_channels": clip.latents.shape[0],
        "out_channels": clip.latents.shape[0],
        "num_attention_heads": settings.heads,
        "attention_head_dim": 128,
        "num_layers": settings.blocks,
        "num_single_layers": settings.single_blocks,
        "num_refiner_layers": settings.refiner_blocks,
        "text_embed_dim": clip.text.shape[1],
        "pooled_projection_dim": clip.pooled.shape[0],
        "has_image_proj": clip.image is not None,
        "image_proj_dim": 1152 if clip.image is None else clip.image.shape[1],
        "has_clean_x_embedder": True,
    }
    if settings.config is not None:
        config |= state.known_keys(json.loads(settings.config.read_text()), settings.config)
    return start_still(PackedTransformer(**config))


def set_kernels(transformer: PackedTransformer, kernels: Iterable[Kernel], from_base: Iterable[str]) -> None:
    """A convolution for every kernel but those named to be built from the base. Raises ValueError for an unknown name."""
    names = {str(kernel): kernel for kernel in kernels}
    if unknown := [name for name in from_base if name not in names]:
        raise ValueError(f"--base-kernels has {unknown[0]}, but the layouts' kernels are {', '.join(names)}")
    transformer.drop_kernels(from_base)
    transformer.add_kernels(kernel for name, kernel in names.items() if name not in from_base)


@torch.no_grad()
def start_still(transformer: PackedTransformer) -> PackedTransformer:
    """A new transformer whose blocks pass their input on and whose output is zero, which trains faster than noise does."""
    for name, parameter in transformer.named_parameters():
        if name.endswith(
            (".norm.linear.weight", ".norm1.linear.weight", ".norm1_context.linear.weight", ".norm_out.linear.weight")
        ):
            parameter.zero_()
        if name in ("norm_out.linear.weight", "proj_out.weight", "proj_out.bias"):
            parameter.zero_()
    return transformer


def plain_attention(settings: Settings, accelerator: Accelerator) -> bool:
    if settings.attention == "auto":
        return accelerator.device.type == "cpu" and settings.precision == "bf16"
    return settings.attention == "plain"


def make_optimizers(settings: Settings, transformer: PackedTransformer) -> tuple[list[torch.optim.Optimizer], list[float]]:
    """The optimizers and their largest learning rates."""
    trained = {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    muon = {name for name, parameter in trained.items() if settings.optimizer == "muon" and for_muon(name, parameter)}
    rest = [(name, parameter) for name, parameter in trained.items() if name not in muon]
    groups = [
        {"params": [parameter for _, parameter in rest if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for _, parameter in rest if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99), fused=True)]
    rates = [settings.lr]
    if muon:
        matrices = [trained[name] for name in sorted(muon)]
        optimizers.append(torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay))
        rates.append(settings.muon_lr)
    return optimizers, rates


def for_muon(name: str, parameter: Tensor) -> bool:
    """Matrices inside the blocks, without the modulations, whose input is one vector a clip."""
    inside = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
    return inside and parameter.ndim == 2 and ".linear." not in name


def rate(settings: Settings, step: int) -> float:
    """The learning rate of a step as a share of the largest."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.schedule == "constant":
        return warm
    done = min(1.0, max(0.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup)))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def resume(run: Run) -> None:
    """Continue from the last state of the output folder. Raises ValueError when it belongs to other settings."""
    found = state.last_state(run.settings.output)
    if found is None:
        return
    step, settings = state.read_progress(found)
    now = json.loads(run.settings.to_json())
    changed = sorted(name for name in settings if name not in FREE and now.get(name) != settings[name])
    if changed:
        name = changed[0]
        raise ValueError(f"{found} was trained with {name} {settings[name]}, now it is {now.get(name)}; use the same settings "
                         "to go on, or another output folder")  # fmt: skip
    run.accelerator.load_state(str(found))
    if run.ema is not None:
        run.ema.load(state.read(found / state.EMA))
    run.step = step


def loop(run: Run, decode: Decode | None) -> Path:
    settings, accelerator = run.settings, run.accelerator
    settings.output.mkdir(parents=True, exist_ok=True)
    path = settings.output / "model" / (LORA if settings.lora_rank else state.WEIGHTS)
    log = Losses(settings.output / "losses.csv", run.step) if accelerator.is_main_process else None
    bar = tqdm(total=settings.steps, initial=run.step, disable=not accelerator.is_main_process, mininterval=1, unit="step")
    started = time.monotonic()
    while run.step < settings.steps:
        figures = take_step(run)
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


def take_step(run: Run) -> dict:
    """One optimizer step: every micro-batch a section of its own, its clips split among the processes."""
    settings, accelerator = run.settings, run.accelerator
    started = time.monotonic()
    share = settings.batch // accelerator.num_processes
    mine = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    factor = rate(settings, run.step)
    for optimizer, largest in zip(run.optimizers, run.rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = factor * largest
    run.model.train()
    total = torch.zeros((), device=accelerator.device)
    draws = []
    for micro in range(settings.accumulation):
        batch = run.examples.batch(run.step, micro, mine).to(accelerator.device)
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
    """Processes exchange gradients after the last micro-batch only."""
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
    """Whether the last state is older than it may get; the first process decides for all."""
    if not run.settings.save_minutes:
        return False
    decision = [time.monotonic() - since > 60 * run.settings.save_minutes]
    if run.accelerator.num_processes > 1:
        broadcast_object_list(decision)
    return decision[0]


def save(run: Run) -> None:
    """The export first: a run that is killed between the two makes it again."""
    settings = run.settings
    export(run)
    weights = None if run.ema is None else run.ema.weights
    state.save_state(run.accelerator, settings.output, run.step, settings.to_json(), weights)


def export(run: Run) -> None:
    """The model with its averaged weights, or its LoRA alone."""
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
    """A short video from a held-out clip's first frame, by the averaged weights; layouts and orders take turns."""
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
    """A line a step; what a resumed run will do again is cut off."""

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
