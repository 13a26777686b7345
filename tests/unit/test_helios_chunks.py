"""How a Helios video is cut into chunks, and what each of them sees."""

import pytest
import torch
from support.helios_video import after, sections_of, text_to_video

from framepack_core.helios.chunks import clip_chunks, hidden_frames
from framepack_core.packing import gather

SHAPE = (1, 16, 1, 4, 6)
NOTHING = (None,)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def frame(value: float, frames: int = 1) -> torch.Tensor:
    return torch.full((1, 16, frames, 4, 6), value)


# Clips


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [(33, [(0, 33)]), (40, [(7, 40)]), (66, [(0, 33), (33, 66)]), (100, [(1, 34), (34, 67), (67, 100)])],
)
def test_a_clip_is_cut_into_its_last_chunks(frames, chunks):
    assert clip_chunks(frames) == chunks


def test_a_clip_shorter_than_a_chunk_is_refused():
    with pytest.raises(ValueError, match="the clip has 32 frames, but Helios continues clips of 33 frames or more"):
        clip_chunks(32)


# What each chunk sees: long, mid, anchor, newest


def seen(timeline, **options) -> list[list[tuple]]:
    return [[group.frames for group in section.context] for section in sections_of(timeline, **options)]


def test_time_indices_are_the_same_in_every_chunk():
    for section in sections_of(text_to_video(3, SHAPE)):
        assert [group.indices for group in section.context] == [tuple(range(1, 17)), (17, 18), (0,), (19,)]
        assert [str(group.kernel) for group in section.context] == ["k4", "k2", "k1", "k1"]
        assert section.indices == tuple(range(20, 29))


def test_the_first_chunk_of_a_text_sees_zeros_and_later_ones_the_first_frame_and_those_before_them():
    timeline = text_to_video(3, SHAPE)
    timeline.write(range(18), frame(1, 18))
    timeline.known.clear()
    first, second, third = sections_of(timeline)

    assert hidden_frames(timeline) == 0
    assert all(not latents.any() for latents in gather(first, timeline).latents)
    assert [group.frames for group in second.context] == [(*NOTHING * 10, *range(6)), (6, 7), (0,), (8,)]
    assert [group.frames for group in third.context] == [(*NOTHING, *range(15)), (15, 16), (0,), (17,)]


def test_what_does_not_exist_is_seen_as_zeros_in_the_first_chunk_too():
    shapes = [latents.shape[2] for latents in gather(sections_of(text_to_video(1, SHAPE))[0], text_to_video(1, SHAPE)).latents]

    assert shapes == [16, 2, 1, 1]


def test_after_an_image_the_anchor_is_the_image_and_the_frame_before_the_first_chunk_the_still():
    timeline = after(2, frame(100), frame(-100), generator())
    sections = sections_of(timeline)

    (_, _, anchor, newest), (*_, later_anchor, _) = (gather(section, timeline).latents for section in sections)

    assert timeline.latents.shape[2] == 19
    assert hidden_frames(timeline) == 1
    assert sections[0].target == tuple(range(1, 10))
    assert 86 < anchor.mean() < 89
    assert -89 < newest.mean() < -86
    assert torch.equal(anchor, later_anchor)
    assert seen(timeline)[1][:2] == [(*NOTHING * 9, *range(7)), (7, 8)]


def test_after_a_clip_the_anchor_is_its_first_frame_and_its_latents_are_hidden():
    timeline = after(2, frame(100), frame(-100, 18), generator())
    first = sections_of(timeline)[0]

    long, mid, anchor, newest = gather(first, timeline).latents

    assert timeline.latents.shape[2] == 36
    assert hidden_frames(timeline) == 18
    assert first.target == tuple(range(18, 27))
    assert [group.frames for group in first.context] == [(*NOTHING, *range(15)), (15, 16), (36 + 1,), (17,)]
    assert 86 < anchor.mean() < 89
    assert all(-90 < latents.mean() < -80 for latents in (long[:, :, 1:], mid, newest))


def test_the_noise_on_what_is_given_is_drawn_anchor_first():
    image = after(1, frame(0), frame(0), generator())
    expected = generator()
    strengths, normals = zip(*((torch.rand(1, generator=expected), torch.randn(SHAPE, generator=expected)) for _ in range(2)),
                             strict=True)  # fmt: skip

    found = [image.guides[0].latent, image.latents[:, :, :1]]

    for latents, strength, normal in zip(found, strengths, normals, strict=True):
        torch.testing.assert_close(latents, (strength * 0.024 + 0.111) * normal)


@pytest.mark.parametrize(("timeline", "anchor"), [(text_to_video(4, SHAPE), 9),
                                                  (after(4, frame(1), frame(1), generator()), 10)])  # fmt: skip
def test_reanchored_chunks_from_the_third_on_have_the_first_frame_of_the_second(timeline, anchor):
    usual, reanchored = seen(timeline), seen(timeline, reanchored=True)

    assert reanchored[:2] == usual[:2]
    assert [groups[2] for groups in reanchored[2:]] == [(anchor,)] * 2
    assert [groups[:2] + groups[3:] for groups in reanchored] == [groups[:2] + groups[3:] for groups in usual]


def test_a_size_of_odd_latent_pixels_is_refused():
    with pytest.raises(ValueError, match="the latent is 7x4, an odd number of latent pixels"):
        sections_of(text_to_video(1, (1, 16, 1, 4, 7)))
