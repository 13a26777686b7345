"""Sections of a finished video are made again."""

import re
from dataclasses import replace

import pytest
import torch

from framepack_core.frames import Length
from framepack_core.made import Made, Shown
from framepack_core.placing import Arrangement, Frames, Placed
from framepack_core.plan import Plan
from framepack_core.redo import as_made, given_frames, redo, section_numbers, sections_again, unseen_after


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

    new_plan, frames = redo(Made(plan, tuple(sorted(known)), latents.shape[2]), latents, numbers)

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

    assert redo(Made(again, (0,), 37), video(37), {3})[0] == redo(Made(made, (0,), 37), video(37), {3})[0]
    assert as_made(made, Length(37), (12,)) == made, "what the plan says itself counts"


def test_a_section_sees_what_comes_before_and_after_it_without_a_gap():
    plan = Plan.of(4.8)
    latents = video(37)

    new_plan, frames = redo(Made(plan, (0,), latents.shape[2]), latents, {2})

    (section,) = new_plan.bind(Arrangement.of(new_plan, frames).timeline(latents.shape, 2))
    assert [(group.frames[0], group.indices[0]) for group in section.context] == [(22, 13), (20, 11), (9, 0), (19, 10)]
    assert section.indices == tuple(range(1, 10))


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_a_section_of_a_later_part_sees_what_it_saw(order):
    plan = Plan.of(7.2, order).in_parts([2.0])  # where no section begins
    sections = plan.fill(55)
    last = sections[-1]

    new_plan, frames = redo(Made(plan, (0,), 55), video(55), {last.number})

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

    shorter, _ = redo(Made(plan, (0,), latents.shape[2]), latents, {3})

    (again,) = shorter.fill(37, range(28))
    assert again.context == whole[3].context
    assert again.context != Plan.of(4.8, "forward").fill(37)[3].context


def test_the_forward_order_does_not_see_what_stays_after():
    forward, inverted = (Plan.of(3.6, order) for order in ("forward", "inverted"))

    assert unseen_after(forward, forward.fill(28), {0})
    assert not unseen_after(forward, forward.fill(28), {1, 2})
    assert not unseen_after(inverted, inverted.fill(28), {0})


# What the video says of how it was made


def again(plan: Plan, made: Made | None, sections: str = "2", latents: torch.Tensor | None = None) -> tuple[Plan, Frames, list]:
    return sections_again(sections, plan, video(37) if latents is None else latents, Length(37), made)


def guide(value: float, **changes) -> Placed:
    picture = torch.full((1, 16, 1, 4, 6), value)
    return Placed(**{"latents": picture, "picture": picture, "at": "time", "use": "guide", "seconds": 2.5, **changes})


def seen_first(plan: Plan, frames: Frames) -> list[float | None]:
    """Of each section that is made again, the value in the place of the start image if it is a guide."""
    timeline = Arrangement.of(plan, frames).timeline(frames.placed[0].latents.shape, 2)
    farthest = [min(section.context, key=lambda group: group.indices[0]) for section in plan.bind(timeline)]
    return [timeline.read(far.frames)[0, 0, 0, 0, 0].item() if (far.frames[0] or 0) > 37 else None for far in farthest]


@pytest.mark.parametrize(
    ("changes", "found", "expected"),
    [
        ({"order": "endpoints"}, "order endpoints", "order inverted"),
        ({"fps": 24.0}, "24 fps", "30 fps"),
        ({"window": 12, "seconds": 6.4}, "window 12", "window 9"),
        ({"layout": "g9_f1k1f2k2f16k4"}, "layout g9_f1k1f2k2f16k4", "layout f1k1_x_g9_f1k1f2k2f16k4_td"),
        ({"paddings": "exact"}, "paddings exact", "paddings released"),
        ({"exact_length": True}, "an exact length of 144 frames", "no exact length"),
        ({"seconds": 3.6}, "3 sections", "4 sections"),
        ({"parts": "2.4"}, "parts at 2.4 s", "no parts"),
    ],
)
def test_another_plan_than_the_video_s_is_refused_with_both_values(changes, found, expected):
    options = {"seconds": 4.8, **changes}
    parts = options.pop("parts", "")
    other = Plan.of(**options).in_parts_of(parts)
    message = f"the plan has {found}, but latent was made with {expected}; connect the FramePack_Plan"

    with pytest.raises(ValueError, match=re.escape(message)):
        again(other, Made(Plan.of(4.8), (0,), 37))


