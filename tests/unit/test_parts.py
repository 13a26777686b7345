"""Videos in parts: which frames a part makes, what it sees of what comes before it, and how parts are written."""

import math

import pytest
from support.sections import groups, seen

from framepack_core.plan import Plan, without_effect
from framepack_core.prompts import Span, in_parts, parse
from framepack_core.spelling import seconds_of


def start_place(section):
    """The frames in the place of the start image."""
    return next(frames for _, frames, indices in groups(section) if indices == (0,))


def without_start(section):
    return [group for group in groups(section) if group[2] != (0,)]


def test_parts_are_made_one_after_another_each_in_the_order_of_the_plan():
    inverted = [section.target[0] for section in Plan.of(4.8, "inverted").in_parts([2.4]).fill(37)]
    endpoints = [section.target for section in Plan.of(7.2, "endpoints").in_parts([3.6]).fill(55)]

    assert inverted == [10, 1, 28, 19]
    assert [(target[0], target[-1]) for target in endpoints] == [(1, 27), (10, 18), (28, 54), (37, 45)]


def test_a_part_begins_as_a_video_does_that_starts_from_the_last_frame_before_it():
    plan = Plan.of(4.8, "inverted")
    later = plan.in_parts([2.4]).fill(37)[2:]
    alone = Plan.of(2.4, "inverted").fill(37, range(19))

    assert [(section.target, section.indices, groups(section)) for section in later] == [
        (section.target, section.indices, groups(section)) for section in alone
    ]


@pytest.mark.parametrize(("seconds", "begins"), [(0.1, 1), (1.7, 10), (1.9, 19), (4.8, 28)])
def test_a_part_begins_with_the_section_whose_beginning_is_nearest(seconds, begins):
    sections = Plan.of(4.8, "inverted").in_parts([seconds]).fill(37)

    beginnings = [section.target[0] for section in sections]
    assert beginnings == [*range(begins - 9, 0, -9), *range(28, begins - 1, -9)]


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_the_first_part_is_a_video_of_its_own(order):
    sections = Plan.of(4.8, order).in_parts([2.4]).fill(37)
    alone = Plan.of(2.4, order).fill(19)

    assert sections[: len(alone)] == alone


def test_a_part_sees_what_is_known_behind_it():
    first = Plan.of(3.6, "endpoints").in_parts([1.2]).fill(29, {0, 28})[0]

    assert first.target == tuple(range(1, 10))
    assert {frame for frame, _ in seen(first)} == {0, 28}


def test_forwards_a_part_sees_the_frame_before_it_in_the_place_of_the_start():
    plan = Plan.of(6.0, "forward")
    in_parts = plan.in_parts([1.2, 3.6]).fill(46)

    assert [start_place(section) for section in plan.fill(46)] == [(0,)] * 5
    assert [start_place(section) for section in in_parts] == [(0,), (9,), (9,), (27,), (27,)]
    assert [without_start(section) for section in in_parts] == [without_start(section) for section in plan.fill(46)]


def test_forwards_a_part_is_as_far_from_its_own_start_as_a_video_would_be():
    in_parts = Plan.of(4.8, "forward", layout="f1k1_x_f2k2f1k1_g9").in_parts([2.4]).fill(37)

    assert [start_place(section) for section in in_parts] == [(0,), (0,), (18,), (18,)]
    assert [section.indices[0] for section in in_parts] == [4, 10, 4, 10]


def test_forwards_a_guide_is_seen_where_a_part_would_see_the_frame_before_it():
    guided = Plan.of(4.8, "forward").in_parts([1.2]).fill(37, guides=[(19, 28)])

    assert [start_place(section) for section in guided] == [(0,), (9,), (38,), (9,)]


@pytest.mark.parametrize("layout", ["vanilla", "geometric"])
def test_parts_change_nothing_where_the_start_is_not_seen(layout):
    plan = Plan.of(6.0, "forward", layout=layout)

    assert plan.in_parts([1.2, 3.0]).fill(46) == plan.fill(46)
    (said,) = without_effect("forward", layout, parts="1.2")
    assert said == "parts is without effect in the forward order with this layout, which does not see the video's start"
    assert not without_effect("forward", "auto", parts="1.2") and not without_effect("inverted", "auto", parts="1.2")


