"""Prepares a run for its first step: the model, its optimizers, and the examples it is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn

from ..layout import Kernel
from ..trained import Trained
from . import lora, state
from .cache import ClipCache
from .ema import Ema
from .examples import Choices, Examples, all_kernels, recipes
from .history import Codebook
from .optimizers import make_optimizers
from .settings import Settings
from .transformer import PackedTransformer

FROZEN = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the weights that a LoRA leaves as they are


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


def prepare(settings: Settings) -> Run:
    distributed = DistributedDataParallelKwargs(find_unused_parameters=True)  # a section uses only some of the kernels
    accelerator = Accelerator(mixed_precision=settings.precision, kwargs_handlers=[distributed])
    if settings.batch % accelerator.num_processes:
        raise ValueError(
            f"--batch is {settings.batch}, which is not a multiple of the {accelerator.num_processes} processes; "
            "choose a multiple of them"
        )
    set_seed(settings.seed)
    found = recipes(settings.layouts, settings.orders)
    clips = ClipCache(settings.cache)
    transformer = make_transformer(settings, clips)
    set_kernels(transformer, all_kernels(found), settings.base_kernels)
    if settings.lora_rank:
        lora.add_lora(transformer, settings.lora_rank, settings.lora_alpha or settings.lora_rank)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if plain_attention(settings, accelerator):
        transformer.use_plain_attention()
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
        text_only=settings.text_only,
        placed=settings.placed,
        changed=settings.changed,
        first=settings.first,
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
    """A convolution for every kernel except those to be built from the base. Raises ValueError for an unknown name."""
    names = {str(kernel): kernel for kernel in kernels}
    if unknown := [name for name in from_base if name not in names]:
        raise ValueError(f"--base-kernels has {unknown[0]}, but the layouts' kernels are {', '.join(names)}")
    transformer.drop_kernels(from_base)
    transformer.add_kernels(kernel for name, kernel in names.items() if name not in from_base)


@torch.no_grad()
def start_still(transformer: PackedTransformer) -> PackedTransformer:
    """Make a new transformer's blocks pass their input on and its output zero, which trains faster than random weights."""
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
