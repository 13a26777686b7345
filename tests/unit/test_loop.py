"""A loop: sections that connect a video's end with its beginning; and videos of an exact length."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.drawing.chart import Chart, heading
from framepack_core.frames import Length, pixel_frames
from framepack_core.made import Made
from framepack_core.orders import ORDERS, released_paddings
from framepack_core.placing import Arrangement, Frames, Placed
from framepack_core.plan import Plan
from framepack_core.redo import given_frames, redo, require_no_loop
from framepack_core.sections import generate

SHAPE = (1, 16, 1, 4, 6)


def placed(at, length: int = 1, seconds: float = 0.0, use="fixed", embedding=None) -> Placed:
    latents = torch.full((1, 16, length, 4, 6), 3.0)
    return Placed(latents, latents[:, :, :1], at, use, seconds, embedding)


def seen(section) -> dict[str, list[tuple]]:
    """(frame, index) pairs by the kernel's length in time; 1x has two groups, in time order."""
    found: dict[str, list[tuple]] = {}
    for group in sorted(section.context, key=lambda group: group.indices):
        found.setdefault(f"{group.kernel.t}x", []).extend(zip(group.frames, group.indices, strict=True))
    return found


# What the connecting sections see


def test_the_connecting_sections_of_a_small_loop():
    """Two main sections of 2 frames after a start image, frames 1 to 4, then two that connect: 7, 8 before 5, 6.

    Both are shown the last main frame in the place of the start, at index 0, and as many blanks as windows lie between. What
    follows them is the connection so far and then the main video from its first frame on, which is 1 and not the start image.
    """
    plan = Plan.of(4 * 4 / 30, window=2, loop=2)

    sections = plan.fill(1 + 4 + 4)

    assert [(section.number, section.target) for section in sections] == [(0, (3, 4)), (1, (1, 2)), (2, (7, 8)), (3, (5, 6))]
    last, first = sections[2:]
    assert last.indices == (3, 4)
    assert seen(last) == {
        "1x": [(4, 0), (1, 5)],
        "2x": [(2, 6), (3, 7)],
        "4x": [(4, 8), *((None, index) for index in range(9, 24))],
    }
    assert first.indices == (1, 2)
    assert seen(first) == {
        "1x": [(4, 0), (7, 3)],
        "2x": [(8, 4), (1, 5)],
        "4x": [(2, 6), (3, 7), (4, 8), *((None, index) for index in range(9, 22))],
    }


@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
@pytest.mark.parametrize(("main", "loop"), [(3, 1), (5, 2), (2, 6)])
def test_a_section_sees_the_end_before_it_and_the_beginning_after_it(order, main, loop):
    """A reference of its own: walk around the cycle from the section, and stop where it has been once."""
    plan = Plan.of(main * 1.2, order, loop=loop)
    frames = 1 + 9 * (main + loop)
    cycle = list(range(1, frames))
    exists = set(range(1, 1 + 9 * main))

    (*made,) = plan.fill(frames)
    for place, section in enumerate(made[-loop:]):
        blank = 9 * released_paddings(loop)[place]
        assert section.target == tuple(range(frames - 9 * (place + 1), frames - 9 * place))
        assert section.indices == tuple(range(1 + blank, 10 + blank))
        walk = [cycle[(section.target[-1] + step) % len(cycle)] for step in range(19)]
        reach = 9 * (place + main)  # up to the end of the main video, which comes before the gap
        after = [frame if frame in exists and step < reach else None for step, frame in enumerate(walk)]
        indices = range(10 + blank, 29 + blank)
        expected = list(zip(after, indices, strict=True))
        assert seen(section) == {"1x": [(9 * main, 0), expected[0]], "2x": expected[1:3], "4x": expected[3:]}
        exists |= set(section.target)


@given(
    st.sampled_from(list(ORDERS)), st.integers(1, 6), st.integers(1, 5), st.integers(1, 11), st.integers(0, 20),
    st.sampled_from(["released", "exact"]),
)  # fmt: skip
def test_every_frame_is_made_once_from_frames_that_exist(order, main, loop, window, known, paddings):
    plan = Plan.of(main * window * 4 / 30, order, window, paddings=paddings, loop=loop)
    frames, done = known + window * (main + loop), set(range(known))

    for section in plan.fill(frames, range(known)):
        assert {frame for group in section.context for frame in group.frames if frame is not None} <= done
        assert not done & set(section.target)
        done |= set(section.target)

    assert done == set(range(frames))


