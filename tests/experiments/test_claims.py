"""The tables of the paper's claims, from made-up findings of which the answer is known."""

import math
import re
from argparse import Namespace
from dataclasses import replace

import pytest

from experiments.study import run
from experiments.study.claims import Claims
from experiments.study.picks import joins
from experiments.study.results import Results
from experiments.study.videos import CONFIGURATIONS, EXPERIMENTS, Amount, Video, Way

NONE = Amount(0, 0, 0, 0, (), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
WAY = Way(steps=1)
NAMES = ("orders", "long_layouts", "tails", "windows", "errors")
AMOUNTS = (*NAMES, "far_orders")


def findings(video: Video) -> dict:
    """Inverted drifts a third as much as forward or a little less, vanilla twice as much, and an error of 0.1 doubles it, but
    forwards only."""
    lab = 2.0 + 0.1 * (video.scene % 3)
    lab /= 3 + 0.2 * (video.scene % 2) if video.order == "inverted" else 1
    lab *= 2 if video.layout == "vanilla" else 1
    lab *= 1 + 10 * video.error if video.order == "forward" else 1
    lab /= 1.5 if video.sees == "world" else 1
    return {
        "by_section": [{"lab": lab, "sharpness": 0.5}, {"lab": lab / 2, "sharpness": 1.0}],
        "drift": {"hsv": 0.1},
        "motion": 0.6,
    }


@pytest.fixture
def claims(tmp_path) -> Claims:
    """With six scenes of every experiment."""
    amount = replace(NONE, **dict.fromkeys(AMOUNTS, 6))
    results = Results(tmp_path / "results.jsonl", "weights")
    videos = dict.fromkeys(video for name in NAMES for video in WAY.of(EXPERIMENTS[name](amount)))
    results.add([(video.to_dict(), findings(video)) for video in videos])
    return Claims(results, amount, WAY, tmp_path)


def mean_colours(text: str) -> dict[str, list[str]]:
    """The cells of the lines about the mean colour of the section farthest off, by what is compared."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {compared: cells for compared, measure, *cells in lines if "mean colour" in measure}


def test_the_lower_order_is_named_with_its_interval_and_power(claims):
    found = mean_colours(claims.orders())

    scenes, forward, inverted, ratio, power, needed = found["12 sections: forward and inverted"]
    assert (scenes, float(forward) / float(inverted)) == ("6", pytest.approx(math.sqrt(3 * 3.2), abs=0.01))
    assert re.fullmatch(r"0\.32 \(0\.3[01] to 0\.3[345]\): inverted lower", ratio)
    assert power == "100%" and int(needed) <= 6
    assert found["24 sections: endpoints and inverted"][3].endswith(": inverted lower")
    assert found["24 sections: forward and endpoints"][3].endswith(": none shown")


def test_the_head_says_at_which_level_the_intervals_of_the_whole_table_hold(claims):
    head, _, *lines = claims.orders().splitlines()

    assert len(lines) == 2 * 3 * 4
    assert "other / reference, 99.79% each" in head  # 1 - 0.05 / 24
    assert claims.effect() == "29%"


def test_a_line_of_a_table_can_be_cited(claims):
    line = "12 sections", "forward and inverted", "mean colour"
    table_says = mean_colours(claims.orders())["12 sections: forward and inverted"]

    assert f"{claims.orders(*line)}: inverted lower" == table_says[3]
    ratio, bounds = (claims.orders(*line, form) for form in ("ratio", "range"))
    assert claims.orders(*line) == f"{ratio} ({bounds})"
    assert [claims.orders(*line, form) for form in ("power", "scenes")] == ["100%", "6"]


def test_what_is_not_in_a_table_is_not_cited(claims):
    assert claims.orders("13 sections", "forward and inverted", "mean colour") == ""
    with pytest.raises(ValueError, match="'colours' is in the names of 0 measures; take a word of one of the picture's mean"):
        claims.orders("12 sections", "forward and inverted", "colours")


def test_every_forward_layout_and_inverted_are_compared_with_vanilla(claims):
    found = mean_colours(claims.long_layouts())

    forward = [f"{order}, {layout}" for order, layout in CONFIGURATIONS if order == "forward" and layout != "vanilla"]
    others = [*forward, "inverted, framepack"]
    assert list(found) == [f"12 sections: forward, vanilla and {other}" for other in others]
    assert all(cells[3].endswith(f": {other} lower") for cells, other in zip(found.values(), others, strict=True))


def test_windows_are_compared_within_each_order_and_orders_within_each_window(claims):
    found = mean_colours(claims.windows())

    assert [cells[3].split(": ")[1] for cells in found.values()] == ["inverted lower"] * 2 + ["none shown"] * 2
    assert list(found)[1::2] == ["window 4: forward and inverted", "inverted: window 9 and window 4"]


def test_tails_are_compared_with_deleted_ones(claims):
    found = mean_colours(claims.tails())

    assert {name: cells[3].split(": ")[1] for name, cells in found.items()} == {
        "tail: deleted and pooled, appended": "pooled, appended lower",
        "tail: deleted and pooled globally": "pooled globally lower",
    }


def test_what_an_error_adds_is_told_apart_from_what_was_there(claims):
    found = mean_colours(claims.errors())

    assert found["times as much by an error of 0.1: forward and inverted"][1:3] == ["2.000", "1.000"]
    assert found["times as much by an error of 0.2: forward and inverted"][3].endswith(": inverted lower")
    assert found["sections see the world: forward and inverted"][3].startswith("0.32 ")
    assert found["inverted: sees its own and sees the world"][3].startswith("0.67 ")


def test_the_section_that_is_sampled_first_can_be_left_out(claims):
    """Forwards it is the first, whose colour is twice as far off as the second one's; inverted it is the last."""
    found = mean_colours(claims.errors_later())

    assert found["forward: sees its own and sees the world"][3].startswith("0.67 ")
    ratio = float(found["sections see the world: forward and inverted"][3].split(" ")[0])
    assert ratio == pytest.approx(2 / math.sqrt(3 * 3.2), abs=0.01)
    assert all("that see others" in line for line in claims.errors_later().splitlines()[2:])


def test_a_join_is_no_number_where_nothing_else_moves():
    assert joins({"joins": 20_967.2}) is None and joins({"joins": 1.2}) == 1.2


def test_the_drift_by_error_is_drawn(claims, tmp_path):
    assert claims.errors_plot().endswith("](images/experiments/errors.png)")
    assert (tmp_path / "images" / "experiments" / "errors.png").stat().st_size > 5000


def test_a_measure_of_one_scene_has_too_few(claims):
    alone = Claims(claims.results, replace(claims.amount, orders=1, far_orders=1), WAY, claims.output)

    assert {tuple(cells[3:]) for cells in mean_colours(alone.orders()).values()} == {("too few", "-", "-")}
    assert alone.orders("12 sections", "forward and inverted", "mean colour", "ratio") == "too few"


def test_without_results_nothing_is_written(tmp_path):
    claims = Claims(Results(tmp_path / "results.jsonl", "weights"), Amount(), WAY, tmp_path)

    for name in (*NAMES, "errors_plot"):
        assert getattr(claims, name)() == ""


def test_sharpness_is_taken_in_the_section_that_is_farthest_off_too(claims):
    line = next(line for line in claims.orders().splitlines() if "sharpness" in line)

    assert line.split(" | ")[3:5] == ["1.000", "1.000"], "the first section's halving, not the last one's"


@pytest.mark.slow
def test_the_errors_are_made_and_compared(studio, tmp_path):
    amount = replace(NONE, errors=1)
    results = Results(tmp_path / "results.jsonl", "weights")

    run.run(studio, results, amount, WAY, Namespace(only=("errors",), batch=2, results=results.path))

    found = mean_colours(Claims(results, amount, WAY, tmp_path).errors())
    assert len(found) == 6 and {cells[0] for cells in found.values()} == {"1"}
    none, some = (
        found[where] for where in ("no set error: forward and inverted", "sections see the world: forward and inverted")
    )
    assert none[1:3] != some[1:3], "what is seen matters"
    assert all(float(value) > 1.05 for value in found["times as much by an error of 0.2: forward and inverted"][1:3])
