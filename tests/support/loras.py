"""LoRA files in every naming and of every kind, and the weights that each makes of a model's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from support import given
from support.checkpoints import Weights
from support.ours import relative_error, sample
from torch import Tensor

from framepack_core.comfyui.loading import loras
from framepack_core.weights import names

# A module of each kind: in diffusers' names, and by the names of ComfyUI and of the original HunyuanVideo.
OFFICIAL = [
    *(f"transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"transformer_blocks.1.attn.{part}" for part in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *("transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2", "transformer_blocks.1.ff_context.net.0.proj"),
    *(
        "transformer_blocks.1.ff_context.net.2",
        "transformer_blocks.0.norm1.linear",
        "transformer_blocks.1.norm1_context.linear",
    ),
    *(f"single_transformer_blocks.1.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")),
    *("single_transformer_blocks.0.norm.linear", "norm_out.linear", "proj_out", "x_embedder.proj", "context_embedder.proj_in"),
    *(f"context_embedder.token_refiner.refiner_blocks.1.{part}" for part in ("attn.to_k", "attn.to_out.0", "ff.net.0.proj")),
    *("context_embedder.token_refiner.refiner_blocks.0.norm_out.linear", "time_text_embed.guidance_embedder.linear_2"),
    *("clean_x_embedder.proj_2x", "image_projection.up"),
]
REFINER = "txt_in.individual_token_refiner.blocks"
NATIVE = {
    "double_blocks.0.img_attn.qkv": "double_blocks.0.img_attn_qkv",
    "double_blocks.1.txt_attn.qkv": "double_blocks.1.txt_attn_qkv",
    "double_blocks.1.img_attn.proj": "double_blocks.1.img_attn_proj",
    "double_blocks.0.img_mlp.0": "double_blocks.0.img_mlp.fc1",
    "double_blocks.1.txt_mlp.2": "double_blocks.1.txt_mlp.fc2",
    "double_blocks.0.img_mod.lin": "double_blocks.0.img_mod.linear",
    "double_blocks.1.txt_mod.lin": "double_blocks.1.txt_mod.linear",
    "single_blocks.1.linear1": "single_blocks.1.linear1",
    "single_blocks.0.linear2": "single_blocks.0.linear2",
    "single_blocks.0.modulation.lin": "single_blocks.0.modulation.linear",
    f"{REFINER}.0.self_attn.qkv": f"{REFINER}.0.self_attn_qkv",
    f"{REFINER}.1.mlp.2": f"{REFINER}.1.mlp.fc2",
    f"{REFINER}.1.adaLN_modulation.1": f"{REFINER}.1.adaLN_modulation.1",
    "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
    "final_layer.linear": "final_layer.linear",
}


def underscored(module: str) -> str:
    return module.replace(".", "_")


@dataclass(frozen=True)
class Naming:
    """Whose names they are, and how a module of the model is spelled in the file."""

    official: bool
    modules: dict[str, str]


NAMINGS = {
    "musubi, HunyuanVideo": Naming(False, {new: f"lora_unet_{underscored(old)}" for new, old in NATIVE.items()}),
    "diffusion-pipe": Naming(False, {new: f"transformer.{old}" for new, old in NATIVE.items()}),
    "diffusion-pipe, old": Naming(False, {new: f"diffusion_model.{old}" for new, old in NATIVE.items()}),
    "ComfyUI": Naming(False, {new: f"diffusion_model.{new}" for new in NATIVE}),
    "ComfyUI, kohya": Naming(False, {new: f"lora_unet_{underscored(new)}" for new in NATIVE}),
    "musubi, FramePack": Naming(True, {module: f"lora_unet_{underscored(module)}" for module in OFFICIAL}),
    "diffusers": Naming(True, {module: f"transformer.{module}" for module in OFFICIAL}),
    "no prefix": Naming(True, {module: module for module in OFFICIAL}),
    "diffusion-pipe, FramePack": Naming(True, {module: f"diffusion_model.{module}" for module in OFFICIAL}),
    "peft": Naming(True, {module: f"base_model.model.{module}" for module in OFFICIAL}),
    "OneTrainer": Naming(True, {module: f"lora_transformer_{underscored(module)}" for module in OFFICIAL}),
}

IN_BLOCKS = {module: spelled for module, spelled in NAMINGS["musubi, FramePack"].modules.items() if "former_blocks" in module}


# The kinds: what the file holds of a module, and the weight that it makes of one.

Kind = Callable[[Tensor, torch.Generator], tuple[Weights, Tensor]]


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator) * 0.2


def flat(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight[0].numel()


def pair(weight: Tensor, generator: torch.Generator, rank: int = 4) -> tuple[Tensor, Tensor]:
    rows, columns = flat(weight)
    return draw(generator, rows, rank), draw(generator, rank, columns)


def lora(up_name: str, down_name: str, alpha: float | None) -> Kind:
    def make(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
        up, down = pair(weight, generator)
        scale = 1.0 if alpha is None else alpha / 4
        tensors = {up_name: up, down_name: down} | ({} if alpha is None else {"alpha": torch.tensor(alpha)})
        return tensors, weight + scale * (up @ down).view_as(weight)

    return make


def loha(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    (one_a, one_b), (two_a, two_b) = pair(weight, generator), pair(weight, generator)
    tensors = {"hada_w1_a": one_a, "hada_w1_b": one_b, "hada_w2_a": two_a, "hada_w2_b": two_b, "alpha": torch.tensor(2.0)}
    return tensors, weight + 0.5 * ((one_a @ one_b) * (two_a @ two_b)).view_as(weight)


def lokr(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    rows, columns = flat(weight)
    one, two = draw(generator, 4, 2), draw(generator, rows // 4, columns // 2)
    return {"lokr_w1": one, "lokr_w2": two}, weight + torch.kron(one, two).view_as(weight)


def lokr_of_ranks(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    rows, columns = flat(weight)
    one, (two_a, two_b) = draw(generator, 2, 4), (draw(generator, rows // 2, 3), draw(generator, 3, columns // 4))
    tensors = {"lokr_w1": one, "lokr_w2_a": two_a, "lokr_w2_b": two_b, "alpha": torch.tensor(6.0)}
    return tensors, weight + 2 * torch.kron(one, two_a @ two_b).view_as(weight)


def dora(name: str, per_row: bool, vector: bool = False) -> Kind:
    """As ComfyUI computes it: scales of rows stand beside the norms of the weight as it was."""

    def make(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
        up, down = pair(weight, generator)
        changed = weight + (up @ down).view_as(weight)
        rest = tuple(range(2, weight.ndim))  # of a convolution
        squares = weight.square().sum((1, *rest), keepdim=True) if per_row else changed.square().sum((0, *rest), keepdim=True)
        norms = squares.sqrt()
        scales = norms * (1 + draw(generator, *norms.shape))
        stored = scales.flatten() if vector and weight.ndim == 2 else scales
        return {"lora_up.weight": up, "lora_down.weight": down, name: stored}, changed * scales / norms

    return make


def whole(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    change = draw(generator, *weight.shape)
    return {"diff": change}, weight + change


KINDS: dict[str, Kind] = {
    "LoRA of kohya, alpha": lora("lora_up.weight", "lora_down.weight", 2.0),
    "LoRA of diffusers": lora("lora_B.weight", "lora_A.weight", None),
    "LoRA of peft": lora("lora_B.default.weight", "lora_A.default.weight", None),
    "LoHa": loha,
    "LoKr": lokr,
    "LoKr of two ranks": lokr_of_ranks,
    "DoRA by rows": dora("dora_scale", per_row=True),
    "DoRA by columns": dora("dora_scale", per_row=False),
    "DoRA of peft": dora("lora_magnitude_vector", per_row=True, vector=True),
    "whole matrix": whole,
}


@dataclass(frozen=True)
class File:
    """A LoRA file's tensors, and the model's weights with it merged, in the names that it is in."""

    tensors: Weights
    merged: Weights


def make(weights: Weights, modules: dict[str, str], kind: Kind, biases: bool = False, seed: int = 1) -> File:
    generator, tensors, merged = torch.Generator().manual_seed(seed), {}, dict(weights)
    for module, spelled in modules.items():
        made, merged[f"{module}.weight"] = kind(weights[f"{module}.weight"], generator)
        if biases:
            made["diff_b"] = draw(generator, *weights[f"{module}.bias"].shape)
            merged[f"{module}.bias"] = weights[f"{module}.bias"] + made["diff_b"]
        tensors |= {f"{spelled}.{name}": tensor for name, tensor in made.items()}
    return File(tensors, merged)


def everything(weights: Weights, seed: int) -> File:
    return make(weights, NAMINGS["musubi, FramePack"].modules, KINDS["LoRA of kohya, alpha"], biases=True, seed=seed)


def stored(folder: Path, tensors: Weights, name: str = "some.safetensors", header: dict | None = None) -> str:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / name, header)
    return name


def loaded(model, name: str, strength: float = 1.0):
    return loras.load(model, name, strength)[0]


def patched(model) -> Weights:
    """The weights as the model computes with them."""
    names = (name for name, _ in model.model.diffusion_model.named_parameters())
    return {name: model.patch_weight_to_device(f"diffusion_model.{name}", return_weight=True).float() for name in names}


def in_comfyui_s_names(weights: Weights, official: bool) -> Weights:
    return names.to_comfy(dict(weights)) if official else weights


def assert_merged(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert relative_error(found[key], weight.float()) < 1e-6, key


def video(model) -> Tensor:
    return sample(model, given.inputs(8, 8), sections=1, steps=2)