def test_parts_change_nothing_where_sections_are_clips_of_their_own():
    plan = Plan.of(6.0, "forward").in_clips(True)

    frames = 1 + plan.generated
    assert plan.in_parts([1.2, 3.0]).fill(frames) == plan.fill(frames)
    (said,) = without_effect("forward", "auto", parts="1.2", apart=True)
    assert said.startswith("parts is without effect in the forward order of this model")


def test_a_part_may_begin_within_what_is_given():
    sections = Plan.of(2.4, "forward").in_parts([0.5]).fill(37, range(19))

    assert [start_place(section) for section in sections] == [(3,), (3,)]


def test_a_part_after_the_end_of_the_video_does_not_count_and_one_in_a_longer_video_does():
    plan = Plan.of(2.4, "inverted").in_parts([3.5])

    assert plan.fill(19) == Plan.of(2.4, "inverted").fill(19)
    assert "no part begins at 3.5 s: the video has ended" in plan.table()
    assert "no part begins" not in plan.table(range(19))
    assert [section.target[0] for section in plan.fill(37, range(19))] == [19, 28]


def prompted(plan, text, known=(0,)):
    """The plan whose parts are those of the text's prompts, for a video of which these frames are given."""
    frames = len(known) + plan.beside(len(known)).generated
    return in_parts(plan.in_parts_of("prompts"), [prompt.span for prompt in parse(text)], frames, known)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("a cat sits [2.4s: it jumps]", [2.4]),
        ("a cat sits [2.6s-3.7s: it jumps]", [2.4, 3.6]),  # where the sections are that are told so
        ("a cat sits [-1.3s: it jumps]", [3.6]),
        ("[0s: a cat sits] [1.2s ~2.4s: it jumps]", [1.2]),  # where a fade begins
        ("a cat sits [9s: it jumps]", []),
        ("a cat sits", []),
    ],
)
@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_a_prompted_plan_has_a_part_for_each_prompt(order, text, seconds):
    plan = Plan.of(4.8, order)

    found = prompted(plan, text)

    assert not found.prompted and found.fill(37) == plan.in_parts(seconds).fill(37)


def test_a_prompted_plan_is_without_parts_until_the_prompts_are_known():
    plan = Plan.of(4.8).in_parts_of(" prompts ")

    assert plan.fill(37) == Plan.of(4.8).fill(37)
    assert "with a part for each prompt that has a time" in plan.table()
    assert in_parts(plan, [], 37, (0,)).fill(37) == Plan.of(4.8).fill(37), "prompts that are read later"
    assert not without_effect("forward", "vanilla", parts="prompts")


def test_prompts_do_not_change_a_plan_whose_parts_are_said():
    for plan in (Plan.of(4.8), Plan.of(4.8).in_parts([1.2])):
        assert in_parts(plan, [None, Span(2.4)], 37, (0,)) is plan


def test_parts_of_prompts_begin_between_what_is_given_too():
    """A change within a clip that is given is one for the section after it."""
    plan = Plan.of(3.6, "endpoints")
    known = [0, *range(10, 15), 33]

    found = prompted(plan, "a [1.6s: b]", known)

    frames = len(known) + 27
    assert found.begun(frames, known).parts == found.parts == (plan.length(frames).begins(15),)
    assert [section.target[0] for section in found.fill(frames, known)] == [1, 15]


def test_a_loop_s_connection_is_no_part():
    plan = Plan.of(3.6, loop=2)

    assert prompted(plan, "a [3.6s: b]").parts == ()
    assert prompted(plan, "a [1.2s: b]").fill(46) == plan.in_parts([1.2]).fill(46)


def test_no_prompt_for_the_video_is_told():
    with pytest.raises(ValueError, match="no prompt has a time within the video's"):
        prompted(Plan.of(2.4), "[9s: a]")


@pytest.mark.parametrize("times", [[0.0], [-1.0], [4000.0], [2.0, 2.0], [3.0, 2.0], [math.nan], [math.inf]])
def test_parts_out_of_range_or_order_are_refused(times):
    with pytest.raises(ValueError, match=r"parts has .* write ascending seconds"):
        Plan.of(4.8, "inverted").in_parts(times)


def test_seconds_are_read_with_and_without_their_unit():
    assert seconds_of(" 2, 3.5s 4", "parts") == [2.0, 3.5, 4.0]
    assert seconds_of(" ", "parts") == []
    with pytest.raises(ValueError, match=r"parts is 'two'; write seconds of the video, like 2, 3\.5, or prompts"):
        Plan.of(4.8).in_parts_of("two")
