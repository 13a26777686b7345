"""One call of our transformer equals diffusers' on the same weights and inputs, in float32 on a CPU."""

from dataclasses import replace

import pytest
import torch
from support.calls import inputs, run_oracle, run_ours, video
from support.ours import relative_error

from framepack_core import packing
from framepack_core.comfyui.loading import checkpoints
from framepack_core.oneframe import OneFrame
from framepack_core.packing import gather
from framepack_core.placing import Frames, Placed
from framepack_core.plan import Plan

SIZES = {"aligned": (16, 16), "padded": (10, 14), "small": (4, 6)}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def ours(checkpoint):
    patcher = checkpoints.load_path(str(checkpoint), {"dtype": torch.float32})
    return patcher.model.diffusion_model


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


def test_a_single_picture_with_two_stills_equals_diffusers(oracle, ours):
    """As musubi-tuner calls it: clean latents at 0, 10 and, empty, 10, the empty histories after them, one frame at 5."""
    still, reference = (Placed(frame, frame, "start", "guide") for frame in video(2, 10, 14).latents.split(1, dim=2))
    one = OneFrame.of(Frames((still, reference)), 5, control_index="0;10")
    context = gather(one.section(), one.timeline())
    given = inputs(one.section(), 10, 14)

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
    """The mistake one is likely to make: averaging positions instead of cos and sin."""

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
