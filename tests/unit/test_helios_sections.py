"""The loop over chunks and stages: what each stage begins with, and continuing an earlier run."""

import pytest
import torch
from support.helios_video import after, generate, sections_of, solving, text_to_video

from framepack_core.helios import noise
from framepack_core.helios.recipes import BASE, DISTILLED, MID
from framepack_core.helios.sections import section_stages
from framepack_core.helios.solver import SAMPLERS
from framepack_core.helios.stages import stages_of

SHAPE = (1, 16, 1, 8, 16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def run(sample, recipe=DISTILLED, steps=6, chunks=2, shape=SHAPE, finished=()):
    timeline = text_to_video(chunks, shape)
    return timeline, generate(recipe, steps, sections_of(timeline), timeline, sample, generator(), finished)


def scaled(stage, start, context):
    """A model whose results tell stages and chunks apart."""
    return start * 0.5 + stage.number + context.section.number


def test_each_stage_begins_with_the_result_of_the_one_before_and_the_first_with_noise():
    begun = []

    def sample(stage, start, context):
        begun.append(start)
        return scaled(stage, start, context)

    ((section, latents),) = run(sample, chunks=1)[1]

    _, middle, fine = stages_of(DISTILLED, 6, 8, 16, 9, first=True)
    drawn = noise.draw([(2, 4), (4, 8), (8, 16)], (1, 16, 9, 8, 16), generator())
    assert torch.equal(begun[0], noise.coarsest(drawn))
    assert torch.equal(begun[1], noise.finer(begun[0] * 0.5, drawn.blocks[0], middle, 1 / 3))
    assert torch.equal(begun[2], noise.finer(begun[1] * 0.5 + 1, drawn.blocks[1], fine, 1 / 3))
    assert torch.equal(latents, begun[2] * 0.5 + 2)
    assert section.target == tuple(range(9))


def test_chunks_are_written_to_their_places_and_yielded():
    timeline, loop = run(scaled, chunks=3)

    yielded = [(section.target, latents) for section, latents in loop]

    assert [target[0] for target, _ in yielded] == [0, 9, 18]
    assert all(torch.equal(timeline.read(target), latents) for target, latents in yielded)
    assert timeline.known == set(range(27))


def test_only_the_first_chunk_is_amplified_wherever_it_begins():
    for timeline in (text_to_video(3, SHAPE), after(3, torch.zeros(SHAPE), torch.zeros(SHAPE), generator())):
        stages = section_stages(DISTILLED, 6, sections_of(timeline), timeline)

        assert [[len(stage.timesteps) for stage in of_chunk] for of_chunk in stages] == [[4] * 3, [2] * 3, [2] * 3]


def test_a_later_chunk_that_is_made_again_alone_is_not_amplified():
    timeline = text_to_video(3, SHAPE)
    timeline.write([*range(9), *range(18, 27)], torch.ones(1, 16, 18, 8, 16))

    (section,) = sections_of(timeline)

    assert section.target == tuple(range(9, 18))
    assert [len(stage.timesteps) for stage in section_stages(DISTILLED, 6, (section,), timeline)[0]] == [2, 2, 2]


def test_finished_chunks_are_not_sampled_again_and_the_others_come_out_as_they_would_have():
    expected = [latents for _, latents in run(scaled, chunks=4)[1]]
    sampled = []

    def sample(stage, start, context):
        sampled.append(context.section.number)
        return scaled(stage, start, context)

    found = [latents for _, latents in run(sample, chunks=4, finished=expected[:2])[1]]

    assert all(map(torch.equal, found, expected))
    assert set(sampled) == {2, 3}


@pytest.mark.parametrize(("recipe", "steps", "shape", "message"), [(MID, 50, SHAPE, "steps is 50"),
                                                                   (MID, 60, (1, 16, 1, 6, 16), "the latent is 16x6"),
                                                                   (BASE, 0, SHAPE, "steps is 0")])  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_sampled(recipe, steps, shape, message):
    def sample(stage, start, context):
        raise AssertionError("a stage was sampled")

    with pytest.raises(ValueError, match=message):
        list(run(sample, recipe, steps, shape=shape)[1])


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)

    list(run(scaled)[1])

    assert torch.equal(torch.randn(4), expected)


# From a velocity


@pytest.mark.parametrize(("cfg", "prompts"), [(1.0, [True]), (5.0, [True, False])])
def test_the_model_is_asked_for_the_prompts_that_cfg_needs_at_the_timesteps_of_the_stage(cfg, prompts):
    asked = []

    def velocity(x, timestep, context, positive):
        asked.append((x.shape[-2:], timestep.tolist(), positive))
        return torch.zeros_like(x)

    list(run(solving(velocity, DISTILLED, cfg, SAMPLERS["dmd"]), chunks=1)[1])

    stages = stages_of(DISTILLED, 6, 8, 16, 9, first=True)
    assert asked == [((stage.height, stage.width), [timestep], positive)
                     for stage in stages for timestep in stage.timesteps for positive in prompts]  # fmt: skip
