"""Latents, and which of their frames are known."""

import pytest
import torch

from framepack_core.timeline import Timeline


def frame(value: float, size=(2, 16, 1, 4, 6)) -> torch.Tensor:
    return torch.full(size, float(value))


def test_a_timeline_knows_the_frames_it_is_given_and_holds_zeros_elsewhere():
    timeline = Timeline.of(10, {0: frame(1), 7: frame(2)})

    assert timeline.frames == 10
    assert timeline.known == {0, 7}
    assert timeline.latents.shape == (2, 16, 10, 4, 6)
    assert timeline.latents[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 2, 0, 0]


def test_an_empty_timeline_knows_nothing():
    timeline = Timeline.empty(5, batch=1, channels=16, height=4, width=6)

    assert timeline.known == set()
    assert torch.equal(timeline.latents, torch.zeros(1, 16, 5, 4, 6))


def test_frames_that_do_not_exist_yet_are_seen_as_the_blank():
    timeline = Timeline.of(3, {1: frame(2)})
    timeline.blank = torch.arange(16.0).view(1, 16, 1, 1, 1)

    seen = timeline.read([None, 1])

    assert torch.equal(seen[:, :, :1], timeline.blank.expand(2, -1, -1, 4, 6))
    assert torch.equal(seen[:, :, 1:], frame(2))


def test_two_timelines_share_no_known_frames():
    first, second = (Timeline.empty(5, 1, 16, 4, 6) for _ in range(2))

    first.write([1], frame(1, (1, 16, 1, 4, 6)))

    assert second.known == set()


def test_what_is_written_is_known_and_read_back_in_any_order():
    timeline = Timeline.empty(6, 2, 16, 4, 6)
    latents = torch.randn(2, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))

    timeline.write([1, 2, 5], latents)

    assert timeline.known == {1, 2, 5}
    assert torch.equal(timeline.read([5, 1, 2]), latents[:, :, [2, 0, 1]])


def test_a_frame_that_does_not_exist_yet_reads_as_zeros():
    timeline = Timeline.of(3, {0: frame(1)})

    assert timeline.read([None, 0, None])[0, 0, :, 0, 0].tolist() == [0, 1, 0]


def test_the_end_frame_lies_just_past_the_last_and_is_not_part_of_the_video():
    timeline = Timeline.of(3, {0: frame(1)}, end=frame(5))

    assert timeline.read([0, 3])[0, 0, :, 0, 0].tolist() == [1, 5]
    assert timeline.frames == 3
    assert timeline.known == {0}
    assert 5 not in timeline.latents


def test_reading_past_the_last_frame_without_an_end_frame_is_refused():
    with pytest.raises(ValueError, match="frame 3 is the end frame, but this timeline has none"):
        Timeline.of(3, {0: frame(1)}).read([3])


def test_a_timeline_is_float32_whatever_it_is_given():
    timeline = Timeline.of(3, {0: frame(1).half()}, end=frame(5).bfloat16())
    timeline.write([1], frame(2).double())

    assert timeline.latents.dtype == timeline.end.dtype == torch.float32
    assert timeline.read([0, 1, 3])[0, 0, :, 0, 0].tolist() == [1, 2, 5]


def test_a_timeline_keeps_no_view_of_the_frames_it_is_given():
    start = frame(1)
    timeline = Timeline.of(3, {0: start})

    start.fill_(9)

    assert timeline.read([0]).max() == 1


@pytest.mark.parametrize(
    "given",
    [
        {"known": {0: frame(1), 2: frame(1, (2, 16, 1, 6, 4))}},
        {"known": {0: frame(1), 2: frame(1, (2, 4, 1, 4, 6))}},
        {"known": {0: frame(1), 2: frame(1, (1, 16, 1, 4, 6))}},
        {"known": {0: frame(1), 2: frame(1, (2, 16, 3, 4, 6))}},
        {"known": {0: frame(1)}, "end": frame(1, (2, 16, 1, 4, 8))},
    ],
    ids=["size", "channels", "batch", "several frames", "end frame"],
)
def test_frames_of_different_shapes_are_refused_with_both(given):
    with pytest.raises(ValueError, match=r"known frames differ in shape: \(.*\) and \(2, 16, 1, 4, 6\)"):
        Timeline.of(5, **given)


def test_a_timeline_without_any_frame_has_no_size():
    with pytest.raises(ValueError, match=r"no known frame gives the size; start from Timeline\.empty"):
        Timeline.of(5, {})


@pytest.mark.parametrize("index", [-1, 5])
def test_a_known_frame_outside_the_video_is_refused(index):
    with pytest.raises(ValueError, match=f"known frame {index} lies outside the 5 latent frames"):
        Timeline.of(5, {index: frame(1)})
