"""Small random models in the files and names of the real ones, so that everything runs without a download.

    python -m support.stand_ins.write_models COMFYUI MODELS      (in tests/, inside the virtual environment)

The weights are "sharp": attention is far from uniform and gates are open, so that a wrong index, phase or kernel
changes the result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from safetensors.torch import save_file
from support.stand_ins.prompt import FORWARD, HELIOS, INVERTED, LORA, PLAIN, SHARDED, VAE, WAN_VAE

State = dict[str, torch.Tensor]
Moment = float | torch.Tensor

FRAMEPACK = {
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "text_embed_dim": 768,
    "pooled_projection_dim": 768,
    "has_image_proj": True,
    "image_proj_dim": 64,
    "has_clean_x_embedder": True,
}
HUNYUAN = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "hidden_size": 256,
    "num_heads": 2,
    "mlp_ratio": 4.0,
    "depth": 1,
    "depth_single_blocks": 2,
    "context_in_dim": 768,
    "vec_in_dim": 768,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "qkv_bias": True,
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "meanflow_sum": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
LORA_RANK = 4
LORA_SHAPES = {  # native module name: (inputs, outputs)
    "double_blocks_0_img_attn_qkv": (256, 768),
    "double_blocks_0_txt_attn_qkv": (256, 768),
    "double_blocks_0_img_mlp_0": (256, 1024),
    "single_blocks_0_linear1": (256, 1792),
    "single_blocks_1_linear2": (1280, 256),
}


def write_models(models: Path) -> None:
    """Everything that the example workflows and the server tests load."""
    for folder in ("diffusion_models", "vae", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    inverted = framepack(seed=0)
    save_file(inverted, models / "diffusion_models" / INVERTED)
    save_file(framepack(seed=1), models / "diffusion_models" / FORWARD)
    save_shards(inverted, models / "diffusion_models" / SHARDED)
    save_file(plain_hunyuan(seed=2), models / "diffusion_models" / PLAIN)
    for seed, file in enumerate(HELIOS.values(), start=5):
        save_file(helios(seed), models / "diffusion_models" / file)
    save_file(taehv(seed=3), models / "vae" / VAE)
    save_file(wan_taehv(seed=8), models / "vae" / WAN_VAE)
    save_file(lora(seed=4), models / "loras" / LORA)


def use_cpu() -> None:
    """ComfyUI looks for a GPU as soon as it is imported, unless told not to."""
    from comfy.cli_args import args

    args.cpu = True


def framepack(seed: int) -> State:
    """In the official names, which are diffusers'."""
    torch.manual_seed(seed)
    return sharpened(HunyuanVideoFramepackTransformer3DModel(**FRAMEPACK).state_dict())


def plain_hunyuan(seed: int) -> State:
    """Core HunyuanVideo in ComfyUI's names."""
    import comfy.ops
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    torch.manual_seed(seed)
    return sharpened(HunyuanVideo(dtype=torch.float32, operations=comfy.ops.manual_cast, **HUNYUAN).state_dict())


def helios(seed: int) -> State:
    """In the official names, which are diffusers', for embeddings as wide as Wan's text encoder makes them."""
    from support.helios import small_helios

    return small_helios(seed, text_dim=4096).state_dict()


def sharpened(weights: State) -> State:
    return {name: sharp(name, weight) for name, weight in weights.items()}


def sharp(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Query and key norms above one make attention peaked, wide modulation opens the gates."""
    if any(norm in name for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k", "query_norm", "key_norm")):
        return 1.5 + 0.5 * torch.rand_like(weight)
    if "norm" in name and weight.ndim == 1 and "linear" not in name:
        return torch.ones_like(weight) if name.endswith("weight") else torch.zeros_like(weight)
    if "x_embedder" in name or "img_in" in name:
        return 0.3 * torch.randn_like(weight)
    if ("norm" in name and "linear" in name) or ".lin." in name or "adaLN" in name:
        return 0.05 * torch.randn_like(weight)
    if weight.ndim < 2:
        return 0.1 * torch.randn_like(weight)
    return torch.randn_like(weight) * weight[0].numel() ** -0.5


def save_shards(weights: State, folder: Path) -> None:
    """Two shards and their index, as on the hub."""
    folder.mkdir(exist_ok=True)
    names = sorted(weights)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    index = {}
    for number, half in enumerate(halves, start=1):
        file = f"diffusion_pytorch_model-{number:05}-of-{len(halves):05}.safetensors"
        save_file({name: weights[name] for name in half}, folder / file)
        index |= dict.fromkeys(half, file)
    size = sum(weight.nbytes for weight in weights.values())
    content = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(content, indent=1))


def taehv(seed: int) -> State:
    """HunyuanVideo's tiny autoencoder: pictures come out within 0..1, latents with about unit deviation."""
    from comfy.latent_formats import HunyuanVideo

    weights = tiny_autoencoder(seed, HunyuanVideo, mean=0.0, deviation=1.0)
    return {name: weight.half() for name, weight in weights.items()}


def wan_taehv(seed: int) -> State:
    """Wan's, whose latents have about the moments of Wan's. ComfyUI knows it by its dtype."""
    from comfy.latent_formats import Wan21

    moments = Wan21()
    return tiny_autoencoder(seed, None, moments.latents_mean.flatten(), moments.latents_std.flatten())


def tiny_autoencoder(seed: int, latent_format: type | None, mean: Moment, deviation: Moment) -> State:
    """Pictures come out within 0..1. The encoder gives these moments, of all channels or of each, before the format's scale."""
    from comfy.taesd.taehv import TAEHV

    model = TAEHV(latent_channels=16, latent_format=latent_format).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        scale = (2 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.0
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    for name, module in model.named_modules():
        if name.endswith("conv.4"):  # the last layer of a memory block, beside its skip: keep activations in size
            module.weight.mul_(0.3)
    video = torch.rand(1, 3, 9, 64, 64, generator=generator)
    fit(model.encoder[-1], model.process_in(model.encode(video)), mean, deviation)
    shift, scale = (torch.as_tensor(moment).reshape(1, -1, 1, 1, 1) for moment in (mean, deviation))
    latents = shift + scale * torch.randn(1, 16, 3, 8, 8, generator=generator)
    fit(model.decoder[-1], model.decode(latents), mean=0.5, deviation=0.1)
    return model.state_dict()


def fit(layer: torch.nn.Module, output: torch.Tensor, mean: Moment, deviation: Moment) -> None:
    """Scale and shift a last layer so that `output` (B C T H W, made without bias) gets these moments."""
    channels = output.movedim(1, 0).flatten(1)
    factor = deviation / channels.std(1)
    layer.weight.mul_(factor.view(-1, 1, 1, 1))
    layer.bias.copy_(mean - channels.mean(1) * factor)


def lora(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for module, (inputs, outputs) in LORA_SHAPES.items():
        weights[f"lora_unet_{module}.lora_down.weight"] = torch.randn(LORA_RANK, inputs, generator=generator) / 16
        weights[f"lora_unet_{module}.lora_up.weight"] = torch.randn(outputs, LORA_RANK, generator=generator) / 16
        weights[f"lora_unet_{module}.alpha"] = torch.tensor(float(LORA_RANK))
    return weights


if __name__ == "__main__":
    comfyui, models = sys.argv[1:]
    sys.path.insert(0, comfyui)
    sys.path.append(str(Path(__file__).parents[3]))
    use_cpu()
    write_models(Path(models))
