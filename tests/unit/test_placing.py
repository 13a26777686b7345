"""Where stills and clips are in a plan's video, and what sections see of them."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.filling import Section
from framepack_core.frames import Length
from framepack_core.packing import gather
from framepack_core.placing import Arrangement, Frames, Placed, chained, latent_frame, spelled_places
from framepack_core.plan import Plan

SHAPE = (1, 16, 1, 4, 6)


def latents(value: float, length: int = 1) -> torch.Tensor:
    return torch.full((1, 16, length, 4, 6), float(value))


def still(value: float, at="time", seconds: float = 0.0, use="fixed", embedding=None) -> Placed:
    return Placed(latents(value), latents(value), at, use, seconds, embedding)


def clip(value: float, length: int, at="start", seconds: float = 0.0) -> Placed:
    return Placed(latents(value, length), latents(value), at, "fixed", seconds)


def seen_before(section: Section, timeline) -> list[float]:
    """The values in the context before the section, finest group last."""
    context = gather(section, timeline)
    found = []
    for group, latent in zip(section.context, context.latents, strict=True):
        if group.indices[0] < section.indices[0]:
            found += latent[0, 0, :, 0, 0].tolist()
    return found


@pytest.mark.parametrize(("seconds", "frame"), [(0.0, 0), (1 / 30, 1), (4 / 30, 1), (5 / 30, 2), (1.0, 8), (1.2, 9), (2.0, 15)])
def test_a_time_lies_in_the_latent_frame_that_holds_its_frame(seconds, frame):
    assert latent_frame(seconds, 30.0, Length(0)) == frame


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_keyframes_move_to_where_all_gaps_are_whole_sections(order):
    """The j-th after the start image can only be at latent frame j + 9 K."""
    frames = Frames((still(1, "start"), still(2, seconds=1.4), still(3, seconds=3.5)))

    arrangement = Arrangement.of(Plan.of(3.6, order), frames)

    assert arrangement.first == (0, 10, 29)
    assert arrangement.frames == 3 + 27
    assert arrangement.timeline(SHAPE, 1).known == arrangement.known == {0, 10, 29}
    assert len(arrangement.notes()) == 2
    assert "what is placed at 1.40 s is at 1.23 s" in arrangement.notes()[0]


@given(
    st.lists(st.tuples(st.floats(0.7, 10.8), st.integers(1, 18)), max_size=4),
    st.sampled_from(["inverted", "endpoints"]),
    st.booleans(),
)
def test_whatever_is_placed_is_at_most_half_a_section_from_where_it_was_asked_for_and_can_be_filled(times, order, end):
    plan = Plan.of(10.8, order)
    clips = [clip(2, length, "time", seconds) for seconds, length in times]
    given = [still(1, "start"), *clips, *([clip(3, 4, "end")] if end else [])]
    try:
        arrangement = Arrangement.of(plan, Frames(tuple(given)))
    except ValueError as error:
        assert "half a section" in str(error)
        return

    moved = [
        abs(first - latent_frame(placed.seconds, 30, Length(0)))
        for first, placed in zip(arrangement.first, given, strict=True)
        if placed.at == "time"
    ]
    made = [frame for section in plan.bind(arrangement.timeline(SHAPE, 1)) for frame in section.target]
    assert max(moved, default=0) <= plan.window / 2
    assert sorted([*made, *arrangement.timeline(SHAPE, 1).known]) == list(range(arrangement.frames))


def test_a_clip_at_the_start_is_continued_and_one_at_the_end_is_led_up_to():
    plan = Plan.of(2.4)

    arrangement = Arrangement.of(plan, Frames((clip(1, 19), clip(2, 18, "end"))))

    assert arrangement.first == (0, 37)
    assert arrangement.frames == 19 + 18 + 18
    assert [section.target[0] for section in plan.bind(arrangement.timeline(SHAPE, 1))] == [28, 19]


def test_the_context_after_an_extension_is_the_clip_s_end_with_the_released_indices():
    """F1: the video's first frame, then 16, 2 and 1 frames just before the section, whose indices begin at 20."""
    plan = Plan.of(1.2, "forward")

    (section,) = plan.bind(Arrangement.of(plan, Frames((clip(1, 19),))).timeline(SHAPE, 1))

    assert [(group.frames, group.indices) for group in section.context] == [
        (tuple(range(16)), tuple(range(1, 17))),
        ((16, 17), (17, 18)),
        ((0,), (0,)),
        ((18,), (19,)),
    ]
    assert section.indices == tuple(range(20, 29))


