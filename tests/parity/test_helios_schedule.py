"""Helios' schedules and solvers equal diffusers' schedulers, for many numbers of steps and sizes."""

import math
from dataclasses import replace

import numpy
import pytest
import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler
from support.helios_solvers import SAMPLERS
from support.ours import relative_error

from framepack_core.helios.recipes import BASE, DISTILLED, MID
from framepack_core.helios.stages import Stage, stages_of

RECIPES = {recipe.name: recipe for recipe in (BASE, MID, DISTILLED)}
SIZES = [(48, 80), (80, 48), (16, 24), (64, 64), (96, 160)]


def shift_of(stage: Stage) -> float:
    before = 2 if stage.number else 1
    tokens = 9 * (stage.height // before // 2) * (stage.width // before // 2)
    return 0.5 + 0.65 * (tokens - 256) / 3840


def scheduler_of(name: str, solver: str = "unipc"):
    if name == "distilled":
        return HeliosDMDScheduler(use_dynamic_shifting=True)
    stages = {"stages": 1, "stage_range": [0, 1]} if name == "base" else {}
    return HeliosScheduler(use_dynamic_shifting=True, scheduler_type=solver, **stages)


def set_timesteps(scheduler, name: str, stage: Stage, steps: int, amplified: bool = False) -> None:
    if name == "base":
        sigmas = numpy.linspace(0.999, 0.0, steps + 1)[:-1]
        scheduler.set_timesteps(steps, sigmas=sigmas, mu=shift_of(stage))
    else:
        scheduler.set_timesteps(steps, stage.number, mu=shift_of(stage), is_amplify_first_chunk=amplified)


@pytest.mark.parametrize("amplified", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_schedules_and_timesteps_equal_diffusers(name, size, amplified):
    recipe, scheduler = RECIPES[name], scheduler_of(name)
    for each in range(1, 31):
        for stage in stages_of(recipe, each * recipe.stages, *size, 9, first=amplified):
            set_timesteps(scheduler, name, stage, each, amplified and recipe.amplified)

            assert stage.sigmas == pytest.approx(scheduler.sigmas.tolist(), abs=1e-12)
            if name == "base":
                assert stage.timesteps == pytest.approx(scheduler.timesteps.tolist(), abs=1e-9)
            else:
                assert stage.timesteps == tuple(scheduler.timesteps.to(torch.int64).tolist())


@pytest.mark.parametrize("gamma", [0.1, 0.25, 1 / 3])
def test_starts_equal_diffusers(gamma):
    scheduler = HeliosScheduler(gamma=gamma)
    for stage in stages_of(replace(MID, gamma=gamma), 60, 48, 80, 9)[1:]:
        signal = 1 - scheduler.ori_start_sigmas[stage.number]
        alpha = 1 / (math.sqrt(1 + 1 / gamma) * (1 - signal) + signal)

        assert stage.alpha == pytest.approx(alpha, abs=1e-12)
        assert stage.beta == pytest.approx(alpha * (1 - signal) / math.sqrt(gamma), abs=1e-12)


# Solvers, on a velocity that depends on x and on the timestep


def velocity(x: torch.Tensor, timestep: float) -> torch.Tensor:
    return torch.sin(2 * x) + 0.5 * x + timestep / 1000


@pytest.mark.parametrize("each", [1, 2, 3, 8, 50])
@pytest.mark.parametrize(
    ("name", "solver"), [("base", "euler"), ("base", "unipc"), ("mid", "euler"), ("mid", "unipc"), ("distilled", "dmd")]
)
def test_a_solver_equals_diffusers(name, solver, each):
    x = torch.randn(1, 16, 9, 4, 4, generator=torch.Generator().manual_seed(3))
    recipe, scheduler = RECIPES[name], scheduler_of(name, solver)
    stage = stages_of(recipe, each * recipe.stages, 48, 80, 9)[-1]
    set_timesteps(scheduler, name, stage, each)
    expected = x
    for i, timestep in enumerate(scheduler.timesteps):
        renoised = {"cur_sampling_step": i, "dmd_noisy_tensor": x, "dmd_sigmas": scheduler.sigmas,
                    "dmd_timesteps": scheduler.timesteps, "all_timesteps": scheduler.timesteps}  # fmt: skip
        told = velocity(expected, stage.timesteps[i])
        expected = scheduler.step(told, timestep, expected, **(renoised if solver == "dmd" else {})).prev_sample

    def x0(x, sigma):
        return x - sigma.view(-1, 1, 1, 1, 1) * velocity(x, stage.timesteps[stage.step(float(sigma[0]))])

    found = SAMPLERS[solver](x0, x, torch.tensor(stage.sigmas))

    assert relative_error(found, expected) < 1e-5
