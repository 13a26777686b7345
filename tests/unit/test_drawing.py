"""The picture of a plan: limited in size, every frame in the colour of what happens to it, every mark explained."""

from __future__ import annotations

from functools import partial

import pytest
from PIL import Image

from framepack_core.drawing.chart import Chart, Detail, heading, legend_entries
from framepack_core.drawing.marks import TEXT, colour_of
from framepack_core.drawing.painting import MAX_HEIGHT, MAX_WIDTH, Grid, draw_plan
from framepack_core.drawing.palette import DARK, LIGHT, Colour, Palette
from framepack_core.layout import PRESETS, Kernel
from framepack_core.orders import ORDERS
from framepack_core.plan import Plan

WIDTH, HEIGHT = 640, 608
K1, K2, K4 = (Detail(Kernel(m, 2 * m, 2 * m)) for m in (1, 2, 4))


def chart_of(plan: Plan, known: tuple[int, ...] = (0,)) -> Chart:
    return Chart.of(plan, HEIGHT // 8, WIDTH // 8, known)


def fitting_layouts(order: str) -> list[str]:
    return [name for name in PRESETS if ORDERS[order].fits(name)]


class Picture:
    """A drawn plan and where its frames are."""

    def __init__(self, plan: Plan, known: tuple[int, ...] = (0,)) -> None:
        self.chart = chart_of(plan, known)
        self.grid = Grid.of(self.chart)
        self.image: Image.Image = draw_plan(plan, WIDTH, HEIGHT, known)

    def colours(self, row: int, frame: int) -> tuple[Colour, Colour]:
        """A frame's colours in a row, near the top and near the bottom of its cell, clear of the text in the middle."""
        left, top, right, bottom = self.grid.box(row, frame, frame + 1)
        x = (left + right) // 2
        return self.image.getpixel((x, top + 3)), self.image.getpixel((x, bottom - 4))

    def frames(self, row: int, colour: Colour) -> list[int]:
        return [frame for frame in range(self.chart.frames) if self.colours(row, frame) == (colour, colour)]


@pytest.mark.parametrize("seconds", [1, 5, 60, 600])
@pytest.mark.parametrize("order", ORDERS)
def test_a_picture_of_any_length_has_a_bounded_size(order: str, seconds: float) -> None:
    width, height = draw_plan(Plan.of(seconds, order)).size
    assert width <= MAX_WIDTH
    assert height <= MAX_HEIGHT


def test_frames_that_are_given_in_mid_video_and_guided_sections_are_drawn() -> None:
    """Guides have no place in the video itself."""
    plan = Plan.of(3.6)
    chart = Chart.of(plan, HEIGHT // 8, WIDTH // 8, (0, 10), guides=[(13, 14)])

    assert [frame for frame, maker in enumerate(chart.made) if maker < 0] == [0, 10]
    assert [section.target[0] for section in chart.sections if chart.is_guided(section)] == [11]
    assert draw_plan(plan, WIDTH, HEIGHT, (0, 10), guides=[(13, 14)]).size == draw_plan(plan, WIDTH, HEIGHT, (0, 10)).size


def test_a_guide_that_no_section_is_shown_is_named_in_the_heading() -> None:
    chart = Chart.of(Plan.of(2.4), HEIGHT // 8, WIDTH // 8, (0,), guides=[(13, 14), (0, 1)])

    assert heading(chart)[2:] == ["guide 2 is shown to no section"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_video_without_any_image_is_drawn(order: str) -> None:
    assert draw_plan(Plan.of(1.2, order), known=()).width > 0


def test_any_frame_rate_can_be_drawn() -> None:
    assert draw_plan(Plan.of(5, fps=1e-12)).width <= MAX_WIDTH


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_a_picture_of_five_seconds_can_be_read_in_its_node(order: str) -> None:
    """In the example workflows the node is 494 units wide, where ComfyUI writes in letters of 12 units."""
    picture = draw_plan(Plan.of(5, order))
    assert TEXT * 474 / picture.width >= 11


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_the_finer_a_frame_is_seen_the_more_it_stands_out_from_the_paper(palette: Palette) -> None:
    def contrast(colour: Colour) -> int:
        return sum(abs(a - b) for a, b in zip(colour, palette.paper, strict=True))

    chart = Chart.of(Plan.of(5, "inverted"), HEIGHT // 8, WIDTH // 8, (0,), palette)
    contrasts = [contrast(colour_of(detail, chart)) for detail in (K1, K2, K4)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert draw_plan(Plan.of(5), palette=palette).getpixel((0, 0)) == palette.paper


@pytest.mark.parametrize(("order", "layout"), [(order, name) for order in ORDERS for name in fitting_layouts(order)])
def test_every_layout_draws_in_every_order_it_fits(order: str, layout: str) -> None:
    plan = Plan.of(5, order, layout=layout)
    picture = Picture(plan)
    for row, section in enumerate(picture.chart.sections):
        assert picture.frames(row, LIGHT.generated) == list(section.target)


def test_inverted_looks_back_at_the_start_and_at_what_follows() -> None:
    picture = Picture(Plan.of(5, "inverted"))
    colour = partial(colour_of, chart=picture.chart)
    assert picture.frames(0, LIGHT.generated) == list(range(28, 37))
    assert picture.frames(0, colour(K1)) == [0]
    assert picture.frames(0, LIGHT.paper) == list(range(1, 28))
    assert picture.frames(3, LIGHT.generated) == list(range(1, 10))
    assert picture.frames(3, colour(K1)) == [0, 10]
    assert picture.frames(3, colour(K2)) == [11, 12]
    assert picture.frames(3, colour(K4)) == list(range(13, 29))
    assert picture.frames(3, LIGHT.done) == list(range(29, 37))


def test_endpoints_generates_both_ends_in_its_first_row() -> None:
    picture = Picture(Plan.of(5, "endpoints"))
    assert picture.frames(0, LIGHT.generated) == [*range(1, 10), *range(28, 37)]
    assert picture.frames(1, LIGHT.generated) == list(range(10, 19))


def test_a_frame_looked_at_twice_shows_both_colours() -> None:
    picture = Picture(Plan.of(5, "forward"))
    colour = partial(colour_of, chart=picture.chart)
    assert picture.colours(1, 0) == (colour(K1), colour(K4))


def test_frames_that_do_not_exist_yet_stand_beyond_the_end() -> None:
    picture = Picture(Plan.of(5, "inverted"))
    for place, detail in enumerate((K1, K2, K4)):
        left, top, *_ = picture.grid.chip_box(0, place, 3, True, picture.chart.frames)
        assert left > picture.grid.x(picture.chart.frames)
        assert picture.image.getpixel((left, top)) == colour_of(detail, picture.chart)


def test_a_known_prefix_is_there_from_the_start() -> None:
    picture = Picture(Plan.of(1, "forward"), known=tuple(range(30)))
    assert picture.frames(0, LIGHT.generated) == list(range(30, 39))
    assert picture.frames(0, LIGHT.done) == list(range(1, 11))


@pytest.mark.parametrize("name", PRESETS)
def test_the_legend_explains_every_kernel_of_the_layout(name: str) -> None:
    order = "inverted" if name == "framepack" else "endpoints" if name == "endpoints" else "forward"
    plan = Plan.of(5, order, layout=name)
    texts = [text for _, text in legend_entries(chart_of(plan))]
    for kernel in plan.layout.kernels:
        assert any(text.startswith(f"{kernel}: ") for text in texts)


def test_the_legend_says_what_each_kernel_costs() -> None:
    texts = [text for _, text in legend_entries(chart_of(Plan.of(5, "inverted")))]
    assert "k1: full detail, 1,520 tokens a frame" in texts
    assert "k2: 1/8 detail, 190 tokens a frame" in texts
    assert "k4: 1/64 detail, 25 tokens a frame" in texts


def test_the_legend_writes_one_token_in_the_singular() -> None:
    small = Chart.of(Plan.of(5, "inverted"), 16, 16, (0,))
    texts = [text for _, text in legend_entries(small)]
    assert "k2: 1/8 detail, 8 tokens a frame" in texts
    assert "k4: 1/64 detail, 1 token a frame" in texts


def test_the_legend_leaves_out_what_does_not_occur() -> None:
    texts = " ".join(text for _, text in legend_entries(chart_of(Plan.of(1, "inverted"))))
    for mark in ("skipped", "twice", "there already", "not made yet"):
        assert mark not in texts


@pytest.mark.parametrize("tail", ["ta", "tc"])
def test_a_pooled_tail_has_a_colour_and_an_explanation_of_its_own(tail: str) -> None:
    chart = chart_of(Plan.of(10, "forward", layout=f"f1k1_{tail}_f2k2f1k1_g9"))
    assert len({colour_of(detail, chart) for detail in chart.details}) == 3
    assert any(text.startswith("k2, averaged") for _, text in legend_entries(chart))


def test_more_sections_than_fit_leave_out_the_middle() -> None:
    chart = chart_of(Plan.of(600, "forward"))
    rows = Grid.of(chart).rows
    shown = chart.shown(rows)
    assert len(shown) == rows < len(chart.sections)
    assert shown.count(None) == 1
    assert (shown[0], shown[-1]) == (chart.sections[0], chart.sections[-1])


def test_the_size_decides_the_tokens() -> None:
    plan = Plan.of(5, "inverted")
    assert draw_plan(plan, 640, 608).tobytes() != draw_plan(plan, 832, 480).tobytes()
