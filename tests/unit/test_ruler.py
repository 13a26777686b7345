"""The ruler under a text with times: its bars, its borders, and where in the text their numbers are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.drawing.palette import DARK, LIGHT
from framepack_core.drawing.ruler import STEP, Border, Ruler
from framepack_core.foreseen import Foreseen
from framepack_core.plan import Plan
from framepack_core.prompts import parse

VIDEO = Foreseen(Plan.of(4.8))  # 145 frames, 4.83 s, in four sections


def ruler(text: str, foreseen: Foreseen | None = VIDEO) -> Ruler:
    return Ruler.of(text, foreseen, 800)


def numbers(text: str, border: Border) -> list[str]:
    """The characters that JavaScript finds where the numbers of a border should be."""
    units = text.encode("utf-16-le", "surrogatepass")
    return [units[2 * number.at : 2 * number.until].decode("utf-16-le", "surrogatepass") for number in border.numbers]


def moved(text: str, border: Border, seconds: float, end: float) -> str:
    """The text with a border elsewhere, as web/timeline.js writes it."""
    units = text.encode("utf-16-le")
    for number in reversed(border.numbers):
        spelled = f"{seconds - end if number.from_end else seconds:.2f}"
        units = units[: 2 * number.at] + spelled.encode("utf-16-le") + units[2 * number.until :]
    return units.decode("utf-16-le")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat [2s: jumps] [4.0s: lands]", [["2"], ["4.0"]]),
        ("🎩👨‍👩‍👧 a cat [2s: 𝄞] é [ 3.50 s - 4s ~1s: 🎩]", [["2"], ["3.50"], ["4"]]),
        ("[0s-2s: a] [2.0s-4s: b] [4s: c]", [["0"], ["2", "2.0"], ["4", "4"]]),
        ("[3s: late] [-0.5s: end] [1s: early]", [["1"], ["3"], ["-0.5"]]),
        ("[1s-3s: one] [2s-4s: over the other]", [["1"], ["2"], ["3"], ["4"]]),
        ("\ud83d [1s: half a character]", [["1"]]),
        ("[red] 16:9 [a:b:0.5]", []),
    ],
    ids=["starts", "emoji", "shared", "any order", "overlapping", "surrogate", "none"],
)
def test_borders_are_the_numbers_of_the_text_in_the_order_of_time(text, expected):
    assert [numbers(text, border) for border in ruler(text).borders] == expected


STRETCHES = st.tuples(st.integers(1, 8), st.integers(0, 6), st.sampled_from(["jumps", "🎩", "[red] é", "𝄞 x"]))


@given(st.lists(STRETCHES, min_size=1, max_size=6), st.sampled_from(["", "🎩 a cat "]), st.data())
def test_wherever_a_border_can_go_the_text_can_be_read_and_the_order_stays(stretches, outside, data):
    """In a text of stretches one after the other, with or without gaps; the last number of some is counted from the end."""
    at, parts = 0, []
    for length, gap, words in stretches:
        start, at = at, at + length
        parts.append(f"[{start / 10:g}s-{at / 10:g}s: {words}]")
        at += gap
    text = outside + " ".join(parts) + " [-0.2s: end]"
    before = ruler(text)
    number = data.draw(st.integers(0, len(before.borders) - 1))
    border = before.borders[number]
    seconds = data.draw(st.floats(border.least, border.most))

    after = ruler(moved(text, border, seconds, before.seconds))

    assert border.least <= border.seconds <= border.most
    assert len(parse(after.text)) == len(parse(text))
    assert len(after.borders) == len(before.borders)
    assert abs(after.borders[number].seconds - seconds) < 0.01


def test_borders_stay_apart_from_their_neighbours_and_from_the_end():
    first, second, last = ruler("a [1s: b] [2s-3s: c]").borders

    assert (first.least, first.most) == (0, 2 - STEP)
    assert (second.least, second.most) == (1 + STEP, 3 - STEP)
    assert (last.least, last.most) == (2 + STEP, pytest.approx(145 / 30))
    assert ruler("a [3s: b]").borders[0].most == pytest.approx(145 / 30 - STEP)
    assert ruler("a [-1s: b]").borders[0].most == pytest.approx(145 / 30 - STEP)


def test_bars_say_what_counts_when_and_sections_what_each_is_told():
    shown = ruler("a cat [0s-2s ~1s: jumps] [9s: flies]")

    assert [(bar.words, round(bar.left, 3), round(bar.right, 3)) for bar in shown.bars] == [
        ("jumps", 0, 0.414),
        ("a cat", 0.414, 1),
    ]
    assert round(shown.bars[1].fade * shown.seconds, 3) == 1
    assert [section.title for section in shown.sections][:2] == [
        "section 1 of 4: 3.63 to 4.83 s\na cat",
        "section 2 of 4: 2.43 to 3.63 s\na cat (87%), jumps (13%)",
    ]
    assert [round(mark, 2) for mark in shown.marks] == [0.03, 1.23, 2.43, 3.63, 4.83]
    assert shown.notes == ("no section is told 'flies' (9s): it lies outside the video's 4.83 s",)


def test_the_same_words_have_the_same_colour_and_each_ground_can_be_read():
    bars = ruler("[0s: walks] [1s: runs] [2s: walks]").bars

    assert bars[0].colour == bars[2].colour != bars[1].colour
    for palette in (LIGHT, DARK):
        assert all(contrast(palette.ink, ground) > 4.5 for ground in (*palette.prompts, palette.done))


def contrast(one, other) -> float:
    """As WCAG 2 has it."""
    lights = sorted(sum(w * ((c / 255 + 0.055) / 1.055) ** 2.4 for w, c in zip((0.2126, 0.7152, 0.0722), colour, strict=True))
                    for colour in (one, other))  # fmt: skip
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def test_without_a_plan_there_are_seconds_up_to_the_last_time():
    shown = ruler("a [2s: b] [6.5s: c]", None)

    assert shown.seconds == 8 and shown.marks == shown.sections == ()
    assert [bar.words for bar in shown.bars] == ["a", "b", "c"]
    assert ruler("", None).seconds == 5


def test_a_text_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="is not closed"):
        ruler("[2s: it jumps")
