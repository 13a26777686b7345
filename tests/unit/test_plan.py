"""The order in which a video is filled, what each section sees, and at which time indices."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.sections import groups, seen

from framepack_core.layout import Kernel
from framepack_core.orders import ENDPOINTS, INVERTED, ORDERS, released_paddings
from framepack_core.plan import Plan

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)

LAYOUTS = {
    "inverted": [
        "framepack",
        "vanilla",
        "geometric",
        "duplicated",
        "temporal",
        "g9_f2k2f1k1h4w2_td",
        "g9_f1k1f2k2_ta",
        "f2k1_x_g9_f1k1f4k2_tc",
        "ta_f2k2f1k1_g9",
        "f1k1_x_g9_f2k1_x_f1k2",
    ],
    "forward": [
        "f1",
        "vanilla",
        "geometric",
        "duplicated",
        "temporal",
        "important-start",
        "symmetric",
        "ta_f2k2f1k1_g9",
        "f1k1_tc_f4k2f1k1_g9",
        "f1k1_x_f3k1_g9",
    ],
    "endpoints": [
        "endpoints",
        "td_f2k2f1k1_g9_x_f1k1",
        "ta_f2k2f1k1_g9_x_f1k1",
        "f1k1_tc_f4k2f1k1_g9_x_f2k2f1k1",
        "f1k1_x_f3k1_g9_x_f1k1",
    ],
}


@st.composite
def videos(draw, max_gaps=3):
    """(plan, frames, known): gaps of whole windows between runs of known frames, with or without known ends."""
    order = draw(st.sampled_from(list(ORDERS)))
    layout = draw(st.sampled_from(LAYOUTS[order]))
    window = draw(st.integers(1, 11))
    gaps = draw(st.lists(st.integers(1, 7), min_size=1, max_size=max_gaps))
    frames, known = draw(st.integers(0, 30)), set()
    known.update(range(frames))
    for i, gap in enumerate(gaps):
        frames += gap * window
        run = draw(st.integers(min(1, len(gaps) - 1 - i), 30))
        known.update(range(frames, frames + run))
        frames += run
    paddings = draw(st.sampled_from(["released", "exact"]))
    seconds = sum(gaps) * window * 4 / 30
    parts = tuple(sorted(draw(st.sets(st.integers(1, 4 * frames), max_size=3))))
    plan = replace(Plan.of(seconds, order, window, layout, paddings=paddings), parts=parts)
    return plan, frames, frozenset(known)


# What holds for every plan


@given(videos())
def test_every_unknown_frame_is_generated_exactly_once_and_a_known_one_never(video):
    plan, frames, known = video

    generated = [frame for section in plan.fill(frames, known) for frame in section.target]

    assert sorted(generated) == [frame for frame in range(frames) if frame not in known]


@given(videos())
def test_a_section_sees_only_frames_that_are_known_or_generated_before_it(video):
    plan, frames, known = video
    done = set(known)

    for section in plan.fill(frames, known):
        assert {frame for frame, _ in seen(section)} <= done
        done.update(section.target)


@given(videos())
def test_sections_are_numbered_in_sampling_order(video):
    plan, frames, known = video

    numbers = [section.number for section in plan.fill(frames, known)]

    assert numbers == list(range(len(numbers)))


@given(videos())
def test_a_section_generates_one_window_or_with_endpoints_two(video):
    plan, frames, known = video

    for section in plan.fill(frames, known):
        both = plan.order == ENDPOINTS and len(section.target) == 2 * plan.window
        ends = [section.target[: plan.window], section.target[plan.window :]] if both else [section.target]
        assert all(end == tuple(range(end[0], end[0] + plan.window)) for end in ends)


@given(videos())
def test_time_indices_are_never_shared_and_one_goes_to_each_frame(video):
    """They start at 0, even if there is nothing before the section, whose place then stays free."""
    (plan, frames, known), done = video, set()

    for section in plan.fill(frames, known):
        indices = [*section.indices, *(index for group in section.context for index in group.indices)]
        assert min(indices) >= 0
        assert min(indices) == 0 or not any(frame < section.target[0] for frame in (*known, *done))
        done |= {*section.target}
        assert len(set(indices)) == len(indices)
        assert len(section.indices) == len(section.target)
        assert all(len(group.indices) == len(group.frames) for group in section.context)


@given(videos())
def test_time_indices_rise_with_time_within_the_context_and_the_generated_frames(video):
    plan, frames, known = video

    for section in plan.fill(frames, known):
        spans = [(group.indices, group.frames) for group in section.context] + [(section.indices, section.target)]
        for indices, shown in spans:
            exist = [frame for frame in shown if frame is not None]
            assert list(indices) == sorted(set(indices))
            assert exist == sorted(set(exist))


@given(videos())
def test_no_generated_frame_lies_between_the_wrong_time_indices(video):
    """Before stays before: the earlier frames that a section sees have smaller time indices than those it generates."""
    plan, frames, known = video

    for section in plan.fill(frames, known):
        for frame, index in zip(section.target, section.indices, strict=True):
            assert all((other < frame) == (at < index) for other, at in seen(section))


def test_a_known_frame_after_the_generated_ones_is_never_shown_before_them():
    """The start group of a forward layout reads the video's first frames, of which the later ones may be known already."""
    (section,) = Plan.of(0.1, "forward", window=1, layout="symmetric").fill(3, known={0, 2})

    assert section.target == (1,)
    assert {frame for group in section.context for frame in group.frames} == {0, None}