def test_the_main_video_is_what_it_is_without_the_loop():
    """So the finished sections of a video serve its loop."""
    for order in ORDERS:
        without, looped = Plan.of(3.6, order), Plan.of(3.6, order, loop=2)

        assert looped.fill(1 + 27 + 18)[:-2] == without.fill(1 + 27)


@pytest.mark.parametrize(
    ("order", "layout", "connecting"),
    [
        ("inverted", "framepack", "f1k1_x_g9_f1k1f2k2f16k4_td"),
        ("inverted", "temporal", "f1k1_x_g9_f1k1f2k2f4k4f8k8_td"),
        ("forward", "temporal", "f1k1_x_g9_f1k1f2k2f4k4f8k8_td"),
        ("forward", "f1", "f1k1_x_g9_f1k1f2k2f16k4_td"),
        ("endpoints", "endpoints", "f1k1_x_g9_f1k1f2k2f16k4_td"),
        ("inverted", "g9_f2k2f1k1h4w2_td", "f1k1_x_g9_f2k2f1k1h4w2_td"),
        ("forward", "important-start", "f1k1_x_g9_f1k1f2k2f16k4_td"),
    ],
)
def test_connecting_sections_have_the_plan_s_layout_where_it_can_see_both_sides_and_else_the_released_one(
    order, layout, connecting
):
    assert str(Plan.of(2.4, order, layout=layout, loop=1).connection.layout) == connecting


def test_a_loop_is_sampled_from_both_its_ends():
    """What `denoise` is shown is in the video: main end before, main beginning after."""
    plan = Plan.of(2.4, loop=1)
    timeline = Arrangement.of(plan, Frames((placed("start"),))).timeline(SHAPE, 1)
    contexts = []

    def denoise(noise, context):
        contexts.append(context)
        return torch.full_like(noise, 0.0) + torch.tensor(context.section.target).view(1, 1, -1, 1, 1)

    list(generate(plan.bind(timeline), timeline, denoise, seed=0))

    coarse, two, before, after = (latents[0, 0, :, 0, 0].tolist() for latents in contexts[-1].latents)
    assert (before, after, two) == ([18.0], [1.0], [2.0, 3.0])
    assert coarse == [*range(4, 19), 0.0]


# How long it is


@pytest.mark.parametrize(("known", "frames"), [(1, 4 * 27), (0, 4 * 27 - 4)])
def test_a_loop_has_four_frames_for_each_latent_frame_but_the_first(known, frames):
    plan = Plan.of(2.4, loop=1)

    length = plan.length(known + plan.generated)

    assert length.frames == frames == sum(map(length.shown, range(length.latents)))
    assert (length.shown(0), length.begins(1), length.begins(10)) == (0, 0, 36)


def test_the_table_and_the_drawing_say_that_it_is_a_loop_and_when_a_section_is_shown():
    plan = Plan.of(2.4, "forward", loop=1)

    lines = plan.table().splitlines()

    released = "framepack layout f1k1_x_g9_f1k1f2k2f16k4_td"
    assert lines[1:3] == [
        f"then, from the end to the beginning, inverted, 1 x 9 latent frames, {released}",
        "28 latent frames = a loop of 108 frames = 3.60 s at 30 fps",
    ]
    assert re.search(r"^3 +19\.\.27 +2\.40-3\.60 +4\.\.18@k4  2\.\.3@k2  18@k1  1@k1$", lines[-1])
    chart = Chart.of(plan, 16, 16, {0})
    assert lines[2] in heading(chart)[0] and "1 section from the end to the beginning" in heading(chart)[-1]
    assert [chart.label(section) for section in chart.sections] == ["generated", "generated", "connects"]


def test_a_time_in_a_loop_counts_from_its_first_frame():
    plan = Plan.of(3.6, loop=1)
    arrangement = Arrangement.of(plan, Frames((placed("start"), placed("time", seconds=1.2))))

    assert arrangement.first == (0, 10)
    assert arrangement.length.begins(10) == 36 and not arrangement.notes()
    assert arrangement.frames == 2 + 27 + 9


def test_the_way_back_is_near_the_start_image_too():
    plan = Plan.of(3.6, loop=3)
    given = Frames((placed("start", embedding="start"), placed("time", seconds=2.4, embedding="later")))
    arrangement = Arrangement.of(plan, given)

    found = [arrangement.embedding(section) for section in plan.bind(arrangement.timeline(SHAPE, 1))]

    assert found[-3:] == ["start", "start", "later"]


