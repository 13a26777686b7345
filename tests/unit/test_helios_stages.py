"""The released Helios settings as numbers: stages, schedules, timesteps, and what does not fit."""

import pytest

from framepack_core.helios.recipes import BASE, DISTILLED, MID, RECIPES
from framepack_core.helios.stages import shift_mu, size_multiple, stages_of, timestep_range

SIZE = (48, 80)  # 384x640 pixels


def test_the_three_released_models_have_a_recipe_by_name():
    assert RECIPES == {"base": BASE, "mid": MID, "distilled": DISTILLED}
    assert [str(recipe) for recipe in RECIPES.values()] == ["Helios Base", "Helios Mid", "Helios Distilled"]
    assert [recipe.stages for recipe in RECIPES.values()] == [1, 3, 3]


# Base


def test_base_has_one_stage_of_the_videos_size_that_begins_with_noise():
    (stage,) = stages_of(BASE, 50, *SIZE, 9)

    assert (stage.height, stage.width) == SIZE
    assert (stage.alpha, stage.beta, stage.zeroed) == (0, 1, 0)
    assert stage.sigmas[:3] == pytest.approx([0.999853, 0.996866, 0.993772], abs=1e-6)
    assert stage.sigmas[-1] == 0
    assert stage.timesteps == pytest.approx([1000 * sigma for sigma in stage.sigmas[:-1]])


def test_the_shift_of_a_video_is_linear_in_its_tokens_without_a_cap():
    assert shift_mu(8640) == pytest.approx(1.919167, abs=1e-6)
    assert shift_mu(100_000) == pytest.approx(0.5 + 0.65 * (100_000 - 256) / 3840)


# The pyramid


@pytest.mark.parametrize("recipe", [MID, DISTILLED], ids=str)
def test_each_stage_is_half_the_size_of_the_next(recipe):
    stages = stages_of(recipe, recipe.steps, *SIZE, 9)

    assert [(stage.number, stage.height, stage.width) for stage in stages] == [(0, 12, 20), (1, 24, 40), (2, 48, 80)]


def test_stages_begin_with_the_published_shares_of_the_one_before_and_of_noise():
    stages = stages_of(MID, 60, *SIZE, 9)

    starts = [number for stage in stages for number in (stage.alpha, stage.beta)]
    assert starts == pytest.approx([0, 1, 0.60012, 0.692612, 0.749813, 0.433337], abs=1e-6)


def test_stages_share_the_timesteps_as_published():
    ranges = [timestep_range(MID, number) for number in range(3)]

    assert ranges == [
        pytest.approx((743.5117, 999), abs=1e-4),
        pytest.approx((385.9716, 743.256), abs=1e-4),
        pytest.approx((1.3836, 385.614), abs=1e-4),
    ]


def test_schedules_and_timesteps_of_distilled_are_the_published_ones():
    stages = stages_of(DISTILLED, 6, *SIZE, 9)

    assert [stage.sigmas for stage in stages] == [
        pytest.approx((0.99818, 0.35404, 0), abs=1e-5),
        pytest.approx((0.99818, 0.35404, 0), abs=1e-5),
        pytest.approx((0.99878, 0.45124, 0), abs=1e-5),
    ]
    assert [stage.timesteps for stage in stages] == [(998, 833), (742, 512), (385, 174)]


def test_the_first_chunk_of_distilled_has_twice_the_steps():
    stages = stages_of(DISTILLED, 6, *SIZE, 9, first=True)

    assert [stage.timesteps for stage in stages] == [(998, 902, 833, 783), (742, 607, 512, 441), (385, 274, 174, 84)]


@pytest.mark.parametrize("recipe", [BASE, MID], ids=str)
def test_the_first_chunk_of_the_others_is_like_all(recipe):
    assert stages_of(recipe, 60, *SIZE, 9, first=True) == stages_of(recipe, 60, *SIZE, 9)


def test_the_schedule_of_mid_goes_down_to_the_least_sigma_before_0():
    stage = stages_of(MID, 60, *SIZE, 9)[0]

    assert len(stage.sigmas) == 21
    assert stage.sigmas[0] == pytest.approx(0.999422, abs=1e-6)
    assert stage.sigmas[-2:] == (pytest.approx(0.001726, abs=1e-6), 0)


def test_only_the_first_two_steps_of_mid_stand_still():
    assert [stage.zeroed for stage in stages_of(MID, 60, *SIZE, 9)] == [2, 0, 0]
    assert [stage.zeroed for stage in stages_of(DISTILLED, 6, *SIZE, 9)] == [0, 0, 0]


@pytest.mark.parametrize(("steps", "still"), [(60, 2), (6, 2), (3, 1)])
def test_the_sigmas_of_steps_that_stand_still_are_told_from_the_others(steps, still):
    first, later, _ = stages_of(MID, steps, *SIZE, 9)

    assert [sigma > first.still_above for sigma in first.sigmas] == [True] * still + [False] * (steps // 3 + 1 - still)
    assert not any(sigma > later.still_above for sigma in later.sigmas)


def test_a_step_is_found_by_its_sigma_also_if_that_has_been_rounded():
    stage = stages_of(MID, 60, *SIZE, 9)[1]

    assert [stage.step(sigma * (1 + 1e-6)) for sigma in stage.sigmas[:-1]] == list(range(20))


# What does not fit


@pytest.mark.parametrize(
    ("recipe", "steps", "message"),
    [
        (MID, 50, "steps is 50, but Helios Mid shares a section's steps evenly among 3 stages; choose 48 or 51"),
        (
            DISTILLED,
            1,
            "steps is 1, but Helios Distilled shares a section's steps evenly among 3 stages; choose 3 or 6",
        ),
        (DISTILLED, 0, "choose 3 or 6"),
        (BASE, 0, "steps is 0, but Helios Base needs at least 1"),
    ],
)
def test_steps_that_cannot_be_shared_evenly_are_refused(recipe, steps, message):
    with pytest.raises(ValueError, match=message):
        stages_of(recipe, steps, *SIZE, 9)


@pytest.mark.parametrize(
    ("recipe", "size", "message"),
    [
        (MID, (44, 80), "the latent is 80x44, but Helios Mid needs multiples of 8 latent pixels.*to multiples of 64 pixels"),
        (DISTILLED, (48, 84), "84x48.*multiples of 8 latent pixels"),
        (BASE, (48, 81), "81x48.*multiples of 2 latent pixels.*multiples of 16 pixels"),
    ],
)  # fmt: skip
def test_sizes_whose_coarsest_stage_has_no_whole_tokens_are_refused(recipe, size, message):
    with pytest.raises(ValueError, match=message):
        stages_of(recipe, recipe.steps, *size, 9)


def test_the_multiple_that_sizes_need_halves_into_whole_tokens():
    assert [size_multiple(recipe) for recipe in RECIPES.values()] == [2, 8, 8]