@given(videos())
def test_distances_are_true_where_no_tail_lies_between(video):
    """Always in endpoints, and in inverted with exact paddings: one time index further is one latent frame further."""
    plan, frames, known = video
    layout = plan.layout
    true = plan.order == ENDPOINTS or (plan.order == INVERTED and plan.paddings == "exact")
    assume(true and not any(side.near and side.far for side in (layout.left, layout.right)))

    for section in plan.fill(frames, known):
        offsets = {index - frame for frame, index in seen(section)}
        offsets |= {index - frame for frame, index in zip(section.target, section.indices, strict=True)}
        assert len(offsets) == 1


@given(videos())
def test_the_context_comes_coarsest_first_and_then_in_time_order(video):
    plan, frames, known = video

    for section in plan.fill(frames, known):
        order = [(-math.prod(group.kernel), group.indices[0]) for group in section.context]
        assert order == sorted(order)


@given(videos(), st.integers(1, 40), st.integers(1, 40))
def test_no_context_is_longer_than_the_bound_of_the_layout(video, height, width):
    plan, frames, known = video
    height, width = 2 * height, 2 * width
    bound = plan.layout.context_bound(height, width)

    for section in plan.fill(frames, known):
        assert section.context_tokens(height, width) <= bound


@given(st.sampled_from(LAYOUTS["forward"]), st.integers(1, 9), st.integers(1, 60), st.integers(1, 5))
def test_a_context_is_as_long_as_the_layout_says_for_its_history(layout, window, prefix, count):
    plan = Plan.of(count * window * 4 / 30, "forward", window, layout)

    sections = plan.fill(prefix + plan.generated, range(prefix))

    lengths = [section.context_tokens(34, 70) for section in sections]
    assert lengths == [plan.layout.context_tokens(34, 70, section.target[0]) for section in sections]


# The inverted order


def official_inverted(count, window, paddings, end=None):
    """(target, its indices, context) of each section, with the official program's own splits and history."""
    history, sections = [], []
    for number, padding in enumerate(paddings):
        indices = torch.arange(1 + padding * window + window + 1 + 2 + 16)
        start, _, target, x1, x2, x4 = (
            tuple(split.tolist()) for split in indices.split([1, padding * window, window, 1, 2, 16])
        )
        shown = [*history, *[None] * 19][:19]  # newest first
        if number == 0 and end is not None:
            shown[0] = end
        generated = tuple(range(1 + (count - 1 - number) * window, 1 + (count - number) * window))
        context = [
            (K4, tuple(shown[3:]), x4),
            (K2, tuple(shown[1:3]), x2),
            (K1, (0,), start),
            (K1, tuple(shown[:1]), x1),
        ]
        sections.append((generated, target, context))
        history = [*generated, *history]
    return sections


@given(st.integers(1, 14), st.integers(1, 12), st.booleans())
def test_the_inverted_order_sees_and_indexes_as_the_official_program(count, window, end):
    plan = Plan.of(count * window * 4 / 30, "inverted", window)

    sections = plan.fill(1 + plan.generated, end=end)

    expected = official_inverted(count, window, released_paddings(count), 1 + count * window if end else None)
    assert [(section.target, section.indices, groups(section)) for section in sections] == expected


