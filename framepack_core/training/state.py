"""A run on disk: the state that it resumes from, and checkpoints in diffusers' names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..layout import Kernel
from ..media.files import beside, whole_file, whole_folder
from ..media.remedies import remedy
from ..weights.names import is_framepack
from .transformer import PackedTransformer, context_kernels

PREFIX = "state-"
SHARED = "state"  # the mark of the unfinished folder that all processes of a run write to
PROGRESS, EMA, TRAINED = "progress.json", "ema.safetensors", "trained.safetensors"
WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"

Weights = dict[str, Tensor]


def save_state(accelerator: Accelerator, output: Path, step: int, settings: str, ema: Mapping[str, Tensor] | None) -> Path:
    """Write everything needed to continue after `step` steps, then remove the state before.

    Raises an OSError that names the folder if it cannot be written; the last good state stays.
    """
    final = output / f"{PREFIX}{step:08d}"
    main = accelerator.is_main_process
    try:
        output.mkdir(parents=True, exist_ok=True)
        with whole_folder(final, SHARED) if main else nullcontext(beside(final, SHARED)) as unfinished:
            accelerator.wait_for_everyone()
            accelerator.save_state(str(unfinished))
            accelerator.wait_for_everyone()  # each process writes its own part of the folder
            if main:
                if ema is not None:
                    save_file(dict(ema), unfinished / EMA)
                (unfinished / PROGRESS).write_text(json.dumps({"step": step, "settings": json.loads(settings)}))
                shutil.rmtree(final, ignore_errors=True)
        for old in states(output) if main else ():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        kept = last_state(output)
        raise OSError(
            f"the state of step {step} was not written to {final} ({error}); {remedy(error)} and start again: "
            + (f"the run continues from {kept}" if kept else "there is no earlier state")
        ) from error
    accelerator.wait_for_everyone()
    return final


def keep_trained_only(accelerator: Accelerator, trained: Mapping[str, Tensor]) -> None:
    """Leave the frozen weights of a LoRA's base out of states; they come from its checkpoint."""

    def save(models: list, weights: list, folder: str) -> None:
        if accelerator.is_main_process:
            save_file({name: tensor.detach() for name, tensor in trained.items()}, Path(folder) / TRAINED)
        weights.clear()

    def load(models: list, folder: str) -> None:
        models.clear()
        for name, tensor in load_file(Path(folder) / TRAINED).items():
            trained[name].data.copy_(tensor)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def states(output: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path for path in output.glob(f"{PREFIX}*") if (path / PROGRESS).is_file())


def last_state(output: Path) -> Path | None:
    return next(reversed(states(output)), None)


def read_progress(state: Path) -> tuple[int, dict]:
    """(steps done, settings) of a state."""
    progress = json.loads((state / PROGRESS).read_text())
    return progress["step"], progress["settings"]


def export(transformer: PackedTransformer, folder: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> Path:
    """Write a checkpoint in diffusers' names, and `config.json` beside it; each file whole or not at all.

    FramePack_LoadModel loads the file, and diffusers the folder, without kernels that it does not know.
    """
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    config["_class_name"] = PackedTransformer.__mro__[1].__name__
    weights = {name.replace("_orig_mod.", ""): tensor for name, tensor in transformer.state_dict().items()}
    path = write_tensors(folder / WEIGHTS, weights, metadata, dtype)
    with whole_file(folder / CONFIG) as unfinished:
        unfinished.write_text(json.dumps(config, indent=1))
    return path


def write_tensors(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype) -> Path:
    """Write a safetensors file, whole or not at all. Raises an OSError that names it."""
    try:
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            save_file(tensors, unfinished, {"format": "pt", **metadata})
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} was not written ({error}); {remedy(error)}") from error
    return path


