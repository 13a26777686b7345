"""What is predicted of more training, from counts of which the answer is known."""

import math

import pytest

from experiments.study import growth
from experiments.study.growth import SCENES, Growth, steps_to


def test_shares_on_a_line_of_log_odds_are_continued_on_it():
    """Odds of 1, 2 and 4 double with the steps, so 9 to 1 is a little over another doubling away."""
    obeyed = {1000: 20, 2000: SCENES * 2 / 3, 4000: SCENES * 4 / 5}

    assert Growth.of(obeyed).steps(0.9)[0] == pytest.approx(9000, rel=0.1)
    assert Growth.of(obeyed).share([1000, 4000]) == pytest.approx([0.5, 0.8], abs=0.02)


def test_what_does_not_grow_has_no_end():
    found = steps_to(0.9, {1000: 20, 2000: 20, 4000: 20})

    assert math.isinf(found.value) and math.isinf(found.high)
    assert 4000 < found.low < math.inf, "by chance it may have grown"


def test_the_interval_holds_the_value_and_is_narrower_where_growth_is_plain():
    plain = steps_to(0.9, {1000: 4, 4000: 20, 8000: 32})
    faint = steps_to(0.9, {1000: 20, 4000: 24, 8000: 27})

    for found in (plain, faint):
        assert found.low < found.value < found.high
    assert plain.high / plain.low < faint.high / faint.low


def test_the_table_has_every_order_and_the_picture_is_drawn(tmp_path):
    text = growth.write({"inverted": 29, "forward": 34, "endpoints": 25}, 0.9, tmp_path / "growth.png")

    assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]] == ["inverted", "forward", "endpoints"]
    assert "4,900 steps" in text and "72% (57 to 84)" in text
    assert (tmp_path / "growth.png").stat().st_size > 5000
