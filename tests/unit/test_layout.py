"""The notation: what it means, that it prints back, and how many tokens it costs."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack_core.layout import PRESETS, Group, Kernel, Layout, Side, resolve

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)


@st.composite
def kernels(draw):
    """A kernel as a layout writes it."""
    t, h, w = draw(st.integers(1, 16)), draw(st.integers(1, 16)) * 2, draw(st.integers(1, 16)) * 2
    return f"k{t}" if draw(st.booleans()) or h == w == 2 * t else f"k{t}h{h}w{w}"


groups = st.lists(st.builds("f{}{}".format, st.integers(1, 40), kernels()), min_size=1, max_size=4)


@st.composite
def sides(draw):
    """Fields of one side, outermost first, each a list of groups or separators."""
    near, far = draw(groups), draw(groups)
    tail = [draw(st.sampled_from(["td", "ta", "tc"]))]
    return draw(st.sampled_from([[], [near], [tail, near], [far, tail, near], [far, ["x"]], [far, ["x"], near]]))


@st.composite
def layouts(draw):
    left, right = draw(sides()), draw(sides())
    window = [[f"g{draw(st.integers(1, 99))}"]]
    return "_".join("".join(field) for field in left + window + right[::-1])


def test_a_layout_reads_from_the_oldest_frame_to_the_newest():
    inverted = Layout.parse("f1k1_x_g9_f1k1f2k2f16k4_td")

    assert inverted.left == Side(far=(Group(1, K1),), skip=True)
    assert inverted.window == 9
    assert inverted.right == Side(near=(Group(1, K1), Group(2, K2), Group(16, K4)), tail="td")


def test_groups_beyond_a_tail_are_the_far_ones():
    left = Layout.parse("f1k1_td_f16k4f2k2f1k1_g9").left

    assert left.far == (Group(1, K1),)
    assert left.near == (Group(16, K4), Group(2, K2), Group(1, K1))
    assert (left.far_frames, left.near_frames) == (1, 19)


@pytest.mark.parametrize(
    ("spelled", "kernel"),
    [("k1", (1, 2, 2)), ("k8", (8, 16, 16)), ("k1h4w2", (1, 4, 2)), ("k3h2w10", (3, 2, 10))],
)
def test_k_with_one_number_is_twice_as_high_and_wide(spelled, kernel):
    (group,) = Layout.parse(f"f5{spelled}_g9").left.near

    assert group == Group(5, Kernel(*kernel))
    assert str(group.kernel) == spelled


def test_a_kernel_of_the_usual_shape_is_spelled_short():
    assert str(Layout.parse("f1k2h4w4_g9")) == "f1k2_g9"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_prints_back_as_it_is_written(name):
    assert str(resolve(name)) == PRESETS[name]


@given(layouts())
def test_every_layout_prints_back_as_it_is_written(text):
    layout = Layout.parse(text)

    assert str(layout) == text
    assert Layout.parse(str(layout)) == layout


@given(layouts())
def test_mirrored_twice_is_the_same_layout(text):
    layout = Layout.parse(text)

    assert layout.mirrored().mirrored() == layout


@given(layouts())
def test_mirroring_reverses_the_fields_and_the_groups_in_them(text):
    fields = ["".join(re.findall(r"f[^f]+|^[^f]+", field)[::-1]) for field in text.split("_")]

    assert str(Layout.parse(text).mirrored()) == "_".join(fields[::-1])


def test_endpoints_mirrored_is_the_released_layout():
    assert str(resolve("endpoints").mirrored()) == PRESETS["framepack"]


def test_a_name_that_is_no_preset_is_read_as_a_layout():
    assert resolve("f1k1_g3") == Layout.parse("f1k1_g3")


def test_another_window_changes_nothing_else():
    assert str(resolve("f1").with_window(4)) == "f1k1_td_f16k4f2k2f1k1_g4"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("framepack", [K4, K2, K1]),
        ("temporal", [Kernel(8, 16, 16), K4, K2, K1]),
        ("symmetric", [Kernel(1, 4, 4), Kernel(1, 4, 2), K1]),
    ],
)
def test_kernels_come_once_each_and_the_coarsest_first(name, expected):
    assert list(resolve(name).kernels) == expected


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", 0, "expected a group"),
        ("bogus", 0, "expected a group"),
        ("f1k1", 4, "no generated frames"),
        ("f1k1_g0", 5, "expected a group"),
        ("f1k1_g9_g9", 8, "second g"),
        ("f0k1_g9", 0, "expected a group"),
        ("f1k1f2q2_g9", 4, "expected a group"),
        ("f1k1f2k2h4_g9", 8, "expected a group"),
        ("f1k1h3w2_g9", 0, "even"),
        ("f2k2f1k1h2w5_g9", 4, "even"),
        ("f1k1_x_g9_f1k1f99999999999k4_td", 14, "at most 1024 frames"),
        ("td_f2k129_g9", 3, "a kernel of at most 128"),
        ("f2k2__g9", 5, "expected a group"),
        ("f1k1_g9_", 8, "expected a group"),
        ("f1k1 _g9", 4, "expected a group"),
        ("f1k1_G9", 5, "expected a group"),
        ("td_g9", 0, "a side reads"),
        ("g9_td", 3, "a side reads"),
        ("x_f1k1_g9", 0, "a side reads"),
        ("f1k1_td_g9", 5, "a side reads"),
        ("g9_f1k1_f2k2", 8, "a side reads"),
        ("f1k1_td_x_f1k1_g9", 5, "a side reads"),
        ("f1k1_x_f1k1_td_f1k1_g9", 5, "a side reads"),
    ],
)
def test_a_bad_string_is_shown_with_a_caret_under_the_place(text, place, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        Layout.parse(text)

    _, shown, caret = str(caught.value).split("\n")
    assert shown == "  " + text
    assert caret == "  " + " " * place + "^"


def test_an_unknown_name_is_shown_like_a_bad_string():
    with pytest.raises(ValueError, match="layout 'geometrical'"):
        resolve("geometrical")


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        # 640x608: latent 76x80, so 38x40 = 1520 tokens per frame at k1.
        ("framepack", 2 * 1520 + 19 * 20 + 4 * 10 * 10),
        ("f1", 2 * 1520 + 19 * 20 + 4 * 10 * 10),
        ("vanilla", 1520 + 19 * 20 + 4 * 10 * 10),
        ("endpoints", 2 * 1520 + 19 * 20 + 4 * 10 * 10),
        ("geometric", 1520 + 19 * 40 + 19 * 20 + 10 * 20 + 10 * 10),
        ("duplicated", 1520 + 3 * 19 * 20 + 3 * 10 * 10),
        ("temporal", 1520 + 19 * 20 + 10 * 10 + 5 * 5),
        ("important-start", 2 * 1520 + 19 * 40 + 19 * 20 + 10 * 20 + 10 * 10),
        ("symmetric", 2 * (1520 + 19 * 40 + 19 * 20)),
    ],
)
def test_context_tokens_of_the_presets_at_640x608(name, tokens):
    layout = resolve(name)

    assert layout.context_tokens(76, 80, history=0) == tokens
    assert layout.context_tokens(76, 80, history=10_000) == tokens
    assert layout.context_bound(76, 80) == tokens


def cells(frames, kernel, height, width):
    """The kernel's cells that hold at least one latent pixel, counted one by one."""
    pixels = ((t, y, x) for t in range(frames) for y in range(height) for x in range(width))
    return len({tuple(i // k for i, k in zip(pixel, kernel, strict=True)) for pixel in pixels})


sizes = st.integers(1, 24).map(lambda size: 2 * size)
wide = st.integers(1, 60).map(lambda size: 2 * size)  # several pooled cells


@settings(max_examples=60)
@given(st.sampled_from(sorted(PRESETS)), sizes, sizes, st.integers(0, 60))
def test_context_tokens_count_every_cell_that_is_touched(name, height, width, history):
    layout = resolve(name)
    groups = [*layout.left.near, *layout.left.far, *layout.right.near, *layout.right.far]

    expected = sum(cells(group.frames, group.kernel, height, width) for group in groups)

    assert layout.context_tokens(height, width, history) == expected


@settings(max_examples=60)
@given(wide, wide, st.integers(0, 60))
def test_a_pooled_tail_adds_each_of_its_frames_at_the_nearest_kernel(height, width, history):
    near = cells(2, K2, height, width) + cells(1, K1, height, width)
    tail = cells(max(0, history - 3), K2, math.ceil(height / 32), math.ceil(width / 32))

    assert Layout.parse("ta_f2k2f1k1_g9").context_tokens(height, width, history) == near + tail
    assert Layout.parse("g9_f1k1f2k2_ta").context_tokens(height, width, history) == near + tail


def test_only_frames_beyond_the_groups_belong_to_the_tail():
    layout = Layout.parse("f1k1_ta_f2k1_g9")

    tokens = [layout.context_tokens(64, 64, history) for history in range(8)]

    groups = 3 * 32 * 32
    assert tokens == [groups] * 4 + [groups + 1, groups + 2, groups + 3, groups + 4]


def test_a_tail_that_pools_frames_grows_with_the_history_without_bound():
    layout = Layout.parse("ta_f16k4f2k2f1k1_g9")

    tokens = [layout.context_tokens(76, 80, history) for history in range(19, 400, 20)]

    assert all(few < many for few, many in pairwise(tokens))
    assert layout.context_bound(76, 80) == math.inf


@pytest.mark.parametrize(("text", "extra"), [("tc_f2k2f1k1_g9", 1), ("td_f2k2f1k1_g9", 0), ("tc_f1k1_g9_f1k1_tc", 2)])
def test_the_bound_of_the_other_tails_is_exact_and_reached(text, extra):
    layout = Layout.parse(text)

    tokens = [layout.context_tokens(30, 42, history) for history in range(100)]

    assert max(tokens) == layout.context_bound(30, 42) == tokens[0] + extra
    assert tokens[-1] == tokens[0] + extra


@given(layouts().filter(lambda text: "ta" not in text), sizes, sizes)
def test_no_history_exceeds_the_bound_and_a_long_one_reaches_it(text, height, width):
    layout = Layout.parse(text)
    bound = layout.context_bound(height, width)

    tokens = [layout.context_tokens(height, width, history) for history in (*range(0, 400, 7), 10_000)]

    assert max(tokens) == tokens[-1] == bound
