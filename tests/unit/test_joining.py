"""A video between others: no frame twice and none missing, a crossfade in even steps, and each sound in its place."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepack_core.frames import pixel_frames
from framepack_core.media.clips import Clip
from framepack_core.media.joining import BLOCK, Overlap, Piece, Soundtrack, join
from framepack_core.media.sound import Audio
from framepack_core.media.video import Encoding, Footage, write_video

SIZE = (4, 6, 3)


def clip(values: Tensor) -> Clip:
    return Clip((value.expand(SIZE) for value in values), len(values))


def footage(values: Tensor, chunk: int = 4) -> Footage:
    return Footage(values[:, None, None, None].expand(-1, *SIZE).split(chunk), len(values), SIZE[1], SIZE[0])


def shown(video: Footage) -> numpy.ndarray:
    """The value of each frame, in whose number all agree."""
    frames = torch.cat(list(video.chunks))
    assert len(frames) == video.count and frames.shape[1:] == SIZE
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[:, 0, 0, 0].numpy()


def reference(
    video: numpy.ndarray, before: numpy.ndarray, after: numpy.ndarray, overlap: Overlap, crossfade: int
) -> numpy.ndarray:
    """All of them on one time axis, with a weight for each."""
    first, last = overlap.first, overlap.last
    begin, end = len(before) - first, len(before) - first + len(video) - last
    frames = numpy.zeros(end + len(after))
    new = numpy.ones(len(video))
    for known, side in ((first, slice(None, first)), (last, slice(len(video) - last, None))):
        fade = min(crossfade, known)
        ramp = numpy.concatenate([numpy.zeros(known - fade), numpy.arange(1, fade + 1) / (fade + 1)])
        new[side] = ramp if side.start is None else ramp[::-1]
    weights = numpy.zeros(len(frames))
    weights[begin : begin + len(video)] = new
    frames[begin : begin + len(video)] += new * video
    originals = numpy.zeros(len(frames))
    originals[: len(before)] = before
    originals[end:] = after
    return frames + (1 - weights) * originals


@given(
    first=st.integers(0, 20),
    last=st.integers(0, 20),
    new=st.integers(1, 30),
    more=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    crossfade=st.integers(0, 25),
    chunk=st.integers(1, 9),
)
def test_frame_by_frame_it_is_the_reference(first, last, new, more, crossfade, chunk):
    video = torch.rand(first + new + last)
    before, after = torch.rand(first + more[0]), torch.rand(last + more[1])
    overlap = Overlap(first, last)

    found = shown(join(footage(video, chunk), clip(before), clip(after), overlap, crossfade))

    expected = reference(video.numpy(), before.numpy(), after.numpy(), overlap, crossfade)
    numpy.testing.assert_allclose(found, expected, atol=1e-6)


def test_known_frames_are_the_original_s_and_the_last_of_them_go_over_in_even_steps():
    before, video = torch.zeros(30), torch.ones(20)

    found = shown(join(footage(video), clip(before), None, Overlap(first=9), crossfade=4))

    assert found.tolist() == pytest.approx([0.0] * 26 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 11)


def test_so_do_the_first_of_those_after():
    after, video = torch.zeros(30), torch.ones(20)

    found = shown(join(footage(video), None, clip(after), Overlap(last=9), crossfade=4))

    assert found.tolist() == pytest.approx([1.0] * 11 + [0.8, 0.6, 0.4, 0.2] + [0.0] * 26)


def test_without_a_crossfade_originals_are_bit_for_bit_what_they_were():
    before, after = torch.rand(30), torch.rand(30)

    found = shown(join(footage(torch.rand(40)), clip(before), clip(after), Overlap(9, 13), crossfade=0))

    assert (found[:30] == before.numpy()).all() and (found[-30:] == after.numpy()).all()


@pytest.mark.parametrize(
    ("known", "frames", "expected"),
    [
        ((), 18, Overlap(0, 0)),
        ((0,), 10, Overlap(1, 0)),
        (range(19), 28, Overlap(73, 0)),
        (range(9, 27), 27, Overlap(0, 73)),
        ((0, 1, 2, 12, 13), 14, Overlap(9, 9)),
        ((0, 10, 20), 30, Overlap(1, 0)),
    ],
)
def test_what_was_given_at_both_ends_is_known_and_nothing_in_the_middle(known, frames, expected):
    """4 k + 1 frames on either side, as many as FramePack_Place takes of a clip."""
    assert Overlap.of(known, frames) == expected


def test_the_clip_that_was_placed_at_the_end_is_where_its_frames_are_and_complete():
    """Latents 1 to k of its 4 k + 1 frames are the video's last; its first frame is where the last new one is."""
    k, frames = 3, 12
    after = torch.arange(100.0, 130.0)
    video = torch.cat([torch.zeros(pixel_frames(frames) - 4 * k), after[1 : 4 * k + 1]])

    found = shown(join(footage(video), None, clip(after), Overlap.of(range(frames - k, frames), frames), crossfade=0))

    assert found.tolist() == [0.0] * (pixel_frames(frames) - 4 * k - 1) + after.tolist()