def load_transformer(path: Path) -> PackedTransformer:
    """A transformer from a diffusers folder or a safetensors file in diffusers' names.

    Raises a ValueError that names the file and says what it is instead, or which weights it lacks.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{path} holds no safetensors; choose a diffusers folder or a file in diffusers' names")
    weights: Weights = {}
    for file in files:
        weights |= read(file)
    weights = {key.removeprefix("transformer."): tensor for key, tensor in weights.items()}
    require_packed(weights, path)
    config = config_of(weights)
    beside = (path if path.is_dir() else path.parent) / CONFIG
    if beside.is_file():
        config |= known_keys(json.loads(beside.read_text()), beside) if path.is_dir() else {}
    with torch.device("meta"):
        transformer = PackedTransformer(**config)
        transformer.add_kernels(kernels_of(weights).values())
    missing = sorted(transformer.state_dict().keys() - weights.keys())
    unknown = sorted(weights.keys() - transformer.state_dict().keys())
    if missing or unknown:
        raise ValueError(
            f"{path} is not a complete FramePack transformer: it lacks {len(missing)} weights ({', '.join(missing[:2])}) and "
            f"has {len(unknown)} with unknown names ({', '.join(unknown[:2])}); download it again"
        )
    try:
        transformer.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config: {error}") from error
    return transformer


def read(path: Path) -> Weights:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); download it again") from error


def require_packed(weights: Weights, path: Path) -> None:
    if "double_blocks.0.img_attn.qkv.weight" in weights or any(".double_blocks." in key for key in weights):
        raise ValueError(f"{path} has ComfyUI's weight names; training starts from a file in diffusers' names")
    if "transformer_blocks.0.norm1.linear.weight" not in weights and "context_embedder.proj_in.weight" not in weights:
        raise ValueError(
            f"{path} is not a FramePack transformer (it starts with {next(iter(weights), 'nothing')}); choose another file"
        )
    if not is_framepack(weights):
        raise ValueError(f"{path} is a HunyuanVideo transformer without FramePack's context embedders; choose a FramePack one")


def config_of(weights: Weights) -> dict:
    """The config that a state dict's shapes imply."""
    width, in_channels = weights["x_embedder.proj.weight"].shape[:2]
    image = weights.get("image_projection.up.weight")
    hidden = next((weights[key].shape[0] for key in ("single_transformer_blocks.0.proj_mlp.weight",
                   "transformer_blocks.0.ff.net.0.proj.weight") if key in weights), 4 * width)  # fmt: skip
    return {
        "in_channels": in_channels,
        "out_channels": weights["proj_out.weight"].shape[0] // 4,
        "num_attention_heads": width // 128,
        "attention_head_dim": 128,
        "num_layers": depth(weights, "transformer_blocks"),
        "num_single_layers": depth(weights, "single_transformer_blocks"),
        "num_refiner_layers": depth(weights, r"context_embedder\.token_refiner\.refiner_blocks"),
        "mlp_ratio": hidden / width,
        "text_embed_dim": weights["context_embedder.proj_in.weight"].shape[1],
        "pooled_projection_dim": weights["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in weights,
        "has_image_proj": image is not None,
        "image_proj_dim": 1152 if image is None else image.shape[1],
        "has_clean_x_embedder": True,
    }


def known_keys(config: dict, path: Path) -> dict:
    """A config without diffusers' own keys. Raises ValueError for one that the transformer does not have."""
    import inspect

    base = inspect.signature(PackedTransformer.__base__.__init__).parameters
    unknown = sorted(key for key in config if key not in base and not key.startswith("_"))
    if unknown:
        raise ValueError(f"{path} has {', '.join(unknown)}, unknown to HunyuanVideoFramepackTransformer3DModel; remove them")
    return {key: value for key, value in config.items() if key in base}


def kernels_of(weights: Weights) -> dict[str, Kernel]:
    prefix = "clean_x_embedder."
    return context_kernels({key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)})


def depth(weights: Weights, stem: str) -> int:
    pattern = re.compile(rf"{stem}\.(\d+)\.")
    return 1 + max((int(match[1]) for key in weights if (match := pattern.match(key))), default=-1)
