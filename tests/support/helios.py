"""A small Helios: diffusers' as the oracle, its weights in a file, and inputs for one call."""

from pathlib import Path
from typing import Any

import torch
from diffusers import HeliosTransformer3DModel
from support.checkpoints import Weights, save
from torch import Tensor

from framepack_core.comfyui.model.helios.conditions import PackedStage
from framepack_core.packing import Context, gather
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "text_dim": 64,
    "ffn_dim": 320,
    "num_layers": 2,
}
TEXT = 11  # tokens
HISTORY = 19  # latent frames that a section sees besides the first one


def small_helios(seed: int = 0, **config) -> HeliosTransformer3DModel:
    """Random weights, wide enough that every one of them matters: with diffusers' own, gates are nearly shut."""
    model = HeliosTransformer3DModel(**{**SMALL, **config}).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.copy_(random(name, weight, generator))
    return model


def random(name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator)
    if weight.ndim == 1 and "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if weight.ndim > 1 and not name.endswith("scale_shift_table"):
        return 1.5 * noise * weight[0].numel() ** -0.5
    return 0.4 * noise


def write_helios(folder: Path, name: str = "Helios-Base.safetensors", metadata: dict | None = None, **config) -> str:
    """The path of a file in official/diffusers names."""
    weights: Weights = dict(small_helios(**config).state_dict())
    return save(weights, folder, name, metadata)


def seen(height: int, width: int, batch: int = 1, given: int = HISTORY) -> Context:
    """What the first section after `given` frames sees; no frame is zero if there are as many as the layout shows."""
    plan = Plan.of(1.2, "forward")
    section = plan.fill(given + 9, range(given))[0]
    latents = torch.randn(batch, 16, given + 9, height, width, generator=torch.Generator().manual_seed(1))
    return gather(section, Timeline(latents, set(range(given))))


def call(height: int, width: int, batch: int = 1, text_dim: int = SMALL["text_dim"]) -> dict[str, Tensor]:
    """The other inputs of a call that generates nine frames of this latent size; each video has its own timestep."""
    generator = torch.Generator().manual_seed(2)
    return {
        "noise": torch.randn(batch, 16, 9, height, width, generator=generator),
        "text": torch.randn(batch, TEXT, text_dim, generator=generator),
        "timestep": torch.tensor([731, 402, 57][:batch]),
    }


def run_oracle(oracle: HeliosTransformer3DModel, given: dict[str, Tensor], context: Context) -> Tensor:
    """diffusers' forward: the short history is the first frame and the newest, then come the 2x and 4x histories."""
    by_kernel: dict[int, list] = {1: [], 2: [], 4: []}
    for group, latents in zip(context.section.context, context.latents, strict=True):
        by_kernel[group.kernel.t].append((latents, group.indices))
    history = {}
    for kernel, name in ((1, "short"), (2, "mid"), (4, "long")):
        history[f"latents_history_{name}"] = torch.cat([latents for latents, _ in by_kernel[kernel]], dim=2)
        indices = [index for _, group in by_kernel[kernel] for index in group]
        history[f"indices_latents_history_{name}"] = torch.tensor([indices])
    return oracle(
        hidden_states=given["noise"],
        timestep=given["timestep"],
        encoder_hidden_states=given["text"],
        indices_hidden_states=torch.tensor([context.section.indices]),
        return_dict=False,
        **history,
    )[0]


def staged(context: Context, noise: Tensor, axes: tuple[int, int, int] = (44, 42, 42)) -> PackedStage:
    """The history at its own size, for noise of a stage's size; the default axes are those of heads of 128."""
    height, width = context.latents[0].shape[3:]
    return PackedStage(context, (height, width), (noise.shape[3], noise.shape[4]), axes)


def run_ours(model: Any, given: dict[str, Tensor], context: Context, **options: Any) -> Tensor:
    """A HeliosTransformer on the same inputs."""
    stage = staged(context, given["noise"], model.axes)
    return model(
        given["noise"],
        given["timestep"].float(),
        given["text"],
        packed=stage,
        history_latents=list(context.latents),
        transformer_options=options,
    )