@pytest.mark.parametrize(
    ("sections", "paddings"),
    [
        (1, [0]),
        (2, [1, 0]),
        (4, [3, 2, 1, 0]),
        (5, [3, 2, 2, 1, 0]),
        (6, [3, 2, 2, 2, 1, 0]),
        (9, [3, 2, 2, 2, 2, 2, 2, 1, 0]),
    ],
)
def test_long_inverted_videos_repeat_a_padding_of_2(sections, paddings):
    assert released_paddings(sections) == paddings


@given(st.integers(1, 14), st.integers(1, 12))
def test_exact_paddings_are_the_frames_that_are_missing_in_between(count, window):
    plan = Plan.of(count * window * 4 / 30, "inverted", window, paddings="exact")

    sections = plan.fill(1 + plan.generated)

    expected = official_inverted(count, window, range(count)[::-1])
    assert [(section.target, section.indices, groups(section)) for section in sections] == expected


def test_exact_and_released_paddings_agree_up_to_four_sections():
    known, plans = {0}, [Plan.of(4.8, paddings=paddings) for paddings in ("released", "exact")]
    released, exact = (plan.fill(1 + plan.generated, known) for plan in plans)

    assert released == exact
    assert len(released) == 4


def test_the_end_frame_is_the_next_neighbour_of_the_first_sampled_section_only():
    plan = Plan.of(3.6, "inverted")

    sections = plan.fill(28, end=True)

    shown = [[frame for frame, _ in seen(section) if frame == 28] for section in sections]
    assert shown == [[28], [], []]
    assert groups(sections[0])[-1] == (K1, (28,), (28,))


def test_an_extended_video_is_seen_from_its_last_frame():
    """Inverted after a known prefix: the frame in front is the newest known one, and blanks are counted from there."""
    plan = Plan.of(2.4, "inverted", paddings="exact")

    first, last = plan.fill(30 + 18, range(30))

    assert groups(first)[2] == (K1, (29,), (0,))
    assert (first.target, first.indices) == (tuple(range(39, 48)), tuple(range(10, 19)))
    assert (last.target, last.indices) == (tuple(range(30, 39)), tuple(range(1, 10)))


def test_a_one_sided_schedule_serves_the_inverted_order_mirrored_behind_the_start():
    assert str(Plan.of(5, "inverted", layout="temporal").layout) == "f1k1_x_g9_f1k1f2k2f4k4f8k8_td"


# The forward order


@given(st.integers(1, 10), st.integers(1, 12))
def test_the_forward_order_sees_and_indexes_as_the_official_program(count, window):
    plan = Plan.of(count * window * 4 / 30, "forward", window)

    sections = plan.fill(1 + plan.generated)

    start, x4, x2, x1, target = (
        tuple(split.tolist()) for split in torch.arange(1 + 16 + 2 + 1 + window).split([1, 16, 2, 1, window])
    )
    history, expected = [*[None] * 19, 0], []
    for first in range(1, 1 + count * window, window):
        shown = history[-19:]
        context = [
            (K4, tuple(shown[:16]), x4),
            (K2, tuple(shown[16:18]), x2),
            (K1, (0,), start),
            (K1, tuple(shown[18:]), x1),
        ]
        expected.append((tuple(range(first, first + window)), target, context))
        history += range(first, first + window)
    assert [(section.target, section.indices, groups(section)) for section in sections] == expected


def test_text_to_video_starts_from_nothing():
    plan = Plan.of(2.4, "forward")

    first, second = plan.fill(18, ())

    assert seen(first) == []
    assert first.target == tuple(range(9))
    assert second.context[-1].frames == (8,)


def test_gaps_between_keyframes_are_filled_in_the_order_of_the_plan():
    known = {0, 10, 20}

    forward = [section.target[0] for section in Plan.of(2.4, "forward").fill(21, known)]
    inverted = [section.target[0] for section in Plan.of(2.4, "inverted").fill(21, known)]

    assert forward == [1, 11]
    assert inverted == [11, 1]


def test_a_reanchored_plan_shows_the_second_section_s_first_frame_in_the_place_of_the_start_image():
    ordinary = Plan.of(4.8, "forward")
    reanchored = Plan.of(4.8, "forward", reanchored=True)

    found = reanchored.fill(37)

    assert found[:2] == ordinary.fill(37)[:2]
    assert [section.context[2].frames for section in ordinary.fill(37)[2:]] == [(0,), (0,)]
    assert [section.context[2].frames for section in found[2:]] == [(10,), (10,)]
    assert [section.indices for section in found] == [section.indices for section in ordinary.fill(37)]
    assert "reanchored" in reanchored.table() and "reanchored" not in ordinary.table()


