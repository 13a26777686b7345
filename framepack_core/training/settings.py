"""The settings of a training run: one dataclass, which is also the command line."""
# ruff: noqa: RUF009 - option() makes dataclass fields

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ..layout import PRESETS
from ..orders import ORDERS, PADDINGS, Paddings
from .loss import SIGMAS, Sigmas

Precision = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "constant"]


def option(default, help: str, **kwargs):
    """A field with its place on the command line."""
    return field(default=default, metadata={"help": help, **kwargs})


@dataclass(frozen=True)
class Settings:
    cache: Path = field(metadata={"help": "folder of encoded clips, written by the cache command"})
    output: Path = field(
        metadata={"help": "folder for the state, the model, losses.csv and samples; an unfinished run in it resumes"}
    )
    start: Path | None = option(None, "checkpoint to start from: a diffusers folder or a safetensors file in diffusers' names")
    config: Path | None = option(None, "JSON file with a new transformer's config, in diffusers' names")
    heads: int = option(2, "attention heads of a new transformer, which is 128 times as wide")
    blocks: int = option(2, "two-stream blocks of a new transformer")
    single_blocks: int = option(6, "single-stream blocks of a new transformer")
    refiner_blocks: int = option(2, "text refiner blocks of a new transformer")

    layouts: tuple[str, ...] = option(
        ("framepack",), f"preset names ({', '.join(PRESETS)}) or layout strings; name:3 is drawn 3 times as often"
    )
    base_kernels: tuple[str, ...] = option(
        (), "kernels, like k1h8w8, that get no convolution of their own and are still built from the base"
    )
    orders: tuple[str, ...] = option(
        tuple(ORDERS), "orders to train, with each layout in those it fits; order:2 is drawn twice as often"
    )
    paddings: tuple[Paddings, ...] = option(PADDINGS, "blank indices of the inverted order", choices=PADDINGS)
    window: int = option(9, "latent frames per section")
    min_sections: int = option(1, "fewest sections of a video")
    max_sections: int = option(6, "most sections of a video; the clip's length limits them too")
    end_probability: float = option(0.5, "how often an end frame is known, in the orders that can show one")

    text_only: float = option(0.0, "how often nothing is known, not even the start, as in text to video")
    placed: float = option(0.0, "how often clips, or stills in mid-video, are known too")
    changed: float = option(0.0, "how often all is known that comes before a change of the prompt, in clips that have one")
    first: float = option(0.0, "how often the section that is sampled first, and sees least, is drawn besides by chance")

    steps: int = option(1000, "optimizer steps of the whole run")
    batch: int = option(4, "clips per micro-batch, over all processes")
    accumulation: int = option(4, "micro-batches per step, each with a section of its own")
    lr: float = option(3e-4, "largest learning rate of adamw")
    muon_lr: float = option(3e-3, "largest learning rate of muon, for the matrices inside the blocks")
    optimizer: Optimizer = option(
        "adamw", "muon takes the blocks' matrices and leaves the rest to adamw", choices=get_args(Optimizer)
    )
    weight_decay: float = option(0.01, "weight decay of matrices")
    schedule: Schedule = option("cosine", "schedule of the learning rate after the warm-up", choices=get_args(Schedule))
    warmup: int = option(100, "steps until the learning rate reaches its largest value")
    clip_norm: float = option(1.0, "largest norm of the gradient")
    precision: Precision = option(
        "bf16", "precision of the computation; weights and their average stay in float32", choices=get_args(Precision)
    )
    ema: float = option(0.999, "decay of the weights' moving average, which is exported and used for samples; 0 for none")
    lora_rank: int = option(0, "train a LoRA of this rank instead of all weights")
    lora_alpha: float = option(0.0, "scale of the LoRA; 0 takes the rank")
    gradient_checkpointing: bool = option(False, "recompute activations: less memory, a third more time")
    compile: bool = option(
        False, "use torch.compile on the blocks, on a CPU only on their parts besides matrix products (needs a C++ compiler)"
    )
    attention: Literal["auto", "plain", "sdpa"] = option(
        "auto",
        "plain matrix products are faster on some CPUs; auto uses them in bf16 on a CPU",
        choices=("auto", "plain", "sdpa"),
    )

    sigmas: Sigmas = option("logit-normal", "distribution of noise levels before the shift", choices=SIGMAS)
    shift: float = option(0.0, "shift of the noise levels; 0 takes inference's, which follows the number of generated tokens")
    motion_weight: float = option(0.0, "additional weight of what moves")
    guidance: float = option(10.0, "value for the guidance embedding")
    caption_dropout: float = option(0.1, "how often the caption is replaced by the empty one")
    corruption: float = option(0.0, "largest noise level of generated history, against drift")
    codebook: Path | None = option(None, "discretise the history with this codebook, against drift")
    seed: int = option(0, "seed of the weights and of every draw")

    save_every: int = option(500, "steps between saved states")
    save_minutes: float = option(10.0, "minutes between saved states; 0 saves only by steps")
    sample_every: int = option(0, "steps between sample clips; 0 makes none")
    sample_steps: int = option(12, "solver steps of a sample clip")
    sample_sections: int = option(2, "sections of a sample clip")
    sample_vae: Path | None = option(
        None, "folder of a diffusers AutoencoderKLHunyuanVideo that decodes samples; without it they stay latents"
    )
    workers: int = option(0, "processes that draw batches ahead of the training; 0 draws them in between")
    held_out: int = option(1, "how many clips, the last by name, are never trained on; samples start from the first of them")

    def __post_init__(self) -> None:
        """Raises ValueError for values that contradict each other or are out of range."""
        positive = ("heads", "window", "min_sections", "steps", "batch", "accumulation", "lr", "save_every", "sample_steps",
                    "sample_sections", "muon_lr")  # fmt: skip
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{flag(name)} is {getattr(self, name)}; choose a value above 0")
        for name in ("end_probability", "text_only", "placed", "changed", "first", "caption_dropout", "corruption", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{flag(name)} is {getattr(self, name)}; choose a value from 0 to 1")
        if self.text_only + self.placed + self.changed > 1:
            raise ValueError(
                f"--text-only {self.text_only}, --placed {self.placed} and --changed {self.changed} are more than 1 together; "
                "lower one"
            )
        if self.ema == 1:
            raise ValueError("--ema is 1, so the average never moves; choose a value below 1, or 0 for none")
        if self.max_sections < self.min_sections:
            raise ValueError(f"--max-sections is {self.max_sections}, fewer than --min-sections {self.min_sections}")
        if self.start is not None and self.config is not None:
            raise ValueError("--start has its own config; leave out --config")
        if self.lora_rank and self.start is None:
            raise ValueError("--lora-rank needs a model to adapt; pass its checkpoint as --start")
        if released := {"k1", "k2", "k4"}.intersection(self.base_kernels):
            raise ValueError(f"--base-kernels has {min(released)}; every FramePack model has the convolutions of k1, k2 and k4")
        for name in ("held_out", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{flag(name)} is {getattr(self, name)}; choose 0 or more")

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str, indent=1)


# Settings that may change when a run resumes without changing its result.
FREE = {
    "output",
    "cache",
    "compile",
    "attention",
    "workers",
    "save_every",
    "save_minutes",
    "sample_every",
    "sample_steps",
    "sample_sections",
    "sample_vae",
}


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per field; the two without a default are positional."""
    for each in fields(Settings):
        given = {key: value for key, value in each.metadata.items() if key != "help"}
        text = each.metadata["help"].replace("%", "%%")
        if each.default is MISSING:
            parser.add_argument(each.name, type=Path, help=text)
        elif each.default is False:
            parser.add_argument(flag(each.name), action="store_true", help=text)
        elif isinstance(each.default, tuple):
            shown = " ".join(each.default)
            parser.add_argument(flag(each.name), nargs="+", default=each.default, help=f"{text} (default: {shown})", **given)
        else:
            kind = Path if each.default is None else type(each.default)
            suffix = "" if each.default is None else f" (default: {each.default})"
            parser.add_argument(flag(each.name), type=kind, default=each.default, help=text + suffix, **given)


def from_arguments(arguments: argparse.Namespace) -> Settings:
    values = {each.name: getattr(arguments, each.name) for each in fields(Settings)}
    settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**settings)


def parse(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments))
