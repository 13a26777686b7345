"""CFG-Zero* on predictions of the video equals its formula on velocities."""

import pytest
import torch
from support.helios_video import guided

from framepack_core.helios.guidance import prepared
from framepack_core.helios.recipes import BASE, MID
from framepack_core.helios.stages import stages_of

STAGES = stages_of(MID, 60, 16, 24, 9)


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(2, 16, 9, 4, 6, generator=torch.Generator().manual_seed(seed))


def predictions(x, sigma, *velocities):
    return [x - sigma * velocity for velocity in velocities]


@pytest.mark.parametrize("step", [2, 10, 19])
def test_guidance_of_mid_is_cfg_zero_star_video_by_video(step):
    x, p, u = drawn(1), drawn(2) + drawn(3), drawn(3)
    sigma = STAGES[0].sigmas[step]
    scale = torch.stack([(p[n] * u[n]).sum() / ((u[n] * u[n]).sum() + 1e-8) for n in range(2)]).view(2, 1, 1, 1, 1)
    velocity = scale * u + 5 * (p - scale * u)

    found = guided(*prepared(MID, STAGES[0], x, torch.full((2,), sigma), *predictions(x, sigma, p, u)), 5.0)

    torch.testing.assert_close((x - found) / sigma, velocity, rtol=1e-4, atol=1e-2 if sigma < 0.01 else 1e-4)


def test_a_negative_prediction_without_any_velocity_divides_by_no_zero():
    x, sigma = drawn(1), STAGES[1].sigmas[5]

    positive, negative = prepared(MID, STAGES[1], x, torch.full((2,), sigma), x - sigma, x)

    assert torch.equal(negative, x)
    assert torch.equal(positive, x - sigma)


@pytest.mark.parametrize(("stage", "step", "still"), [(0, 0, True), (0, 1, True), (0, 2, False), (1, 0, False), (2, 0, False)])
def test_the_first_two_steps_of_a_section_stand_still(stage, step, still):
    x = drawn(1)
    sigma = STAGES[stage].sigmas[step]

    found = guided(*prepared(MID, STAGES[stage], x, torch.full((2,), sigma), drawn(2), drawn(3)), 5.0)

    assert torch.equal(found, x) == still


def test_guidance_of_base_is_ordinary():
    (stage,) = stages_of(BASE, 50, 16, 24, 9)
    positive, negative = drawn(2), drawn(3)

    found = guided(*prepared(BASE, stage, drawn(1), torch.full((2,), stage.sigmas[0]), positive, negative), 5.0)

    torch.testing.assert_close(found, negative + 5 * (positive - negative))