def test_a_plan_of_the_same_sections_is_the_video_s():
    """4.9 seconds are four sections too, and parts of prompts are those that the video was made in."""
    made = Plan.of(4.8).in_parts([2.4])

    plan, frames, notes = again(Plan.of(4.9).in_parts_of("prompts"), Made(made, (0,), 37))

    assert plan == redo(Made(made, (0,), 37), video(37), {1})[0]
    assert frames.made is not None and frames.made.plan.parts == made.parts
    assert not notes


def test_the_rest_of_a_finished_video_is_not_filled_by_another_plan():
    frames = again(Plan.of(4.8), None)[1]

    with pytest.raises(ValueError, match="video of 37 latent frames, but this plan makes 64 of them; connect the plan"):
        Arrangement.of(Plan.of(4.8), frames)


def test_nothing_can_be_fixed_in_a_finished_video():
    frames = again(Plan.of(4.8), None)[1]

    for placed, where in ((guide(1.0, use="fixed"), "2.50 s"), (guide(1.0, use="fixed", at="end"), "the end")):
        with pytest.raises(ValueError, match=f"fixed at {where}, but frames are the rest of a finished video .* to guide"):
            frames.with_placed(placed)


def test_sections_see_the_guides_that_they_saw():
    made = Made(Plan.of(4.8), (0,), 37, (Shown(28, 37, guide(1.0).picture), Shown(19, 28), Shown(10, 19, guide(3.0).picture)))

    plan, frames, notes = again(Plan.of(4.8), made, "1-3")

    assert seen_first(plan, frames) == [1.0, None, 3.0]
    assert not notes


def test_a_new_guide_takes_the_place_of_the_one_that_a_section_saw():
    """It covers one frame of the section from 1.23 to 2.43 s; the other section keeps its own."""
    shown = (Shown(28, 37, guide(1.0).picture), Shown(10, 19, guide(3.0).picture))
    plan, frames, _ = again(Plan.of(4.8), Made(Plan.of(4.8), (0,), 37, shown), "1,3")

    guided = frames.with_placed(guide(5.0, seconds=2.0))

    assert seen_first(plan, guided) == [1.0, 5.0]


def test_what_sections_were_shown_goes_on_to_the_next_time():
    shown = (Shown(28, 37, None, "end"), Shown(19, 28, None, "later"), Shown(10, 19), Shown(1, 10, None, "start"))
    made = Made(Plan.of(4.8), (0,), 37, shown)

    frames = again(Plan.of(4.8), made)[1]

    assert frames.made == made
    assert [made.embedding(range(first, first + 9)) for first in (28, 19, 10, 1)] == ["end", "later", None, "start"]
    assert made.again([Shown(19, 28, None, "new")]).embedding(range(19, 28)) == "new"
    assert made.again([Shown(19, 28, None, "new")]).embedding(range(28, 37)) == "end"
    assert made.cut(19, 37) == replace(made, given=(), frames=18, shown=(Shown(9, 18, None, "end"), Shown(0, 9, None, "later")))


def test_a_video_that_does_not_say_what_its_sections_saw_is_made_again_with_a_note():
    notes = again(Plan.of(4.8), None)[2]

    assert len(notes) == 1 and "latent does not say which guides and image embeddings its sections had" in notes[0]
    assert not again(Plan.of(4.8), Made(Plan.of(4.8), (0,), 37))[2]


def test_what_was_seen_at_the_end_stays_with_the_part_that_has_the_end():
    end, other = torch.zeros(1, 16, 1, 4, 6), torch.ones(1, 16, 1, 4, 6)
    made = Made(Plan.of(4.8), (0,), 37, end=end)

    assert made.cut(19, 37).end is end and made.cut(0, 28).end is None
    assert made.again(()).end is end and made.again((), other).end is other


def test_pictures_of_another_size_are_left_out_with_a_note():
    made = Made(Plan.of(4.8), (0,), 37, (Shown(19, 28, guide(1.0).picture, "later"),), end=guide(2.0).picture)

    plan, frames, notes = again(Plan.of(4.8), made, latents=torch.zeros(2, 16, 37, 8, 12))

    assert len(notes) == 1 and "latent was resized, so its guides and its end_latent do not fit" in notes[0]
    assert seen_first(plan, frames) == [None]
    assert frames.made is not None and frames.made.end is None
    assert frames.made.embedding(range(19, 28)) == "later"
