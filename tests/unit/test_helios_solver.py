"""Helios' solvers, compared with solutions that are known."""

import pytest
import torch

from framepack_core.helios.recipes import MID
from framepack_core.helios.solver import SAMPLERS, sample_dmd, sample_unipc
from framepack_core.helios.stages import stages_of

MEAN, VARIANCE = 0.4, 0.25


def schedule(steps: int) -> torch.Tensor:
    return torch.tensor(stages_of(MID, 3 * steps, 48, 80, 9)[2].sigmas, dtype=torch.float64)


def normal() -> torch.Tensor:
    return torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sampler", SAMPLERS.values())
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_solver_ends_with_what_the_model_always_predicts(sampler, steps):
    x0 = torch.full((2, 5), 0.25, dtype=torch.float64)

    torch.testing.assert_close(sampler(lambda x, sigma: x0, normal(), schedule(steps)), x0)


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_every_solver_asks_once_a_step_and_reports_the_prediction(sampler):
    reported, asked = [], []

    def model(x, sigma, added):
        asked.append((sigma.tolist(), added))
        return x * 0 + len(asked)

    sampler(model, normal(), schedule(4), extra_args={"added": 5}, callback=reported.append)

    assert asked == [([sigma] * 2, 5) for sigma in schedule(4)[:-1].tolist()]
    assert [step["i"] for step in reported] == [0, 1, 2, 3]
    assert [step["denoised"].unique().item() for step in reported] == [1, 2, 3, 4]


def test_renoising_adds_the_noise_of_the_beginning_to_each_prediction():
    start, sigmas, seen = normal(), schedule(3), []

    def model(x, sigma):
        seen.append(x)
        return torch.full_like(x, len(seen))

    sample_dmd(model, start, sigmas)

    expected = [start, *((1 - sigmas[i]) * i + sigmas[i] * start for i in (1, 2))]
    assert all(map(torch.allclose, seen, expected))


# Normal data: the prediction of the video and the solution of the flow are known


def spread(sigma: torch.Tensor) -> torch.Tensor:
    return ((1 - sigma) ** 2 * VARIANCE + sigma**2).sqrt()


def of_normal_data(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    sigma = sigma[:, None]
    return MEAN + (1 - sigma) * VARIANCE / spread(sigma) ** 2 * (x - (1 - sigma) * MEAN)


def error(steps: int) -> float:
    sigmas = schedule(steps)
    exact = MEAN + VARIANCE**0.5 / spread(sigmas[0]) * (normal() - (1 - sigmas[0]) * MEAN)
    return (sample_unipc(of_normal_data, normal(), sigmas) - exact).abs().max().item()


def test_errors_of_unipc_shrink_with_its_order_of_2():
    assert error(20) / error(40) > 0.8 * 2**2