def test_a_video_that_was_given_as_a_whole_is_refused():
    with pytest.raises(ValueError, match="nothing to join"):
        join(footage(torch.zeros(9)), clip(torch.zeros(9)), None, Overlap.of(range(3), 3), crossfade=8)


@pytest.mark.parametrize("length", [200, 2000])
def test_of_a_video_of_any_length_only_a_few_frames_are_held(length):
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[Tensor]:
        nonlocal alive, most
        for number in range(length):
            frame = torch.full(SIZE, float(number))
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield frame

    clips = (Clip(frames(), length), Clip(frames(), length))
    for chunk in join(footage(torch.zeros(40)), *clips, Overlap(9, 9), crossfade=8).chunks:
        assert len(chunk) <= BLOCK

    assert alive <= 1 and most <= 2 * BLOCK + 2


# Sound


class Counted:
    """Sound in blocks, whose samples count up from 0 in thousandths."""

    def __init__(self, rate: int, channels: int, seconds: float, block: int = 100) -> None:
        self.rate, self.channels = rate, channels
        self.samples = (torch.arange(round(rate * seconds)) / 1000).expand(channels, -1)
        self.block = block

    def blocks(self) -> Iterator[Tensor]:
        yield from self.samples.split(self.block, dim=1)


def test_each_piece_is_heard_from_its_start_to_its_stop_and_between_them_is_silence():
    pieces = (
        Piece(Counted(100, 1, 9.0), Fraction(0), Fraction(2)),
        Piece(Counted(100, 1, 1.0), Fraction(3), Fraction(6)),
        Piece(Counted(100, 1, 9.0), Fraction(6), Fraction(13, 2)),
    )

    samples = torch.cat(list(Soundtrack(pieces).blocks()), dim=1)[0]

    count = torch.arange(900) / 1000
    expected = torch.cat([count[:200], torch.zeros(100), count[:100], torch.zeros(200), count[:50]])
    torch.testing.assert_close(samples, expected)


def test_pieces_are_brought_to_the_highest_rate_and_the_most_channels():
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)[None] / 2
    track = Soundtrack((
        Piece(Audio(tone, 8000), Fraction(0), Fraction(1)),
        Piece(Audio(torch.zeros(2, 44100), 44100), Fraction(1), Fraction(2)),
    ))  # fmt: skip

    samples = torch.cat(list(track.blocks()), dim=1)

    assert (track.rate, track.channels) == (44100, 2)
    assert samples.shape == (2, 88200)
    spectrum = numpy.abs(numpy.fft.rfft(samples[0, 10000:30000].numpy()))
    assert numpy.argmax(spectrum) * 44100 / 20000 == pytest.approx(440, abs=5)
    assert (samples[:, 44200:] == 0).all()


def test_a_file_has_each_sound_where_its_video_is(tmp_path):
    """A tone of 1 s, silence of 1 s, and the tone again; in AAC, which begins with silence that players leave out."""
    path, fps = tmp_path / "x.mp4", 30
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(2 * 48000) / 48000)[None] / 2
    pieces = tuple(Piece(Audio(tone, 48000), Fraction(start), Fraction(start + 1)) for start in (0, 2))

    write_video(path, Footage.of(torch.zeros(3 * fps, 48, 64, 3)), Encoding(fps=fps), Soundtrack(pieces))

    with av.open(str(path)) as container:
        parts = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    loud = {round(time, 1) for time, samples in parts if abs(samples).max() > 0.3}
    assert loud >= {0.2, 0.5, 0.8, 2.2, 2.5, 2.8} and not loud & {1.2, 1.5, 1.8}
