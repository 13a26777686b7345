"""A Helios video whose stages go through ComfyUI's KSAMPLER and its cfg equals one that is made without ComfyUI."""

from types import SimpleNamespace

import comfy.model_sampling
import comfy.samplers
import pytest
import torch
from support.helios_solvers import SAMPLERS
from support.helios_video import generate, sections_of, solving, text_to_video
from support.ours import relative_error

from framepack_core.helios.guidance import prepared
from framepack_core.helios.recipes import BASE, DISTILLED, MID

STEPS = 15


class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """What ComfyUI's Wan models turn sigmas and velocities with."""


def velocity(x, timestep, context, positive):
    prompt = 0.3 if positive else 0.5
    return torch.sin(2 * x) + prompt * (x + timestep.view(-1, 1, 1, 1, 1) / 1000)


class Guided:
    """What a guider hands to a sampler, for one stage."""

    def __init__(self, recipe, cfg, stage, context):
        self.recipe, self.cfg, self.stage, self.context = recipe, cfg, stage, context
        self.inner_model = SimpleNamespace(model_sampling=Flow())
        self.model_patcher = SimpleNamespace(model=None)

    def __call__(self, x, sigma, model_options, seed):
        timestep = torch.full_like(sigma, self.stage.timesteps[self.stage.step(float(sigma[0]))])
        velocities = (velocity(x, timestep, self.context, positive) for positive in (True, False))
        out = [self.inner_model.model_sampling.calculate_denoised(sigma, one, x) for one in velocities]
        if self.cfg == 1:
            return out[0]
        return comfy.samplers.cfg_function(None, *prepared(self.recipe, self.stage, x, sigma, *out), self.cfg, x, sigma)


def through_comfyui(recipe, cfg, solver):
    def sample(stage, start, context):
        guided, sigmas = Guided(recipe, cfg, stage, context), torch.tensor(stage.sigmas)
        options = {"model_options": {}, "seed": 0}
        noise, nothing = start / sigmas[0], torch.zeros_like(start)
        return comfy.samplers.KSAMPLER(SAMPLERS[solver]).sample(
            guided, sigmas, options, None, noise, nothing, disable_pbar=True
        )

    return sample


def video(sample, recipe) -> torch.Tensor:
    timeline = text_to_video(2, (1, 16, 1, 16, 24))
    generator = torch.Generator().manual_seed(1)
    for _ in generate(recipe, STEPS, sections_of(timeline), timeline, sample, generator):
        pass
    return timeline.latents


@pytest.mark.parametrize(
    ("recipe", "cfg", "solver"),
    [(BASE, 5.0, "unipc"), (BASE, 5.0, "euler"), (MID, 5.0, "unipc"), (MID, 5.0, "euler"), (DISTILLED, 1.0, "dmd")],
    ids=str,
)
def test_stages_through_comfyuis_sampler_and_cfg_make_the_same_video(recipe, cfg, solver):
    expected = video(solving(velocity, recipe, cfg, SAMPLERS[solver]), recipe)

    assert relative_error(video(through_comfyui(recipe, cfg, solver), recipe), expected) < 1e-5