def test_text_to_video_has_no_start_but_the_same_indices():
    """The start group is absent, while the groups after a section hold zeros as in image to video."""
    with_start, without = Plan.of(2.4).fill(19, {0}), Plan.of(2.4).fill(18, ())

    for one, other in zip(with_start, without, strict=True):
        assert [group.indices for group in other.context] == [group.indices for group in one.context if group.indices != (0,)]
        assert other.indices == one.indices


def test_text_to_video_forwards_begins_without_context():
    first, second = Plan.of(2.4, "forward").fill(18, ())

    assert first.context == ()
    assert first.indices == second.indices == tuple(range(20, 29))
    assert {frame for group in second.context for frame in group.frames if frame is not None} == set(range(9))


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_a_guide_is_shown_instead_of_the_start_to_the_section_that_makes_its_time(order):
    plan = Plan.of(3.6, order)
    arrangement = Arrangement.of(plan, Frames((still(1, "start"), still(5, seconds=2.0, use="guide"))))
    timeline = arrangement.timeline(SHAPE, 1)

    sections = plan.bind(timeline)

    shown = {section.target[0]: 5 in seen_before(section, timeline) for section in sections}
    assert shown == {1: False, 10: True, 19: False}
    assert timeline.known == {0}
    assert all(1 not in seen_before(section, timeline)[-1:] for section in sections if section.target[0] == 10)


def test_each_section_gets_the_embedding_of_its_guide_or_of_what_is_nearest():
    plan = Plan.of(4.8)
    given = (
        still(1, "start", embedding="start"),
        still(2, "end", embedding="end"),
        still(3, seconds=2.0, use="guide", embedding="guide"),
    )
    arrangement = Arrangement.of(plan, Frames(given))

    found = {section.target[0]: arrangement.embedding(section) for section in plan.bind(arrangement.timeline(SHAPE, 1))}

    assert found == {1: "start", 10: "guide", 19: "end", 28: "end"}


def test_a_clip_gives_the_embedding_of_its_first_frame_before_it_and_of_its_last_after_it():
    plan = Plan.of(3.6)
    between = Placed(latents(2, 10), latents(2), "time", "fixed", 1.2, "its first", still=False, ending="its last")
    arrangement = Arrangement.of(plan, Frames((still(1, "start"), between)))

    found = {section.target[0]: arrangement.embedding(section) for section in plan.bind(arrangement.timeline(SHAPE, 1))}

    assert found == {1: "its first", 20: "its last", 29: "its last"}


