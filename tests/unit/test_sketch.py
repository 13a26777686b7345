"""The small drawing of a plan in its own node."""

import pytest

from framepack_core.drawing.palette import DARK, LIGHT
from framepack_core.drawing.sketch import Sketch, sketch_plan
from framepack_core.plan import Plan
from framepack_core.prompts import parse

WIDTH = 560


def colours(sketch: Sketch, row: int) -> list[tuple[int, int, int]]:
    """Along a row, just below its upper edge, where no words are."""
    place = sketch.rows[row]
    y = place.top + (place.bottom - place.top) // 8 + 1
    return [sketch.image.getpixel((x, y)) for x in range(sketch.image.width)]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_each_section_has_a_row_and_its_own_frames_are_marked(palette):
    sketch = sketch_plan(Plan.of(4.8), WIDTH, palette=palette)

    assert [row.section for row in sketch.rows] == [0, 1, 2, 3]
    assert sketch.length == "145 frames, 4.83 s"
    assert colours(sketch, 0)[WIDTH - 10] == palette.generated  # inverted: the end first
    assert colours(sketch, 3)[40] == palette.generated
    assert colours(sketch, 0)[2] != palette.paper  # the start image


def test_a_row_says_what_its_section_makes_sees_and_costs():
    assert sketch_plan(Plan.of(2.4), WIDTH, guides=[(3, 5)]).rows[1].text.splitlines() == [
        "section 2 of 2: 0.03 to 1.23 s, latent frames 1..9",
        "sees latent frames 13..18 at k4, 11..12 at k2, guide 1 at k1, 10 at k1",
        "3,820 + 13,680 tokens (seen + made)",
    ]
    assert "sees nothing yet" in sketch_plan(Plan.of(1.2), WIDTH, known=()).rows[0].text


def test_a_guide_that_no_section_is_shown_is_named_beside_the_length():
    assert (
        sketch_plan(Plan.of(2.4), WIDTH, guides=[(3, 5), (0, 1)]).length == "73 frames, 2.43 s; guide 2 is shown to no section"
    )


def test_prompts_with_times_are_bars_over_the_frames_and_rows_say_which_they_use():
    prompts = parse("a cat [1.2s-3.6s: it jumps]")

    sketch = sketch_plan(Plan.of(4.8), WIDTH, prompts=prompts)

    edges = [round(edge * 37, 2) for bar in sketch.bars for edge in (bar.left, bar.right)]  # latent frames
    assert [bar.words for bar in sketch.bars] == ["a cat", "it jumps", "a cat"]
    assert edges == [0, 9.75, 9.75, 27.75, 27.75, 37]
    assert [row.text.splitlines()[-1] for row in sketch.rows] == [
        f"prompt: {one}" for one in ("a cat", "it jumps", "it jumps", "a cat")
    ]


def test_prompts_without_times_are_not_drawn():
    assert sketch_plan(Plan.of(4.8), WIDTH, prompts=parse("a cat")) == sketch_plan(Plan.of(4.8), WIDTH)


@pytest.mark.parametrize("sections", [1, 30, 200, 1000])
def test_many_sections_have_thin_rows_that_do_not_overlap(sections):
    sketch = sketch_plan(Plan.of(1.2 * sections), WIDTH)

    assert sketch.image.height <= 1100
    assert len(sketch.rows) == sections or len(sketch.rows) > 200
    assert all(row.bottom > row.top for row in sketch.rows)
    assert all(one.bottom <= other.top for one, other in zip(sketch.rows, sketch.rows[1:], strict=False))
    assert sketch.rows[0].section == 0 and sketch.rows[-1].section == sections - 1
