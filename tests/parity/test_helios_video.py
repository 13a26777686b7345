"""Whole Helios videos equal diffusers' pipelines, in float32 on a CPU: same transformer, embeddings, given latents and seed."""

import math
from dataclasses import replace

import pytest
import torch
from support import helios_video
from support.helios_pipelines import Inputs, oracle_video, small_transformer
from support.helios_solvers import SAMPLERS
from support.helios_video import after, generate, sections_of, solving
from support.ours import relative_error

from framepack_core.helios import chunks, guidance, noise, solver, stages
from framepack_core.helios.recipes import RECIPES
from framepack_core.plan import Plan
from framepack_core.timeline import Guide, Timeline

SEED = 11
TOLERANCE = 1e-4
GAMMA = 0.333  # with the released 1/3 the oracle's Cholesky factor fails on some processors
WHOLE, PYRAMID = (10, 14), (16, 24)  # latent pixels: the first has no multiple of the coarser kernels
STEPS = {"base": 5, "mid": 5, "distilled": 2}  # of a stage


@pytest.fixture(scope="module")
def transformer():
    return small_transformer()


def of_transformer(transformer, inputs: Inputs):
    """diffusers' transformer as a velocity that is given our context."""

    def velocity(x, timestep, context, positive):
        long, mid, *short = context.latents
        groups = context.section.context
        index = [torch.tensor(group.indices)[None] for group in groups]
        return transformer(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=inputs.positive if positive else inputs.negative,
            indices_hidden_states=torch.tensor(context.section.indices)[None],
            indices_latents_history_long=index[0],
            indices_latents_history_mid=index[1],
            indices_latents_history_short=torch.cat(index[2:], dim=1),
            latents_history_long=long,
            latents_history_mid=mid,
            latents_history_short=torch.cat(short, dim=2),
            return_dict=False,
        )[0]

    return velocity


def inputs_of(variant: str) -> Inputs:
    return Inputs.of(*(WHOLE if variant == "base" else PYRAMID))


def timeline_of(mode: str, count: int, inputs: Inputs, generator: torch.Generator):
    match mode:
        case "text":
            return helios_video.text_to_video(count, inputs.image.shape)
        case "image":
            return after(count, inputs.image, inputs.still, generator)
    return after(count, inputs.image, inputs.clip, generator)


def ours(
    transformer, inputs: Inputs, variant: str, mode: str, count: int = 2, solver: str = "", reanchored: bool = False
) -> torch.Tensor:
    """All latents of a video of ours, with those that are given before the chunks."""
    recipe = replace(RECIPES[variant], gamma=GAMMA)
    generator = torch.Generator().manual_seed(SEED)
    timeline = timeline_of(mode, count, inputs, generator)
    sample = solving(of_transformer(transformer, inputs), recipe, recipe.cfg, SAMPLERS[solver or recipe.solver])
    sections, steps = sections_of(timeline, reanchored), STEPS[variant] * recipe.stages
    assert len(list(generate(recipe, steps, sections, timeline, sample, generator))) == count
    return timeline.latents


def diffusers(transformer, inputs: Inputs, variant: str, mode: str, count: int = 2, **options) -> torch.Tensor:
    return oracle_video(transformer, variant, inputs, mode, count, steps=STEPS[variant], seed=SEED, gamma=GAMMA, **options)


@pytest.mark.parametrize(
    ("variant", "mode", "options"),
    [
        ("base", "text", {"count": 3, "solver": "euler"}),
        ("base", "text", {"count": 3, "solver": "unipc"}),
        ("base", "text", {"count": 3, "solver": "euler", "reanchored": True}),
        ("base", "image", {"count": 3, "solver": "euler"}),
        ("base", "image", {"count": 3, "solver": "unipc", "reanchored": True}),
        ("base", "clip", {"solver": "euler"}),
        ("base", "clip", {"count": 3, "solver": "unipc", "reanchored": True}),
        ("mid", "text", {"solver": "euler"}),
        ("mid", "text", {"solver": "unipc"}),
        ("mid", "image", {"solver": "unipc"}),
        ("mid", "clip", {"solver": "euler"}),
        ("distilled", "text", {"count": 3}),
        ("distilled", "image", {}),
        ("distilled", "clip", {}),
    ],
)
def test_a_whole_video_equals_diffusers(transformer, variant, mode, options):
    """The first chunk of Distilled is amplified."""
    inputs = inputs_of(variant)
    expected = diffusers(transformer, inputs, variant, mode, **options)

    found = ours(transformer, inputs, variant, mode, **options)

    assert relative_error(found, expected) < TOLERANCE


