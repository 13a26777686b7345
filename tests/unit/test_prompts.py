"""Prompts that change with time: how they are written, which section is told what, and what is refused."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.plan import Plan
from framepack_core.prompts import (
    Choice,
    Prompt,
    Span,
    changes_backwards,
    choices,
    keeps_start,
    parse,
    span_of,
    spell,
    stretches,
    table,
    without_section,
    written,
)

# How they are written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat sits", [("a cat sits", None)]),
        ("", [("", None)]),
        (" two  blanks ", [(" two  blanks ", None)]),
        ("a [red] cat, 16:9 [16:9] (soft:1.2) [a:b:0.5]", [("a [red] cat, 16:9 [16:9] (soft:1.2) [a:b:0.5]", None)]),
        (
            "a cat sits [2s: it jumps] [4s-5.5s: it lands]",
            [("a cat sits", None), ("it jumps", Span(2)), ("it lands", Span(4, 5.5))],
        ),
        ("[2s: b] a\n[1s: c] cat", [("a cat", None), ("b", Span(2)), ("c", Span(1))]),
        ("[ 2 s - 4.0s ~ 1.5s : x ]", [("x", Span(2, 4, 1.5))]),
        ("[2S:3 cats]", [("3 cats", Span(2))]),
        ("[-2s--1s: bye] [0s: hi]", [("bye", Span(-2, -1)), ("hi", Span(0))]),
        ("[2s: a [blue] hat] 🎩", [("🎩", None), ("a [blue] hat", Span(2))]),
    ],
)
def test_a_text_is_read_as_these_prompts(text, expected):
    assert parse(text) == tuple(Prompt(words, span) for words, span in expected)


def test_a_text_says_where_its_times_are_written():
    text = "a [red] [ 2.50 s -4s ~1s: [1s: b]] [-1s: c] [0s: d]"

    assert [(text[time.at : time.until], time.seconds, time.begins) for time in written(text)] == [
        ("2.50", 2.5, True),
        ("4", 4, False),
        ("-1", -1, True),
        ("0", 0, True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[2s: it jumps", "'[2s: it jumps' is not closed; write a ]"),
        ("[2s: a [b: c]", "is not closed"),
        ("[2s: ]", "'[2s: ]' has no words"),
        ("[4s-2s: x]", "'[4s-2s: x]' ends at 2 s, but begins at 4 s; write the earlier time first"),
        ("[2s-2s: x]", "ends at 2 s, but begins at 2 s"),
        ("[-1s--2s: x]", "ends at -2 s, but begins at -1 s"),
        ("[1s: a] [1s-2s: b]", "'a' and 'b' both begin at 1 s; give one of them another time"),
        ("[2: x]", "'[2: x]' looks like a time, but is none; write [2s: ...]"),
        ("[1,5s: x]", "looks like a time"),
        ("[2s to 4s: x]", "looks like a time"),
        ("[2 sec: x]", "looks like a time"),
        ("[2s-4s ~1: x]", "looks like a time"),
        ("[3601s: x]", "start is 3601 s; choose at most 3600 s"),
        ("[0s-9999s: x]", "end is 9999 s; choose at most 3600 s"),
        ("[0s ~9999s: x]", "the fade is 9999 s; choose 0 (none) to 3600"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "[0s: The person waves hello] [2s: The person jumps up and down] [4s: The person does a spin]",
        "[0s: Person looks surprised] [1.1s: Person raises arms above head] [2.2s-3.3s: Person puts hands on hips]",
        "A woman in a park. [1s: She waves.] [3s-5s: She claps.]",
    ],
)
def test_prompts_of_framepack_studio_mean_the_same(text):
    pattern = r"\[(\d+(?:\.\d+)?s)(?:-(\d+(?:\.\d+)?s))?\s*:\s*(.*?)\]"  # FramePack Studio's
    expected = [
        Prompt(words, Span(float(start[:-1]), float(end[:-1]) if end else None))
        for start, end, words in re.findall(pattern, text)
    ]
    outside = re.sub(pattern, "", text).strip()

    assert [prompt for prompt in parse(text) if prompt.span] == expected
    assert [prompt.words for prompt in parse(text) if prompt.span is None] == ([outside] if outside else [])


TIMES = st.integers(-36000, 36000).map(lambda tenths: tenths / 10)
PLAIN = st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), max_size=20).map(str.strip).filter(bool)


@st.composite
def spans(draw) -> Span:
    start = draw(TIMES)
    end = draw(st.none() | TIMES.filter(lambda end: (end < 0) != (start < 0) or end > start))
    return Span(start, end, draw(st.integers(0, 50)) / 10)


@given(PLAIN, st.lists(st.tuples(PLAIN, spans()), min_size=1, max_size=500, unique_by=lambda one: one[1].start))
def test_what_is_spelled_is_read_as_the_same_again(outside, timed):
    prompts = (Prompt(outside), *(Prompt(words, span) for words, span in timed))

    assert parse(spell(prompts)) == prompts


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_sentence(text):
    try:
        assert parse(text)
    except ValueError as error:
        assert ";" in str(error)


# Which time belongs to what


def times(text: str, seconds: float = 6.0) -> list[tuple[float, float, str | None]]:
    prompts = parse(text)
    words = {prompt.span: prompt.words for prompt in prompts}
    found = stretches([prompt.span for prompt in prompts if prompt.span], None in words, seconds)
    return [(stretch.start, stretch.stop, words[stretch.span]) for stretch in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z [2s: a] [4s-5s: b]", [(0, 2, "z"), (2, 4, "a"), (4, 5, "b"), (5, 6, "z")]),
        ("[0s: a] [2s-3s: b]", [(0, 2, "a"), (2, 6, "b")]),
        ("[2s: a] [4s: b]", [(0, 4, "a"), (4, 6, "b")]),
        ("[4s: b] [0s: a]", [(0, 4, "a"), (4, 6, "b")]),
        ("[0s-5s: a] [2s-3s: b]", [(0, 2, "a"), (2, 3, "b"), (3, 6, "a")]),
        ("z [-2s: a]", [(0, 4, "z"), (4, 6, "a")]),
        ("z [1s--4s: a] [-1s: b]", [(0, 1, "z"), (1, 2, "a"), (2, 5, "z"), (5, 6, "b")]),
        ("z [-9s-2s: a] [7s: b]", [(0, 2, "a"), (2, 6, "z")]),
    ],
    ids=["otherwise", "the one before goes on", "the first from the beginning", "any order of writing", "the last begun",
         "from the end", "both", "beyond the video"],
)  # fmt: skip
def test_each_moment_has_one_prompt(text, expected):
    assert times(text) == expected


def test_a_span_to_the_end_lasts_until_another_begins_and_goes_on_after_it():
    always, short = span_of(0, 0), span_of(2, 3)

    found = stretches([always, short], False, 6.0)

    assert always.end == math.inf
    assert [stretch.span for stretch in found] == [always, short, always]


def test_a_video_without_any_prompt_is_refused():
    with pytest.raises(ValueError, match=r"no prompt has a time within the video's 6.00 s: the first is for 7s; give one an"):
        stretches([Span(7), Span(8)], False, 6.0)


@given(st.lists(spans(), min_size=1, max_size=30), st.integers(1, 100))
def test_all_of_the_video_is_told_something_once(some, tenths):
    found = stretches(some, True, tenths / 10)

    assert found[0].start == 0 and found[-1].stop == tenths / 10
    assert all(before.stop == after.start for before, after in pairwise(found))


# Which section is told what


def told(text: str, plan: Plan, known: int = 1) -> list[str]:
    """The words of each section, by the time of its first frame."""
    prompts = parse(text)
    words = {prompt.span: prompt.words for prompt in prompts}
    length = plan.length(known + plan.generated)
    sections = plan.fill(length.latents, range(known))
    found = choices([prompt.span for prompt in prompts if prompt.span], None in words, sections, length, plan.fps)
    by_time = sorted(zip(sections, found, strict=True), key=lambda one: one[0].target[0])
    return [words[choice.span] for _, choice in by_time]


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_a_time_is_one_of_the_video_in_every_order(order):
    assert told("z [2.4s: a] [3.7s-4.8s: b]", Plan.of(6, order)) == ["z", "z", "a", "b", "z"]


@pytest.mark.parametrize(
    ("order", "parts", "text", "backwards"),
    [
        ("inverted", [], "a [2.4s: b]", True),
        ("inverted", [2.4], "a [2.4s: b]", False),
        ("inverted", [2.4], "a [2.4s: b] [3.6s: c]", True),
        ("inverted", [], "a [9s: b]", False),
        ("inverted", [], "a [1.2s ~2.4s: b]", True),
        ("inverted", [1.2], "a [1.2s ~2.4s: b]", False),  # the fade is within b's part
        ("forward", [], "a [2.4s: b]", False),
    ],
)
def test_a_change_is_made_backwards_where_what_follows_it_is_made_first(order, parts, text, backwards):
    plan = Plan.of(4.8, order).in_parts(parts)
    length = plan.length(1 + plan.generated)
    sections = plan.fill(length.latents)
    spans = [prompt.span for prompt in parse(text) if prompt.span]

    assert changes_backwards(choices(spans, True, sections, length, plan.fps), sections) == backwards


@pytest.mark.parametrize(
    ("layout", "parts", "text", "keeps"),
    [
        ("f1", [], "a [2.4s: b]", True),
        ("f1", [2.4], "a [2.4s: b]", False),
        ("f1", [2.4], "a [2.4s: b] [3.6s: c]", False),
        ("f1", [3.6], "a [2.4s: b] [3.6s: c]", True),
        ("f1", [], "a [9s: b]", False),
        ("vanilla", [], "a [2.4s: b]", False),
    ],
)
def test_forwards_the_start_image_is_seen_after_a_change_but_for_parts(layout, parts, text, keeps):
    plan = Plan.of(4.8, "forward", layout=layout).in_parts(parts)
    length = plan.length(1 + plan.generated)
    sections = plan.fill(length.latents)
    spans = [prompt.span for prompt in parse(text) if prompt.span]

    assert keeps_start(choices(spans, True, sections, length, plan.fps), sections) == keeps


def test_the_section_at_both_ends_is_told_what_belongs_to_the_beginning():
    plan = Plan.of(6, "endpoints")
    length = plan.length(1 + plan.generated)
    first, *others = choices([Span(0), Span(1.3)], False, plan.fill(length.latents), length, 30.0)

    assert first == Choice(Span(0)) and {choice.span for choice in others} == {Span(1.3)}


def test_a_moment_shorter_than_a_section_has_the_section_that_has_most_of_it():
    assert told("z [1.5s-1.8s: blinks]", Plan.of(6)) == ["z", "blinks", "z", "z", "z"]


def test_the_sections_that_connect_a_loop_come_after_its_last_second():
    assert told("[0s: a] [3.6s: b]", Plan.of(3.6, loop=2)) == ["a", "a", "a", "b", "b"]


def test_the_only_section_is_told_one_prompt():
    assert told("z [0.2s: a]", Plan.of(1.2)) == ["a"]
    assert told("z [0.2s-0.4s: a] [0.5s: b] [2s: c]", Plan.of(1.2)) == ["b"]


def test_times_beside_a_clip_are_those_of_the_whole_video():
    assert told("z [3.7s: a]", Plan.of(2.4, "forward"), known=19) == ["z", "a"]


def test_what_no_section_is_told_has_a_reason():
    plan = Plan.of(2.4)
    length = plan.length(1 + plan.generated)
    spans, sections = [Span(0), Span(1.1, 1.4), Span(9, 10)], plan.fill(length.latents)
    found = choices(spans, True, sections, length, 30.0)

    left = dict(without_section(spans, found, sections, length, 30.0))
    of_one = dict(without_section(spans, found[1:], sections[1:], length, 30.0))

    assert left == {
        Span(1.1, 1.4): "each of its sections has more of another; make it longer",
        Span(9, 10): "it lies outside the video's 2.43 s",
    }
    assert of_one.keys() == {Span(9, 10)}, "the section that is not made again may be told the other"


def test_a_fade_is_the_mean_of_its_weight_in_each_section():
    plan = Plan.of(6, "forward")
    length = plan.length(1 + plan.generated)
    a, b = Span(0), Span(37 / 30, None, 2.4)

    found = choices([a, b], False, plan.fill(length.latents), length, 30.0)

    assert found == [Choice(a), Choice(b, 0.25, a), Choice(b, 0.75, a), Choice(b), Choice(b)]


def test_what_follows_the_end_of_a_span_fades_in_as_it_did():
    found = stretches([Span(1, 3, 0.5), Span(5)], True, 6.0)

    assert [stretch.fade for stretch in found] == [0.0, 0.5, 0.5, 0.0]


def test_five_hundred_prompts_in_an_hour_are_planned_in_a_moment():
    spans = [Span(7.2 * number, None, 1.0) for number in range(500)]
    plan = Plan.of(3600, "forward", layout="f1")

    found = choices(spans, False, plan.fill(1 + plan.generated), plan.length(1 + plan.generated), 30.0)

    assert len(found) == 3000 and {choice.span for choice in found} == {*spans}


# Tables


def test_the_table_has_the_times_and_with_a_plan_the_sections():
    prompts = parse("a cat sits [1.2s ~2.4s: it jumps] [9s: it lands]")

    assert table(prompts).splitlines() == [
        "time        words",
        "otherwise   a cat sits",
        "1.2s ~2.4s  it jumps",
        "9s          it lands",
    ]
    assert table(prompts, Plan.of(3.6)).splitlines() == [
        "section  seconds    words",
        "1        2.43-3.63  it jumps (76%), a cat sits (24%)",
        "2        1.23-2.43  it jumps (26%), a cat sits (74%)",
        "3        0.03-1.23  a cat sits",
        "no section is told 'it lands' (9s): it lies outside the video's 3.63 s",
    ]