def test_a_reanchored_plan_of_clips_shows_what_the_video_begins_after_only_until_then():
    plan = Plan.of(4.8, "forward", reanchored=True).in_clips(True)

    sections = plan.fill(1 + plan.generated, guides=[(0, 37)])

    assert [section.context[2].frames for section in sections] == [(38,), (38,), (10,), (10,)]


def test_a_reanchored_plan_shows_a_guide_to_later_sections_too():
    sections = Plan.of(4.8, "forward", reanchored=True).fill(37, guides=[(19, 20)])

    assert [section.context[2].frames for section in sections] == [(0,), (0,), (38,), (10,)]


@pytest.mark.parametrize(("order", "layout"), [("inverted", "auto"), ("endpoints", "auto"), ("forward", "vanilla")])
def test_only_a_forward_plan_with_a_place_for_the_start_image_is_reanchored(order, layout):
    with pytest.raises(ValueError, match=r"reanchor moves the place of the start image .* choose order forward and layout f1"):
        Plan.of(4.8, order, layout=layout, reanchored=True)


@pytest.mark.parametrize(("tail", "pool"), [("ta", "frame"), ("tc", "global")])
def test_a_tail_holds_the_frames_beyond_the_schedule_at_the_nearest_kernel(tail, pool):
    plan = Plan.of(2.4, "forward", layout=f"f1k1_{tail}_f4k2f1k1_g9")

    pooled = [[group for group in section.context if group.pool != "none"] for section in plan.fill(19)]

    assert pooled[0] == []
    ((group,),) = pooled[1:]
    assert (group.kernel, group.frames, group.indices, group.pool) == (K2, (1, 2, 3, 4), (1, 2, 3, 4), pool)


def test_a_deleted_tail_takes_no_time_indices_and_a_skipped_one_does():
    _, deleted = Plan.of(2.4, "forward", layout="f1k1_td_f2k1_g9").fill(19)
    _, skipped = Plan.of(2.4, "forward", layout="f1k1_x_f2k1_g9").fill(19)

    assert deleted.indices == tuple(range(3, 12))
    assert skipped.indices == deleted.target == tuple(range(10, 19))


# Endpoints


def test_endpoints_generate_both_ends_in_one_call():
    first = Plan.of(6, "endpoints").fill(46)[0]

    assert first.target == (*range(1, 10), *range(37, 46))
    assert first.indices == tuple(18 + frame for frame in first.target)


@given(st.integers(3, 14), st.integers(1, 12))
def test_endpoints_fill_inward_in_turn_from_the_left_and_the_right(count, window):
    plan = Plan.of(count * window * 4 / 30, "endpoints", window)

    order = [(section.target[0] - 1) // window for section in plan.fill(1 + plan.generated)[1:]]

    inner = list(range(1, count - 1))
    left, right = inner[: (len(inner) + 1) // 2], inner[(len(inner) + 1) // 2 :][::-1]
    assert order[0::2] == left
    assert order[1::2] == right


def test_an_endpoints_section_from_the_left_sees_what_follows_and_one_from_the_right_is_its_mirror():
    plan = Plan.of(6, "endpoints")

    _, left, right, _ = plan.fill(46)

    assert left.target == tuple(range(10, 19))
    assert groups(left) == [
        (K4, (*[None] * 9, *range(7)), tuple(range(16))),
        (K2, (7, 8), (16, 17)),
        (K1, (9,), (18,)),
        (K1, (37,), (46,)),
    ]
    assert right.target == tuple(range(28, 37))
    assert groups(right) == [
        (K4, (*range(40, 46), *[None] * 10), tuple(range(22, 38))),
        (K2, (38, 39), (20, 21)),
        (K1, (18,), (0,)),
        (K1, (37,), (19,)),
    ]


def test_endpoints_between_two_known_frames_see_both_from_the_start():
    first = Plan.of(3.6, "endpoints").fill(29, {0, 28})[0]

    assert {frame for frame, _ in seen(first)} == {0, 28}


@pytest.mark.parametrize(("count", "targets"), [(1, [9]), (2, [18]), (3, [18, 9])])
def test_few_endpoints_sections_need_no_second_run(count, targets):
    plan = Plan.of(count * 1.2, "endpoints")

    assert [len(section.target) for section in plan.fill(1 + plan.generated)] == targets
