"""Sections of a finished video are made again."""

import pytest
import torch

from framepack_core.frames import Length
from framepack_core.placing import Arrangement
from framepack_core.plan import Plan
from framepack_core.redo import as_made, given_frames, redo, section_numbers, unseen_after


def video(frames: int) -> torch.Tensor:
    return torch.randn(2, 16, frames, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("order", "known", "numbers", "again"),
    [
        ("inverted", {0}, {0}, range(28, 37)),
        ("inverted", {0}, {1, 2}, range(10, 28)),
        ("inverted", {0}, {0, 3}, [*range(1, 10), *range(28, 37)]),
        ("inverted", set(), {3}, range(9)),
        ("inverted", {0, 19}, {1}, range(20, 29)),
        ("forward", {0}, {3}, range(28, 37)),
        ("endpoints", {0, 37}, {0}, [*range(1, 10), *range(28, 37)]),
    ],
)
def test_only_these_sections_are_unknown(order, known, numbers, again):
    plan = Plan.of(4.8, order)
    latents = video(36 + len(known))

    new_plan, frames = redo(plan, latents, known, numbers)

    timeline = Arrangement.of(new_plan, frames).timeline(latents.shape, 2)
    made = [frame for section in new_plan.bind(timeline) for frame in section.target]
    stays = sorted(timeline.known)
    assert sorted(made) == list(again)
    assert stays == [frame for frame in range(latents.shape[2]) if frame not in again]
    assert torch.equal(timeline.latents[:, :, stays], latents[:, :, stays])


def test_parts_of_prompts_are_those_that_the_video_was_made_in():
    asked = Plan.of(4.8).in_parts_of("prompts")
    made = Plan.of(4.8).in_parts([2.4])

    again = as_made(asked, Length(37), made.parts)

    assert redo(again, video(37), {0}, {3})[0] == redo(made, video(37), {0}, {3})[0]
    assert as_made(made, Length(37), (12,)) == made, "what the plan says itself counts"


def test_a_section_sees_what_comes_before_and_after_it_without_a_gap():
    plan = Plan.of(4.8)
    latents = video(37)

    new_plan, frames = redo(plan, latents, {0}, {2})

    (section,) = new_plan.bind(Arrangement.of(new_plan, frames).timeline(latents.shape, 2))
    assert [(group.frames[0], group.indices[0]) for group in section.context] == [(22, 13), (20, 11), (9, 0), (19, 10)]
    assert section.indices == tuple(range(1, 10))


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_a_section_of_a_later_part_sees_what_it_saw(order):
    plan = Plan.of(7.2, order).in_parts([2.0])  # where no section begins
    sections = plan.fill(55)
    last = sections[-1]

    new_plan, frames = redo(plan, video(55), {0}, {last.number})

    (section,) = new_plan.bind(Arrangement.of(new_plan, frames).timeline((2, 16, 55, 4, 6), 2))
    assert (section.target, section.indices) == (last.target, last.indices)
    assert section.context == last.context


@pytest.mark.parametrize(("text", "numbers"), [("1", {0}), ("2,4-5", {1, 3, 4}), (" 3 , 1 - 2,", {0, 1, 2})])
def test_sections_are_written_as_in_the_table(text, numbers):
    assert section_numbers(text, Plan.of(6).fill(46)) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sections is empty"),
        ("0", "names 0, but the video has the sections 1 to 5"),
        ("2-7", "names 2-7, but the video has the sections 1 to 5"),
        ("5-2", "names 5-2"),
        ("last", "sections is 'last'; write numbers"),
        ("-1", "sections is '-1'"),
    ],
)
def test_sections_that_do_not_exist_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        section_numbers(text, Plan.of(6).fill(46))


@pytest.mark.parametrize(
    ("order", "more", "known"), [("inverted", 1, {0}), ("inverted", 0, set()), ("endpoints", 2, {0, 19}), ("forward", 1, {0})]
)
def test_what_was_given_is_known_if_there_is_no_doubt(order, more, known):
    assert given_frames(Plan.of(2.4, order), 18 + more) == known


@pytest.mark.parametrize(("order", "frames"), [("inverted", 20), ("endpoints", 21), ("inverted", 10)])
def test_a_video_of_another_plan_is_refused(order, frames):
    with pytest.raises(ValueError, match="nothing says which others were given"):
        given_frames(Plan.of(2.4, order), frames)


def test_a_section_that_is_made_again_sees_the_same_anchor():
    plan, latents = Plan.of(4.8, "forward", reanchored=True), torch.zeros(1, 16, 37, 2, 2)
    whole = plan.fill(37)

    shorter, _ = redo(plan, latents, {0}, {3})

    (again,) = shorter.fill(37, range(28))
    assert again.context == whole[3].context
    assert again.context != Plan.of(4.8, "forward").fill(37)[3].context


def test_the_forward_order_does_not_see_what_stays_after():
    forward, inverted = (Plan.of(3.6, order) for order in ("forward", "inverted"))

    assert unseen_after(forward, forward.fill(28), {0})
    assert not unseen_after(forward, forward.fill(28), {1, 2})
    assert not unseen_after(inverted, inverted.fill(28), {0})
