"""A transformer call on the same inputs, by ours and by diffusers'."""

import torch

from framepack_core.comfyui.model.framepack import PackedContext
from framepack_core.timeline import Timeline


def video(frames: int, height: int, width: int) -> Timeline:
    """A timeline that knows everything, so that no context is zero."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, frames, height, width, generator=generator)
    return Timeline(latents, set(range(frames)))


def inputs(section, height: int, width: int) -> dict:
    generator = torch.Generator().manual_seed(2)
    return {
        "noise": torch.randn(1, 16, len(section.target), height, width, generator=generator),
        "text": torch.randn(1, 11, 64, generator=generator),
        "pooled": torch.randn(1, 768, generator=generator),
        "image": torch.randn(1, 5, 32, generator=generator),
        "timestep": torch.tensor([730.0]),
        "guidance": torch.tensor([10.0]),
    }


def run_oracle(oracle, given: dict, context) -> torch.Tensor:
    """diffusers' forward on a released layout: the clean latents are start and newest, then come the 2x and 4x histories."""
    by_kernel: dict[int, list] = {1: [], 2: [], 4: []}
    for group, latents in zip(context.section.context, context.latents, strict=True):
        by_kernel[group.kernel.t].append((latents, group.indices))
    latents = {k: torch.cat([latent for latent, _ in groups], dim=2) for k, groups in by_kernel.items()}
    indices = {k: torch.tensor([i for _, group in groups for i in group]) for k, groups in by_kernel.items()}
    return oracle(
        hidden_states=given["noise"],
        timestep=given["timestep"],
        encoder_hidden_states=given["text"],
        encoder_attention_mask=torch.ones(given["text"].shape[:2]),
        pooled_projections=given["pooled"],
        image_embeds=given["image"],
        indices_latents=torch.tensor(context.section.indices),
        guidance=given["guidance"] * 1000,
        latents_clean=latents[1],
        indices_latents_clean=indices[1],
        latents_history_2x=latents[2],
        indices_latents_history_2x=indices[2],
        latents_history_4x=latents[4],
        indices_latents_history_4x=indices[4],
        return_dict=False,
    )[0]


def run_ours(model, given: dict, context) -> torch.Tensor:
    packed = PackedContext(context, *given["noise"].shape[3:], model.params.axes_dim, model.params.theta)
    return model(
        given["noise"],
        given["timestep"],
        given["text"],
        y=given["pooled"],
        clip_fea=given["image"],
        guidance=given["guidance"],
        packed=packed,
        context_latents=list(context.latents),
    )
