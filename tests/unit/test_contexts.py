"""What each section sees in extension, keyframes and text to video in the released layouts, as a table, and in float64.

A row has the section's frames and their first time index, then for each kernel its first time index and its frames; `.` does
not exist yet. The indices are those of the official programs: inverted has start, blanks, generated frames, 1x, 2x and 4x; F1
has start, 4x, 2x, 1x and generated frames. Of an extension, inverted shows the last given frame in the place of the start, as
the extending forks do, and F1 the first.
"""

from dataclasses import replace

import pytest
import torch

from framepack_core.filling import Section
from framepack_core.packing import gather
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

PREFIX, KEYFRAMES, NOTHING = frozenset(range(19)), frozenset((0, 10)), frozenset[int]()

TABLE = [
    # order, known, section: generates@index | kernel@index: frames
    ("inverted", PREFIX, 0, "28..36@10 | 4@22: ................ | 2@20: . . | 1@0: 18 | 1@19: ."),
    ("inverted", PREFIX, 1, "19..27@1 | 4@13: 31 32 33 34 35 36 .......... | 2@11: 29 30 | 1@0: 18 | 1@10: 28"),
    ("inverted", KEYFRAMES, 0, "11..19@1 | 4@13: ................ | 2@11: . . | 1@0: 10 | 1@10: ."),
    ("inverted", KEYFRAMES, 1, "1..9@1 | 4@13: 13 14 15 16 17 18 19 ......... | 2@11: 11 12 | 1@0: 0 | 1@10: 10"),
    ("inverted", NOTHING, 0, "9..17@10 | 4@22: ................ | 2@20: . . | 1@19: ."),
    ("inverted", NOTHING, 1, "0..8@1 | 4@13: 12 13 14 15 16 17 .......... | 2@11: 10 11 | 1@10: 9"),
    ("forward", PREFIX, 0, "19..27@20 | 4@1: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 | 2@17: 16 17 | 1@0: 0 | 1@19: 18"),
    ("forward", PREFIX, 1, "28..36@20 | 4@1: 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 | 2@17: 25 26 | 1@0: 0 | 1@19: 27"),
    ("forward", NOTHING, 0, "0..8@20"),
    ("forward", NOTHING, 1, "9..17@20 | 4@1: .......... 0 1 2 3 4 5 | 2@17: 6 7 | 1@0: 0 | 1@19: 8"),
    ("endpoints", KEYFRAMES, 0, "11..19@19 | 4@0: ........ 0 ....... | 2@16: . . | 1@18: 10 | 1@28: ."),
    ("endpoints", KEYFRAMES, 1, "1..9@19 | 4@0: ................ | 2@16: . . | 1@18: 0 | 1@28: 10"),
]  # fmt: skip


@pytest.mark.parametrize(("order", "known", "number", "row"), TABLE)
def test_a_section_sees_what_the_table_says(order, known, number, row):
    section = sections(order, known)[number]

    assert spelled(section) == parsed(row)


@pytest.mark.parametrize(("order", "known", "number", "row"), TABLE)
def test_a_section_is_given_the_latents_of_these_frames(order, known, number, row):
    filled = sections(order, known)
    frames = len(known) + 18
    truth = torch.randn(1, 16, frames, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    timeline = Timeline(torch.zeros_like(truth))
    done = {*known, *(frame for section in filled[:number] for frame in section.target)}
    timeline.write(sorted(done), truth[:, :, sorted(done)])

    given = gather(filled[number], timeline).latents

    groups = parsed(row)[1]
    assert len(given) == len(groups)
    for latents, (_, _, shown) in zip(given, groups, strict=True):
        for place, frame in enumerate(shown):
            expected = torch.zeros_like(truth[:, :, 0]) if frame is None else truth[:, :, frame]
            assert torch.equal(latents[:, :, place], expected)


def sections(order: str, known: frozenset[int]) -> tuple[Section, ...]:
    return replace(Plan.of(1, order), sections=2).fill(len(known) + 18, known)


Groups = list[tuple[int, int, list[int | None]]]  # temporal kernel, first time index, frames


def spelled(section: Section) -> tuple[tuple[int, int, int], Groups]:
    groups = [(group.kernel.t, group.indices[0], list(group.frames)) for group in section.context]
    assert all(
        group.indices == tuple(range(group.indices[0], group.indices[0] + len(group.frames))) for group in section.context
    )
    return (section.target[0], section.target[-1], section.indices[0]), groups


def parsed(row: str) -> tuple[tuple[int, int, int], Groups]:
    generated, *groups = row.split(" | ")
    target, index = generated.split("@")
    first, last = target.split("..")
    return (int(first), int(last), int(index)), [group_of(group) for group in groups]


def group_of(text: str) -> tuple[int, int, list[int | None]]:
    place, shown = text.split(": ")
    kernel, index = place.split("@")
    frames: list[int | None] = []
    for word in shown.split():
        frames += [None] * len(word) if set(word) == {"."} else [int(word)]
    return int(kernel), int(index), frames
