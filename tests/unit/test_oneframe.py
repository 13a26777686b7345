"""What a single picture sees: stills at indices of their own, and the empty frames of the released layout, in musubi-tuner's
places. The reference is written out here: a still at 0 unless it is told otherwise, after a window of 9 one empty frame at 10,
two at 11 and 12 with the kernel 2 x 4 x 4, and sixteen from 13 to 28 with 4 x 8 x 8."""

from dataclasses import replace

import pytest
import torch

from framepack_core.filling import Section
from framepack_core.made import Made
from framepack_core.oneframe import HISTORIES, MAX_INDEX, OneFrame
from framepack_core.packing import gather, rotary_phases
from framepack_core.placing import Arrangement, Frames, Placed
from framepack_core.plan import Plan
from framepack_core.solver import shift_mu

SHAPE = (1, 16, 1, 4, 6)
AXES, THETA = (4, 6, 6), 256.0

Seen = list[tuple[tuple[int, int, int], int, int | None]]  # kernel, time index, number of the still or None, frame by frame

FOURFOLD: Seen = [((4, 8, 8), index, None) for index in range(13, 29)]
TWICE: Seen = [((2, 4, 4), index, None) for index in (11, 12)]
POST: Seen = [((1, 2, 2), 10, None)]
EMPTY: dict[str, Seen] = {  # by the switches of musubi-tuner that each choice of `history` stands for
    "full": [*FOURFOLD, *TWICE, *POST],
    "no 4x": [*TWICE, *POST],
    "no 2x 4x": POST,
    "none": [],
    "no 2x": [*FOURFOLD, *POST],
    "no post": [*FOURFOLD, *TWICE],
    "no post 2x": FOURFOLD,
    "no post 4x": TWICE,
}


def still(value: float, at="start", seconds: float = 0.0, embedding=None) -> Placed:
    picture = torch.full(SHAPE, value, dtype=torch.float64)
    return Placed(picture, picture, at, "guide", seconds, embedding)


STILLS = {  # how stills are placed, what control_index says, their indices
    "one image": ([still(1.0)], "", [0]),
    "kisekaeichi": ([still(1.0), still(2.0, "end")], "", [0, 10]),
    "two in a row": ([still(1.0), still(2.0, "time", 0.1)], "", [0, 1]),
    "only a reference": ([still(1.0, "end")], "", [10]),
    "in seconds": ([still(1.0, "time", 1.7), still(2.0)], "", [13, 0]),
    "by number": ([still(1.0), still(2.0)], "0;13", [0, 13]),
    "by number, the later one first": ([still(1.0), still(2.0, "end")], " 5 , 0", [5, 0]),
}


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("stills", STILLS)
@pytest.mark.parametrize("target", [0, 1, 9, 40])
def test_a_picture_sees_its_stills_and_the_empty_frames_where_the_table_says(stills, history, target):
    placed, control_index, indices = STILLS[stills]
    one = OneFrame.of(Frames(tuple(placed)), target, history, control_index)

    section = one.section()

    expected: Seen = [*EMPTY[history], *(((1, 2, 2), index, number) for number, index in enumerate(indices))]
    assert sorted(seen(section), key=str) == sorted(expected, key=str)
    assert (section.target, section.indices) == ((0,), (target,))
    assert [group.kernel.t for group in section.context] == sorted((group.kernel.t for group in section.context), reverse=True)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_picture_is_given_the_latents_of_its_stills_and_zeros(history):
    one = OneFrame.of(Frames((still(1.0), still(2.0, "end"))), history=history)
    timeline = one.timeline()

    context = gather(one.section(), timeline)

    for group, latents in zip(context.section.context, context.latents, strict=True):
        values = [0.0 if frame is None else float(frame - 1) for frame in group.frames]
        assert latents[0, 0, :, 0, 0].tolist() == values
        assert latents.shape[3:] == SHAPE[3:]
    assert timeline.frames == 1 and not timeline.known