# Faults that must show


def blocks_first(draw):
    """The noise between the stages before that of the chunk."""

    def swapped(sizes, shape, generator):
        blocks = draw(sizes, (*shape[:3], 0, 0), generator).blocks
        return noise.ChunkNoise(torch.randn(tuple(shape), generator=generator), blocks)

    return swapped


def late_strength(latents, generator, each_frame=False):
    """The noise on what is given before its strength."""
    normal = torch.randn(latents.shape, generator=generator)
    strength = torch.rand(latents.shape[2] if each_frame else 1, generator=generator) * (noise.MOST - noise.LEAST) + noise.LEAST
    strength = strength.view(1, 1, -1, 1, 1)
    return strength * normal + (1 - strength) * latents


def one_strength(noised):
    return lambda latents, generator, each_frame=False: noised(latents, generator)


def grey(read):
    """Frames that do not exist are not zero in the model's space, as if zeros were the VAE's."""
    return lambda timeline, frame: read(timeline, frame) + 0.3 * (frame is None)


def zeros_throughout(text_to_video):
    """Every chunk has zeros for an anchor."""

    def timeline_of(chunks, shape):
        timeline = text_to_video(chunks, shape)
        timeline.guides = (Guide(torch.zeros(shape), 0, timeline.frames),)
        return timeline

    return timeline_of


def later(timesteps):
    return lambda *given: tuple(timestep - 1 for timestep in timesteps(*given))


def not_cut(recipe, number, sigmas):
    least, most = stages.timestep_range(recipe, number)
    return tuple(least + sigma * (most - least) for sigma in sigmas)


def blocks_by_columns(in_place):
    return lambda blocks, shape: in_place(blocks[:, [0, 2, 1, 3]], shape)


FAULTS = {
    "noise of the stages first": ("distilled", "text", noise, "draw", blocks_first),
    "blocks by columns": ("distilled", "text", noise, "_in_place", blocks_by_columns),
    "strength after the noise": ("base", "image", chunks, "noised", lambda noised: late_strength),
    "one strength for all frames": ("base", "clip", chunks, "noised", one_strength),
    "zeros in the VAE's space": ("base", "text", Timeline, "_frame", grey),
    "zeros for the anchor of every chunk": ("base", "text", helios_video, "text_to_video", zeros_throughout),
    "an anchor that stays": ("base", "image", Plan, "anchor_of", lambda anchor_of: lambda plan, sections: None),
    "timesteps one too low": ("distilled", "text", stages, "_timesteps", later),
    "timesteps not cut": ("distilled", "text", stages, "_timesteps", lambda timesteps: not_cut),
    "ordinary cfg": ("mid", "text", guidance, "zero_star", lambda zero_star: lambda x, sigma, positive, negative: negative),
    "a lambda of -log sigma": ("mid", "text", solver, "_lambda", lambda flow: lambda sigma: -math.log(sigma)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parity_notices(transformer, fault, monkeypatch):
    variant, mode, place, name, broken = FAULTS[fault]
    inputs = inputs_of(variant)
    options = {"count": 3, "solver": "euler", "reanchored": True} if variant == "base" else {}
    expected = diffusers(transformer, inputs, variant, mode, **options)
    monkeypatch.setattr(place, name, broken(getattr(place, name)))

    found = ours(transformer, inputs, variant, mode, **options)

    assert relative_error(found, expected) > 10 * TOLERANCE