@pytest.mark.parametrize(
    ("placed", "order", "message"),
    [
        ([still(2, seconds=9.0)], "inverted", "placed at 9.00 s, but the video has 2.57 s"),
        ([still(2, seconds=0.3)], "inverted", "less than half a section (1.20 s) after the start"),
        ([still(2, seconds=1.2), still(3, seconds=1.3)], "inverted", "less than half a section"),
        ([clip(2, 18, "time", 1.2), still(3, seconds=2.0)], "inverted", "less than half a section"),
        ([still(2, "end"), still(3, seconds=2.5)], "inverted", "before the end, which is given too; choose an earlier time"),
        ([still(2, seconds=1.2)], "forward", "the forward order never looks ahead"),
        ([still(2, "end")], "forward", "the forward order never looks ahead"),
    ],
)
def test_what_has_no_place_is_refused(placed, order, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Arrangement.of(Plan.of(2.4, order), Frames((still(1, "start"), *placed)))


def test_both_ends_can_be_given_once():
    frames = Frames().with_placed(still(1, "start"))

    with pytest.raises(ValueError, match="the video's start is given twice"):
        frames.with_placed(still(2, "start"))


def test_another_rate_than_the_plan_s_is_refused():
    with pytest.raises(ValueError, match="30 fps, but the plan has 24; connect the plan to the first FramePack_Place"):
        Arrangement.of(Plan.of(2.4, fps=24), Frames((still(1, "start"),)))


def test_the_first_of_a_chain_decides_the_rate_and_a_plan_of_another_is_refused_where_it_is_connected():
    first = chained(None, Plan.of(2.4, fps=24))

    assert first.fps == 24 and chained(None, None).fps == 30
    assert chained(first, None) == chained(first, Plan.of(1.2, fps=24)) == first
    with pytest.raises(
        ValueError, match="placed at 30 fps, but the plan has 24; connect the plan to the first FramePack_Place"
    ):
        chained(chained(None, None), Plan.of(2.4, fps=24))


def guided(plan: Plan, *placed: Placed) -> Arrangement:
    """With guides at times; what else is placed is fixed."""
    return Arrangement.of(plan, Frames(placed))


@pytest.mark.parametrize(("order", "layout"), [("forward", "vanilla"), ("endpoints", "auto")])
def test_a_guide_needs_a_layout_with_a_place_for_the_start_image_and_the_error_names_plans_that_have_one(order, layout):
    plan = Plan.of(2.4, order, layout=layout)
    timeline = guided(plan, still(1, "start"), still(2, seconds=1.0, use="guide")).timeline(SHAPE, 1)

    with pytest.raises(
        ValueError, match=f"the {order} order .* no such place; set the plan's order to (.*) and its layout"
    ) as error:
        plan.bind(timeline)

    for named in re.search(r"order to (.*) and its layout to auto", str(error.value))[1].split(" or "):
        assert Plan.of(2.4, named).bind(timeline)


FIXED, BEATEN = "part of the video is fixed", "another guide covers as much or more"


@pytest.mark.parametrize(
    ("placed", "notes"),
    [
        ([still(1, "start"), still(2, "start", use="guide")], ["the guide at the start .* " + FIXED]),
        ([still(1, "start"), still(2, "end"), still(3, "end", use="guide")], ["the guide at the end .* " + FIXED]),
        ([clip(1, 19), still(2, seconds=1.0, use="guide")], [r"the guide at 1\.00 s .* " + FIXED]),
        (
            [still(1, "start"), still(2, seconds=1.0, use="guide"), still(3, seconds=0.9, use="guide")],
            [r"at 0\.90 s .* " + BEATEN],
        ),
        ([still(1, "start"), still(2, seconds=1.0, use="guide"), still(3, "end", use="guide")], []),
        ([still(2, "start", use="guide")], []),
    ],
    ids=["start image", "fixed end", "inside a clip", "two in one section", "each seen", "no start image"],
)
def test_a_guide_that_no_section_sees_is_named_with_the_reason(placed, notes):
    found = guided(Plan.of(2.4), *placed).notes()

    assert len(found) == len(notes)
    assert all(re.search(pattern, note) for pattern, note in zip(notes, found, strict=True))


def test_a_guide_is_seen_in_a_reanchored_plan():
    assert guided(Plan.of(4.8, "forward", reanchored=True), still(1, "start"), still(2, seconds=4.0, use="guide")).notes() == []


@pytest.mark.parametrize(("at", "seconds", "covered"), [("end", 0.0, (0, 19)), ("time", 1.2, (9, 19))])
def test_a_guide_longer_than_the_video_covers_it_as_far_as_it_goes(at, seconds, covered):
    long = Placed(latents(2, 30), latents(2), at, "guide", seconds)

    assert guided(Plan.of(2.4), still(1, "start"), long).guides == [covered]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("start, 1.2, end", [("start", 0.0), ("time", 1.2), ("end", 0.0)]),
        ("0,2,4.", [("start", 0.0), ("time", 2.0), ("time", 4.0)]),
        (" .5 ", [("time", 0.5)]),
    ],
)
def test_places_are_written_as_seconds(text, places):
    assert spelled_places(text, len(places)) == places


@pytest.mark.parametrize("text", ["1.2,", "soon", "-1", "1e3", "nan", "3601", "1.2 2.4", "start, , end", "1,5s"])
def test_a_place_that_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"^times is .*; write seconds of the video"):
        spelled_places(text, 1)


def test_each_image_needs_a_place():
    with pytest.raises(ValueError, match=r"^times has 2 places \(start, 1\), but images are 3; write one for each image$"):
        spelled_places("start, 1", 3)