@pytest.mark.parametrize("target", [0, 9, 40])
def test_phases_are_those_of_the_indices_in_float64(target):
    """The time axis: angle = index / theta^(2 i / size), averaged over the frames of a token."""
    section = OneFrame.of(Frames((still(1.0), still(2.0, "end"))), target).section()

    cos, sin = rotary_phases(section, 16, 16, AXES, THETA)

    frequencies = THETA ** -(torch.arange(0, AXES[0], 2, dtype=torch.float64) / AXES[0])
    blocks = [  # first index of each token's frames, how many frames, tokens of that time
        *((first, 4, 4) for first in (13, 17, 21, 25)),
        (11, 2, 16),
        *((index, 1, 64) for index in (0, 10, 10, target)),
    ]
    angles = [torch.arange(first, first + length).double()[:, None] * frequencies for first, length, _ in blocks]
    for found, function in ((cos, torch.cos), (sin, torch.sin)):
        rows = [function(angle).mean(dim=0).expand(count, -1) for angle, (_, _, count) in zip(angles, blocks, strict=True)]
        torch.testing.assert_close(found[:, : AXES[0] // 2].double(), torch.cat(rows), atol=1e-6, rtol=0)


def test_the_shift_is_that_of_a_single_frame():
    """640 x 640: 1,600 tokens, exp(0.727) = 2.07."""
    tokens = OneFrame.of(Frames((still(1.0),))).section().target_tokens(80, 80)

    assert tokens == 1600
    assert shift_mu(tokens) == pytest.approx(0.7275, abs=1e-4)


def test_the_earliest_still_that_has_an_embedding_gives_it():
    late, silent = still(2.0, "end", embedding="late"), still(1.0)

    assert OneFrame.of(Frames((late, silent))).embedding() == "late"
    assert OneFrame.of(Frames((late, replace(silent, embedding="early")))).embedding() == "early"
    assert OneFrame.of(Frames((silent,))).embedding() is None


def test_a_time_counts_at_the_rate_of_the_frames():
    assert OneFrame.of(Frames((still(1.0, "time", 1.0),), fps=24.0)).indices == (6,)


@pytest.mark.parametrize(
    ("frames", "given", "said"),
    [
        (Frames(), {}, "nothing is placed, but a picture is made from a still; connect frames from FramePack_Place"),
        (Frames((still(1.0),), made=Made(Plan(1), (0,), 10)), {}, "frames are the rest of a finished video"),
        (Frames((replace(still(1.0, "end"), still=False),)), {}, "what is placed at the end is a clip"),
        (Frames((still(1.0),)), {"history": "no 8x"}, "history is 'no 8x'; choose one of full, no 4x, no 2x 4x, none"),
        (Frames((still(1.0),)), {"target": -1}, f"target_index is -1; choose 0 to {MAX_INDEX}"),
        (Frames((still(1.0),)), {"target": 101}, f"target_index is 101; choose 0 to {MAX_INDEX}"),
        (Frames((still(1.0),)), {"control_index": "900"}, "a still's index is 900; choose 0 to 100"),
        (Frames((still(1.0, "time", 60.0),)), {}, "a still's index is 450; choose 0 to 100"),
        (
            Frames((still(1.0),)),
            {"control_index": "0;10"},
            "control_index is '0;10', but 1 still is placed; write a number for each",
        ),
        (
            Frames((still(1.0),)),
            {"control_index": "-1"},
            "control_index is '-1'; write whole numbers with semicolons",
        ),
        (Frames((still(1.0),)), {"control_index": "start"}, "control_index is 'start'; write whole numbers"),
        (Frames((still(1.0),)), {"control_index": "0;"}, "control_index is '0;'; write whole numbers"),
    ],
)
def test_what_gives_no_picture_is_refused(frames, given, said):
    with pytest.raises(ValueError) as error:
        OneFrame.of(frames, **given)

    assert said in str(error.value)


def test_a_mask_is_refused_where_a_frame_is_fixed_in_a_video_but_not_of_a_guide():
    masked = replace(still(1.0), masked=True)
    fixed = Frames((replace(masked, use="fixed"),))

    assert Arrangement.of(Plan.of(1.2), Frames((masked,))).guides == [(0, 1)]
    with pytest.raises(ValueError, match="fixed at the start has a mask, but frames of a video are whole"):
        Arrangement.of(Plan.of(1.2), fixed)


def seen(section: Section) -> Seen:
    """Guides are numbered from 2 on in a timeline of one frame."""
    return [
        (tuple(group.kernel), index, None if frame is None else frame - 2)
        for group in section.context
        for frame, index in zip(group.frames, group.indices, strict=True)
    ]
