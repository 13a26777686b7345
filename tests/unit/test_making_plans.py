"""Plans from a user's values, bound to a timeline, and as text: what each value means, and which are refused."""

import math
import re
import sys
from collections import Counter

import pytest
import torch

from framepack_core.drawing.painting import draw_plan
from framepack_core.layout import PRESETS, Layout, resolve
from framepack_core.orders import ORDERS
from framepack_core.plan import Plan, section_count, without_effect
from framepack_core.timeline import Timeline


@pytest.mark.parametrize(
    ("seconds", "fps", "window", "sections"),
    [
        (5, 30, 9, 4),
        (3.0, 30, 9, 2),  # 2.5 windows
        (4.2, 30, 9, 4),  # 3.5 windows
        (1.8, 30, 9, 2),  # 1.5 windows
        (0.6, 30, 9, 1),  # half a window
        (0.01, 30, 9, 1),
        (60, 30, 9, 50),
        (5, 24, 9, 3),
        (5, 30, 4, 9),
    ],
)
def test_sections_are_counted_half_to_even_and_there_is_at_least_one(seconds, fps, window, sections):
    assert section_count(seconds, fps, 4 * window) == sections
    assert Plan.of(seconds, "forward", window, fps=fps).generated == sections * window


@pytest.mark.parametrize("order", ORDERS)
def test_auto_takes_the_layout_of_the_order_at_the_window_of_the_plan(order):
    plan = Plan.of(5, order, window=4)

    assert plan.layout == resolve(ORDERS[order].layout).with_window(4)
    assert plan.name == ORDERS[order].layout


@pytest.mark.parametrize(
    ("order", "layout", "custom", "paddings", "said"),
    [
        ("inverted", "auto", "", "exact", []),
        ("inverted", "custom", "f1k1_x_g9_f1k1_td", "released", []),
        (
            "inverted",
            "auto",
            "f2k1_g9",
            "released",
            ["custom_layout is without effect: layout is auto; choose custom to use it"],
        ),
        ("forward", "auto", " ", "exact", ["paddings exact is without effect in the forward order"]),
    ],
)
def test_values_that_a_plan_does_not_use_are_named(order, layout, custom, paddings, said):
    assert without_effect(order, layout, custom, paddings) == said


def test_a_layout_of_ones_own_is_named_custom():
    assert Plan.of(5, "forward", layout="f2k1_g9").name == "custom"


@pytest.mark.parametrize("name", ["seconds", "window", "fps"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
def test_a_number_out_of_range_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value}; .*above 0"):
        Plan.of(**{"seconds": 5.0, name: value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"window": 1, "fps": 240.0},
            "3600 s at 240 fps and window 1 are 216,000 sections, .* at most 4,000; choose fewer",
        ),
        ({"window": 1}, "are 27,000 sections"),
        ({"order": "forward", "layout": "ta_f16k4f2k2f1k1_g9"}, "are 3,000 sections, .* at most 333"),
        ({"layout": "f1k1_x_g9_f1k1_tc"}, "are 3,000 sections, .* at most 333"),
        ({"layout": f"f1k1_x_g9_{'f1k1' * 300}_td"}, "are 3,000 sections, .* at most 332; .* a shorter layout"),
        ({"layout": f"f1k1_x_g9_{'f1024k4' * 3}_td"}, "are 3,000 sections, .* at most 161; .* a shorter layout"),
    ],
)
def test_more_sections_than_can_be_planned_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Plan.of(3600.0, **values)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "window"), [("inverted", 9), ("forward", 1), ("endpoints", 9)])
@pytest.mark.parametrize("make", [lambda plan: plan.table(), draw_plan], ids=["table", "picture"])
def test_twice_as_long_a_plan_takes_twice_the_work(order, window, make):
    """Counted in calls of functions, which do not depend on the machine."""
    short, long = (calls(make, Plan.of(seconds, order, window)) for seconds in (250, 500))

    assert long < 2.2 * short