def test_the_way_back_leads_from_the_last_frame_of_a_clip_to_its_first():
    plan = Plan.of(1.2, loop=3)
    clip = Placed(torch.zeros(1, 16, 19, 4, 6), torch.zeros(1, 16, 1, 4, 6), "start", embedding="first", ending="last")
    arrangement = Arrangement.of(plan, Frames((clip,)))

    found = {section.target[0]: arrangement.embedding(section) for section in plan.bind(arrangement.timeline(SHAPE, 1))}

    assert found == {19: "last", 28: "last", 37: "first", 46: "first"}


# An exact length


@pytest.mark.parametrize(("seconds", "fps"), [(5, 30), (1.2, 30), (1.23, 30), (0.1, 30), (6, 24), (2.02, 23.976)])
@pytest.mark.parametrize("known", [0, 1, 19])
def test_the_video_has_as_many_frames_as_seconds_say_and_no_section_too_many(seconds, fps, known):
    plan = Plan.of(seconds, fps=fps, exact_length=True).beside(known)
    frames = known + plan.generated

    sections = plan.fill(frames, range(known))

    assert plan.length(frames).frames == round(seconds * fps)
    assert len(sections) == 1 or pixel_frames(frames - plan.window) < round(seconds * fps)


def test_the_cut_is_at_the_end_and_never_reaches_the_start_image():
    length = Plan.of(0.01, exact_length=True).length(10)

    assert (length.frames, length.shown(0)) == (1, 1)
    assert Plan.of(5, exact_length=True).table().splitlines()[1] == "46 latent frames = 150 of 181 frames = 5.00 s at 30 fps"
    assert Length(46, exact=150).shown(45) == 0


def test_sections_of_an_exact_length_can_be_made_again():
    plan, latents = Plan.of(5, exact_length=True), torch.randn(1, 16, 46, 4, 6)

    again, frames = redo(Made(plan, tuple(given_frames(plan, 46)), latents.shape[2]), latents, {0, 2})

    arrangement = Arrangement.of(again, frames)
    made = again.bind(arrangement.timeline(latents.shape, 1))
    assert arrangement.frames == 46 and arrangement.length.frames == 150
    assert sorted(frame for section in made for frame in section.target) == [*range(19, 28), *range(37, 46)]


# What makes no sense


@pytest.mark.parametrize(
    ("plan", "given", "message"),
    [
        ({"loop": 1}, placed("end"), "something is placed at the end, but a loop has no end (loop is 1); set loop to 0"),
        (
            {"exact_length": True},
            placed("end"),
            "but exact_length cuts frames off the end; switch it off, or place it at a time",
        ),
        (
            {"exact_length": True},
            placed("start", 19),
            "placed at the start ends 1 frames after the 72 of the video's exact length",
        ),
        ({"loop": 1}, placed("time", seconds=2.6), "but the video has 2.40 s before its loop is closed"),
    ],
)
def test_what_has_no_place_is_refused(plan, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Arrangement.of(Plan.of(2.4, **plan), Frames((given,)))


def test_a_loop_of_an_exact_length_and_loops_without_number_are_refused():
    with pytest.raises(
        ValueError, match=re.escape("a loop (loop is 2) goes on from its end to its beginning, where a cut would")
    ):
        Plan.of(2.4, exact_length=True, loop=2)
    with pytest.raises(ValueError, match=re.escape("loop is -1; choose 0 (off) to 100")):
        Plan.of(2.4, loop=-1)
    with pytest.raises(ValueError, match="4,001 sections"):
        Plan.of(1564, window=1, fps=10, layout="g1_f1k1_td", loop=91)


def test_sections_of_a_loop_are_not_made_again():
    with pytest.raises(ValueError, match=re.escape("the plan is of a loop (loop is 1)")):
        require_no_loop(Plan.of(2.4, loop=1), Length(28))
    with pytest.raises(ValueError, match="latent is a loop, whose sections lead into each other"):
        require_no_loop(Plan.of(2.4), Length(28, loop=True))
    frames = redo(Made(Plan.of(2.4), (0,), 19), torch.zeros(1, 16, 19, 4, 6), {0})[1]
    with pytest.raises(ValueError, match=re.escape("cannot become a loop (loop is 1); set loop to 0")):
        Arrangement.of(Plan.of(1.2, loop=1), frames)
