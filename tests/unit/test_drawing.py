"""The picture of a plan: limited in size, every frame in the colour of what happens to it, every mark explained."""

from __future__ import annotations

from functools import partial

import pytest
from PIL import Image

from framepack_core.drawing.chart import Chart, Detail, legend_entries
from framepack_core.drawing.marks import DONE, GENERATED, PAPER, Colour, colour_of
from framepack_core.drawing.painting import MAX_HEIGHT, MAX_WIDTH, Grid, draw_plan
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


@pytest.mark.parametrize(("order", "layout"), [(order, name) for order in ORDERS for name in fitting_layouts(order)])
def test_every_layout_draws_in_every_order_it_fits(order: str, layout: str) -> None:
    plan = Plan.of(5, order, layout=layout)
    picture = Picture(plan)
    for row, section in enumerate(picture.chart.sections):
        assert picture.frames(row, GENERATED) == list(section.target)


def test_inverted_looks_back_at_the_start_and_at_what_follows() -> None:
    picture = Picture(Plan.of(5, "inverted"))
    colour = partial(colour_of, chart=picture.chart)
    assert picture.frames(0, GENERATED) == list(range(28, 37))
    assert picture.frames(0, colour(K1)) == [0]
    assert picture.frames(0, PAPER) == list(range(1, 28))
    assert picture.frames(3, GENERATED) == list(range(1, 10))
    assert picture.frames(3, colour(K1)) == [0, 10]
    assert picture.frames(3, colour(K2)) == [11, 12]
    assert picture.frames(3, colour(K4)) == list(range(13, 29))
    assert picture.frames(3, DONE) == list(range(29, 37))


def test_endpoints_generates_both_ends_in_its_first_row() -> None:
    picture = Picture(Plan.of(5, "endpoints"))
    assert picture.frames(0, GENERATED) == [*range(1, 10), *range(28, 37)]
    assert picture.frames(1, GENERATED) == list(range(10, 19))


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
    assert picture.frames(0, GENERATED) == list(range(30, 39))
    assert picture.frames(0, DONE) == list(range(1, 11))


@pytest.mark.parametrize("name", PRESETS)
def test_the_legend_explains_every_kernel_of_the_layout(name: str) -> None:
    order = "inverted" if name == "framepack" else "endpoints" if name == "endpoints" else "forward"
    plan = Plan.of(5, order, layout=name)
    texts = [text for _, text in legend_entries(chart_of(plan))]
    for kernel in plan.layout.kernels:
        assert any(text.startswith(f"{kernel}: ") for text in texts)


def test_the_legend_says_what_each_kernel_costs() -> None:
    texts = [text for _, text in legend_entries(chart_of(Plan.of(5, "inverted")))]
    assert "k1: seen in full detail: 1,520 tokens per frame, each 16x16 pixels" in texts
    assert "k2: seen in 1/8 of full detail: 190 tokens per frame, each 32x32 pixels of 2 frames" in texts
    assert "k4: seen in 1/64 of full detail: 25 tokens per frame, each 64x64 pixels of 4 frames" in texts


def test_the_legend_leaves_out_what_does_not_occur() -> None:
    texts = " ".join(text for _, text in legend_entries(chart_of(Plan.of(1, "inverted"))))
    for mark in ("skipped", "split", "exists already", "not generated yet"):
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