def calls(function, *arguments) -> int:
    counted = Counter()
    sys.setprofile(lambda frame, event, argument: counted.update([event]))
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize(("name", "value"), [("order", "backward"), ("paddings", "none")])
def test_an_unknown_choice_is_refused_with_the_ones_there_are(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is '{value}'; choose one of \w+, \w+"):
        Plan.of(5, **{name: value})


@pytest.mark.parametrize(
    ("order", "layout"),
    [
        ("forward", "framepack"),
        ("forward", "endpoints"),
        ("forward", "g9"),
        ("forward", "f1k1_x_g9"),
        ("inverted", "f1"),
        ("inverted", "endpoints"),
        ("inverted", "important-start"),
        ("inverted", "symmetric"),
        ("inverted", "f1k1_g9_f1k1"),
        ("inverted", "g9"),
        ("endpoints", "f1"),
        ("endpoints", "framepack"),
        ("endpoints", "f1k1_g9_f1k1"),
        ("endpoints", "f1k1_g9_f1k1_x_f1k1"),
    ],
)
def test_a_layout_that_does_not_fit_the_order_is_refused_naming_both(order, layout):
    spelled = f"{layout} ({PRESETS[layout]})" if layout in PRESETS else layout

    with pytest.raises(ValueError, match=re.escape(f"layout {spelled} does not fit the order {order}, which needs ")):
        Plan.of(5, order, layout=layout)


@pytest.mark.parametrize("order", ORDERS)
def test_the_remedy_in_that_refusal_is_a_layout_that_fits(order):
    with pytest.raises(ValueError, match="like") as caught:
        Plan.of(5, order, layout="g9")

    example = str(caught.value).split(" like ")[1]
    assert Plan.of(5, order, layout=example).layout == Layout.parse(example)


def test_a_video_of_another_length_is_refused_with_both_counts():
    with pytest.raises(ValueError, match=r"4 x 9 = 36 latent frames, but 35 of the video's 36 are unknown"):
        Plan.of(5).fill(36)


def test_a_gap_that_is_no_multiple_of_the_window_is_refused_with_its_place():
    with pytest.raises(ValueError, match=r"latent frames 1 to 3 are unknown: 3 frames, .* the window 9; move"):
        Plan.of(2.4, "forward").fill(20, {0, 4})


@pytest.mark.parametrize("order", ["forward", "endpoints"])
def test_an_end_frame_is_refused_outside_the_inverted_order(order):
    with pytest.raises(ValueError, match=f"end frame .* inverted order, not in {order}"):
        Plan.of(5, order).fill(37, end=True)


def test_binding_reads_length_known_frames_and_end_frame_from_the_timeline():
    plan = Plan.of(2.4)
    frame = torch.zeros(1, 16, 1, 6, 4)

    assert plan.bind(Timeline.of(19, {0: frame})) == plan.fill(19)
    assert plan.bind(Timeline.of(19, {0: frame}, end=frame)) == plan.fill(19, end=True)
    assert plan.bind(Timeline.of(20, {0: frame, 1: frame})) == plan.fill(20, {0, 1})


@pytest.mark.parametrize(("height", "width"), [(7, 4), (6, 5)])
def test_an_odd_latent_size_is_refused_when_binding(height, width):
    with pytest.raises(ValueError, match=f"the latent is {width}x{height}, an odd number"):
        Plan.of(1.2).bind(Timeline.of(10, {0: torch.zeros(1, 16, 1, height, width)}))


# The table


def test_the_table_of_a_small_plan():
    assert Plan.of(3.6).table().splitlines() == [
        "inverted, 3 x 9 latent frames, framepack layout f1k1_x_g9_f1k1f2k2f16k4_td",
        "28 latent frames = 109 frames = 3.63 s at 30 fps",
        "given: latent frames 0",
        "",
        "section  generates  seconds    sees (latent frames at kernel, . = nothing there yet)",
        "1        19..27     2.43-3.63  .@k4  .@k2  0@k1  .@k1",
        "2        10..18     1.23-2.43  22..27@k4  20..21@k2  0@k1  19@k1",
        "3        1..9       0.03-1.23  13..27@k4  11..12@k2  0@k1  10@k1",
    ]


def test_the_table_shows_both_runs_of_endpoints_and_known_frames():
    assert Plan.of(3.6, "endpoints").table({0, 28}).splitlines()[2:] == [
        "given: latent frames 0,28",
        "",
        "section  generates    seconds               sees (latent frames at kernel, . = nothing there yet)",
        "1        1..9,19..27  0.03-1.23, 2.43-3.63  .@k4  .@k2  0@k1  28@k1",
        "2        10..18       1.23-2.43             0..6@k4  7..8@k2  9@k1  19@k1",
    ]


def test_the_table_shows_guides_in_place_of_the_start_image():
    assert Plan.of(2.4).table(guides=[(3, 5), (12, 13)]).splitlines()[2:] == [
        "given: latent frames 0",
        "guide 1: for the sections that make any of latent frames 3..4",
        "guide 2: for the sections that make any of latent frames 12",
        "",
        "section  generates  seconds    sees (latent frames at kernel, . = nothing there yet)",
        "1        10..18     1.23-2.43  .@k4  .@k2  guide 2@k1  .@k1",
        "2        1..9       0.03-1.23  13..18@k4  11..12@k2  guide 1@k1  10@k1",
    ]


def test_the_table_says_which_guide_no_section_is_shown():
    assert Plan.of(2.4).table(guides=[(0, 1), (12, 13)]).splitlines()[3:5] == [
        "guide 1: shown to no section, at latent frames 0",
        "guide 2: for the sections that make any of latent frames 12",
    ]


def test_the_table_of_text_to_video_starts_from_nothing():
    assert Plan.of(2.4, "forward").table(known=()).splitlines()[2:] == [
        "given: nothing (text to video)",
        "",
        "section  generates  seconds    sees (latent frames at kernel, . = nothing there yet)",
        "1        0..8       0.00-1.10  nothing",
        "2        9..17      1.10-2.30  0..5@k4  6..7@k2  0@k1  8@k1",
    ]
