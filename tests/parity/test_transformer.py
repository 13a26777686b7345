"""One call of our transformer equals diffusers' on the same weights and inputs, in float32 on a CPU."""

from dataclasses import replace

import pytest
import torch
from framepack.framepack_core import packing
from framepack.framepack_core.comfyui import loading
from framepack.framepack_core.comfyui.model import PackedContext
from framepack.framepack_core.packing import gather
from framepack.framepack_core.plan import Plan
from framepack.framepack_core.timeline import Timeline
from ours import relative_error

SIZES = {"aligned": (16, 16), "padded": (10, 14), "small": (4, 6)}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def ours(checkpoint):
    patcher = loading.load_path(str(checkpoint), {"dtype": torch.float32})
    return patcher.model.diffusion_model


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
    """diffusers' forward on a released layout: clean is start and newest, then the 2x and 4x histories."""
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


@pytest.mark.parametrize("order", ["inverted", "forward"])
@pytest.mark.parametrize("size", SIZES)
def test_one_call_equals_diffusers(oracle, ours, order, size):
    height, width = SIZES[size]
    plan = Plan.of(5, order)
    section = plan.fill(1 + plan.generated)[1]
    context = gather(section, video(1 + plan.generated, height, width))
    given = inputs(section, height, width)

    expected = run_oracle(oracle, given, context)
    found = run_ours(ours, given, context)

    assert relative_error(found, expected) < TOLERANCE


def wrong_index(context):
    first, *rest = context.section.context
    first = replace(first, indices=tuple(i + 1 for i in first.indices))
    return replace(context, section=replace(context.section, context=(first, *rest)))


def wrong_target_index(context):
    indices = tuple(i + 1 for i in context.section.indices)
    return replace(context, section=replace(context.section, indices=indices))


def wrong_frame(context):
    return replace(context, latents=(context.latents[0].flip(2), *context.latents[1:]))


def swapped_clean_frames(context):
    *coarse, start, newest = context.latents
    return replace(context, latents=(*coarse, newest, start))


@pytest.mark.parametrize("mistake", [wrong_index, wrong_target_index, wrong_frame, swapped_clean_frames])
def test_parity_notices_a_wrong_context(oracle, ours, mistake):
    plan = Plan.of(5, "inverted")
    section = plan.fill(1 + plan.generated)[1]
    context = gather(section, video(1 + plan.generated, 10, 14))
    given = inputs(section, 10, 14)

    expected = run_oracle(oracle, given, context)
    found = run_ours(ours, given, mistake(context))

    assert relative_error(found, expected) > 10 * TOLERANCE


def test_parity_notices_the_phase_of_the_average_position(oracle, ours, monkeypatch):
    """The likely mistake: averaging positions instead of cos and sin."""

    def unit_length(phases, stages):
        averaged = average(phases, stages)
        return averaged / averaged.abs()

    average = packing._average
    plan = Plan.of(5, "inverted")
    section = plan.fill(1 + plan.generated)[1]
    context = gather(section, video(1 + plan.generated, 16, 16))
    given = inputs(section, 16, 16)
    expected = run_oracle(oracle, given, context)

    monkeypatch.setattr(packing, "_average", unit_length)

    assert relative_error(run_ours(ours, given, context), expected) > 10 * TOLERANCE


def test_parity_notices_a_kernel_built_from_the_base(oracle, ours, monkeypatch):
    plan = Plan.of(5, "inverted")
    section = plan.fill(1 + plan.generated)[1]
    context = gather(section, video(1 + plan.generated, 16, 16))
    given = inputs(section, 16, 16)
    expected = run_oracle(oracle, given, context)

    kernels = {name: kernel for name, kernel in ours.clean_x_embedder.kernels.items() if name != "proj_4x"}
    monkeypatch.setattr(ours.clean_x_embedder, "kernels", kernels)

    assert relative_error(run_ours(ours, given, context), expected) > 10 * TOLERANCE
