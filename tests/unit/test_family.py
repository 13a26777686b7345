"""What differs between model families, and what of a plan depends on it."""

from dataclasses import replace

import pytest

from framepack_core.family import FRAMEPACK
from framepack_core.filling import seconds_shown
from framepack_core.orders import ORDERS
from framepack_core.plan import Plan

IN_CLIPS = replace(FRAMEPACK, name="Another", orders=("forward",), apart=True)


@pytest.mark.parametrize("order", ORDERS)
def test_framepack_takes_every_plan_as_it_is(order):
    plan = Plan.of(5, order)

    assert FRAMEPACK.fit(plan) == plan


def test_an_order_that_a_family_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"^the plan's order is inverted, but Another makes videos in the order forward only"):
        IN_CLIPS.fit(Plan.of(5, "inverted"))


def test_a_family_that_does_not_look_ahead_closes_no_loop():
    with pytest.raises(ValueError, match=r"loop is 2\), but Another does not look ahead"):
        IN_CLIPS.fit(Plan.of(5, "forward", loop=2))


@pytest.mark.parametrize("given", [0, 1, 18])
def test_sections_that_are_clips_of_their_own_follow_each_other_without_a_gap_and_what_is_given_is_not_shown(given):
    plan = IN_CLIPS.fit(Plan.of(2.75, "forward", fps=24))
    length = plan.length(given + plan.generated, given)

    times = [seconds_shown(section, length, plan.fps)[0] for section in plan.fill(length.latents, range(given))]

    assert times == [(0, 33 / 24), (33 / 24, 66 / 24)]
    assert plan.section_seconds == 33 / 24


def test_clips_of_their_own_are_shorter_so_a_long_video_has_more_of_them():
    plan = Plan.of(60, "forward", fps=24)

    assert plan.sections == 40 and IN_CLIPS.fit(plan).sections == 44
    assert FRAMEPACK.fit(IN_CLIPS.fit(plan)) == plan


@pytest.mark.parametrize(("seconds", "sections"), [(33 / 24, 1), (34 / 24, 2), (99 / 24, 3), (100 / 24, 4)])
@pytest.mark.parametrize("given", [0, 1, 9])
def test_an_exact_length_takes_as_many_clips_as_it_needs_whatever_is_given(seconds, sections, given):
    plan = IN_CLIPS.fit(Plan.of(seconds, "forward", fps=24, exact_length=True))

    assert plan.beside(given).sections == sections
