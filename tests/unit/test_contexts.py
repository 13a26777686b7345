"""What each section sees in extension, gaps, keyframes, guides and text to video in the released layouts, as a table, and in
float64.

A row has the section's frames and their first time index, then for each kernel (by its frames: `KERNELS`) its first time index
and its frames; `.` does not exist yet, and `g1` is the first guide. The indices are those of the official programs: inverted
has start, blanks, generated frames, 1x, 2x and 4x; F1 has start, 4x, 2x, 1x and generated frames. Of an extension, inverted
shows the last given frame in the place of the start, as the extending forks do, and F1 the first. Backwards and in a gap, what
is given takes the places that the official program fills with what it has made: its next frame is 1x, then 2, then 16. A guide
has index 0 and the released blanks, like the images of sections in eichi's fork and in musubi-tuner.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from framepack_core.filling import Section
from framepack_core.packing import gather
from framepack_core.plan import Plan
from framepack_core.timeline import Guide, Timeline

KERNELS = {4: (4, 8, 8), 2: (2, 4, 4), 1: (1, 2, 2)}


class Given(NamedTuple):
    """The latent frames that are known, and those that guides cover, of a video in which two sections are made."""

    known: frozenset[int]
    guides: tuple[tuple[int, int], ...] = ()

    @property
    def frames(self) -> int:
        return len(self.known) + 18


PREFIX, KEYFRAMES, NOTHING = Given(frozenset(range(19))), Given(frozenset((0, 10))), Given(frozenset())
SUFFIX, GAP = Given(frozenset(range(18, 36))), Given(frozenset((*range(19), *range(37, 55))))
GUIDE, GUIDES = Given(frozenset((0,)), ((15, 16),)), Given(frozenset((0,)), ((3, 5), (15, 16)))

TABLE = [
    # order, given, section: generates@index | kernel@index: frames
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
    ("inverted", SUFFIX, 0, "9..17@10 | 4@22: 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 . | 2@20: 19 20 | 1@19: 18"),
    ("inverted", SUFFIX, 1, "0..8@1 | 4@13: 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 | 2@11: 10 11 | 1@10: 9"),
    ("inverted", GAP, 0, "28..36@10 | 4@22: 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 . | 2@20: 38 39 | 1@0: 18 | 1@19: 37"),
    ("inverted", GAP, 1, "19..27@1 | 4@13: 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 | 2@11: 29 30 | 1@0: 18 | 1@10: 28"),
    ("inverted", GUIDE, 0, "10..18@10 | 4@22: ................ | 2@20: . . | 1@0: g1 | 1@19: ."),
    ("inverted", GUIDE, 1, "1..9@1 | 4@13: 13 14 15 16 17 18 .......... | 2@11: 11 12 | 1@0: 0 | 1@10: 10"),
    ("inverted", GUIDES, 0, "10..18@10 | 4@22: ................ | 2@20: . . | 1@0: g2 | 1@19: ."),
    ("inverted", GUIDES, 1, "1..9@1 | 4@13: 13 14 15 16 17 18 .......... | 2@11: 11 12 | 1@0: g1 | 1@10: 10"),
    ("forward", GUIDES, 0, "1..9@20 | 4@1: ................ | 2@17: . . | 1@0: g1 | 1@19: 0"),
    ("forward", GUIDES, 1, "10..18@20 | 4@1: ......... 0 1 2 3 4 5 6 | 2@17: 7 8 | 1@0: g2 | 1@19: 9"),
    ("endpoints", SUFFIX, 0, "0..17@19 | 1@37: 18"),
    ("endpoints", GAP, 0, "19..36@19 | 4@0: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 | 2@16: 16 17 | 1@18: 18 | 1@37: 37"),
    ("endpoints", KEYFRAMES, 0, "11..19@19 | 4@0: ........ 0 ....... | 2@16: . . | 1@18: 10 | 1@28: ."),
    ("endpoints", KEYFRAMES, 1, "1..9@19 | 4@0: ................ | 2@16: . . | 1@18: 0 | 1@28: 10"),
]  # fmt: skip


@pytest.mark.parametrize(("order", "given", "number", "row"), TABLE)
def test_a_section_sees_what_the_table_says(order, given, number, row):
    section = sections(order, given)[number]

    assert spelled(section, given.frames) == parsed(row)


@pytest.mark.parametrize(("order", "given", "number", "row"), TABLE)
def test_a_section_is_given_the_latents_of_these_frames(order, given, number, row):
    filled = sections(order, given)
    generator = torch.Generator().manual_seed(7)
    truth, *images = (
        torch.randn(1, 16, frames, 4, 6, dtype=torch.float64, generator=generator)
        for frames in (given.frames, *(1 for _ in given.guides))
    )
    timeline = Timeline(torch.zeros_like(truth))
    timeline.guides = tuple(Guide(image, *covered) for image, covered in zip(images, given.guides, strict=True))
    done = {*given.known, *(frame for section in filled[:number] for frame in section.target)}
    timeline.write(sorted(done), truth[:, :, sorted(done)])

    found = gather(filled[number], timeline).latents

    expected = {f"{frame}": truth[:, :, frame] for frame in range(given.frames)}
    expected |= {f"g{number}": image[:, :, 0] for number, image in enumerate(images, 1)}
    expected["."] = torch.zeros_like(truth[:, :, 0])
    groups = parsed(row)[1]
    assert len(found) == len(groups)
    for latents, (_, _, shown) in zip(found, groups, strict=True):
        assert latents.shape[2] == len(shown)
        assert all(torch.equal(latents[:, :, place], expected[word]) for place, word in enumerate(shown))


def sections(order: str, given: Given) -> tuple[Section, ...]:
    return replace(Plan.of(1, order), sections=2).fill(given.frames, given.known, guides=given.guides)


Groups = list[tuple[tuple[int, ...], int, list[str]]]  # kernel, first time index, frames


def spelled(section: Section, frames: int) -> tuple[tuple[int, int, int], Groups]:
    groups = [(tuple(group.kernel), group.indices[0], words(group.frames, frames)) for group in section.context]
    assert all(
        group.indices == tuple(range(group.indices[0], group.indices[0] + len(group.frames))) for group in section.context
    )
    return (section.target[0], section.target[-1], section.indices[0]), groups


def words(shown: Sequence[int | None], frames: int) -> list[str]:
    """Frames of a video of so many, of which those beyond an end image's are guides."""
    return ["." if frame is None else f"g{frame - frames}" if frame > frames else f"{frame}" for frame in shown]


def parsed(row: str) -> tuple[tuple[int, int, int], Groups]:
    generated, *groups = row.split(" | ")
    target, index = generated.split("@")
    first, last = target.split("..")
    return (int(first), int(last), int(index)), [group_of(group) for group in groups]


def group_of(text: str) -> tuple[tuple[int, ...], int, list[str]]:
    place, shown = text.split(": ")
    kernel, index = place.split("@")
    frames: list[str] = []
    for word in shown.split():
        frames += word if set(word) == {"."} else [word]
    return KERNELS[int(kernel)], int(index), frames
