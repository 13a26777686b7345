"""VIDEOs that are joined to what is saved: the frames are those that Get Video Components and FramePack Place show."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy
import pytest
import torch
from comfy_api.latest import InputImpl, Types

from framepack_core.comfyui.encoding import fit_images, resampled
from framepack_core.comfyui.latent import LENGTH, MADE
from framepack_core.comfyui.originals import Originals, fitted
from framepack_core.frames import Length, pixel_frames
from framepack_core.made import Made
from framepack_core.media.sound import Audio
from framepack_core.media.video import Encoding, Footage
from framepack_core.plan import Plan

RATE = 16000
H264 = ("yuv420p", "yuv420p10le", "yuv444p")
ENCODERS = {**dict.fromkeys(H264, "libx264"), "yuvj420p": "mjpeg", "bgra": "ffv1"}


def video_file(
    path: Path, frames: int = 40, fps: int = 30, size=(64, 48), pixel_format="yuv420p", sound=False, rotation: int = 0
) -> str:  # fmt: skip
    """A gradient that moves, and a tone."""
    x = numpy.linspace(0, 50, size[0]) + numpy.zeros((size[1], 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(ENCODERS[pixel_format], rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        track = container.add_stream("pcm_f32le", rate=RATE, layout="mono") if sound else None
        for number in range(frames):
            pixels = numpy.stack([x + number, x / 2, 200 - x], axis=-1).astype(numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)))
        container.mux(stream.encode(None))
        if track is not None:
            wave = numpy.sin(numpy.arange(RATE * frames // fps) / 5)[None].astype(numpy.float32) / 2
            part = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
            part.sample_rate = RATE
            container.mux(track.encode(part))
            container.mux(track.encode(None))
    return str(path)


def all_of(clip) -> torch.Tensor:
    frames = torch.stack(list(clip.frames))
    assert len(frames) == clip.count
    return frames


@pytest.mark.parametrize("pixel_format", ENCODERS)
def test_frames_of_a_file_are_those_of_get_video_components(tmp_path, pixel_format):
    video = InputImpl.VideoFromFile(video_file(tmp_path / "x.mkv", pixel_format=pixel_format))

    frames = all_of(fitted(video, 30.0, 64, 48))

    torch.testing.assert_close(frames, video.get_components().images.float(), atol=1 / 255, rtol=0)


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.5, 15), (-0.4, 28)])
@pytest.mark.parametrize("duration", [0.0, 0.3])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_trimmed_video_is_joined_as_it_is_trimmed(tmp_path, start, first, duration, in_memory):
    path = video_file(tmp_path / "x.mov", sound=True)
    video = InputImpl.VideoFromFile(BytesIO(Path(path).read_bytes()) if in_memory else path).as_trimmed(start, duration, False)
    assert video is not None

    clip = fitted(video, 30.0, 64, 48)

    frames = all_of(clip)
    torch.testing.assert_close(frames, video.get_components().images, atol=1 / 255, rtol=0)
    assert clip.sound is not None
    samples = torch.cat(list(clip.sound.blocks()), dim=1)[0, 500:3000]
    wave = torch.sin((torch.arange(500, 3000) + first * RATE // 30) / 5) / 2
    torch.testing.assert_close(samples, wave, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("fps", "wanted"), [(24, 30.0), (60, 30.0), (30, 24.0)])
@pytest.mark.parametrize("size", [(64, 48), (96, 48), (50, 74)])
def test_another_rate_and_size_are_brought_to_those_of_place(tmp_path, fps, wanted, size):
    video = InputImpl.VideoFromFile(video_file(tmp_path / "x.mkv", fps=fps, size=size))
    parts = video.get_components()

    frames = all_of(fitted(video, wanted, 64, 48))

    placed = fit_images(resampled(parts.images, float(parts.frame_rate), wanted), 48, 64)
    torch.testing.assert_close(frames, placed, atol=2 / 255, rtol=0)


def test_a_video_that_a_phone_turned_is_upright(tmp_path):
    path = tmp_path / "phone.mp4"
    video_file(path, frames=3)
    identity, clockwise = (
        struct.pack(">9i", *row)
        for row in ((1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    )
    before, track = path.read_bytes().split(b"tkhd")
    path.write_bytes(before + b"tkhd" + track.replace(identity, clockwise, 1))
    video = InputImpl.VideoFromFile(str(path))

    frames = all_of(fitted(video, 30.0, 48, 64))

    assert frames.shape == (3, 64, 48, 3)
    torch.testing.assert_close(frames, video.get_components().images, atol=1 / 255, rtol=0)


def test_a_video_in_memory_is_taken_as_it_is():
    images = torch.rand(20, 48, 64, 4)
    audio = {"waveform": torch.rand(1, 2, 1000), "sample_rate": RATE}
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(30)))

    clip = fitted(video, 30.0, 64, 48)

    assert torch.equal(all_of(clip), images[..., :3])
    assert clip.sound is not None and torch.equal(next(clip.sound.blocks()), audio["waveform"][0])


# What fits the latent


class Decoded:
    """A latent of so many frames, and the video that it decodes to, in black."""

    def __init__(
        self, frames: int, given: tuple[int, ...] | None = (), fps: float = 30.0, batch: int = 1, length: Length | None = None
    ) -> None:
        self.latent: dict = {"samples": torch.zeros(batch, 16, frames, 6, 8)}
        if given is not None:
            self.latent[MADE] = Made(Plan(1, fps=fps), given, frames)
        if length is not None:
            self.latent[LENGTH] = length
        self.count = pixel_frames(frames) if length is None else length.frames

    def join(self, before=None, after=None, crossfade: int = 0, sound=None):
        video = Footage.of(torch.zeros(self.count, 48, 64, 3))
        return Originals(before, after, crossfade).join(self.latent, video, Encoding(fps=30.0), sound)


def in_memory(frames: int, value: float = 1.0, sound: float | None = None):
    audio = None if sound is None else {"waveform": torch.full((1, 1, RATE * frames // 30), sound), "sample_rate": RATE}
    images = torch.full((frames, 48, 64, 3), value)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(30)))


def levels(footage: Footage) -> list[float]:
    frames = torch.cat(list(footage.chunks))
    assert len(frames) == footage.count
    return frames[:, 0, 0, 0].tolist()


def test_a_clip_at_the_start_is_not_shown_twice():
    """Place takes 73 of 100 frames; the video has 36 new ones."""
    joined = Decoded(28, tuple(range(19))).join(before=in_memory(100))

    assert levels(joined.video) == [1.0] * 100 + [0.0] * 36 and joined.notes == ()


def test_nor_one_at_the_end():
    """Its first frame stands where the last new one would be."""
    joined = Decoded(27, tuple(range(9, 27))).join(after=in_memory(100))

    assert levels(joined.video) == [0.0] * 32 + [1.0] * 100


def test_a_video_between_two_has_both():
    joined = Decoded(28, (*range(10), *range(19, 28))).join(in_memory(40), in_memory(50))

    assert levels(joined.video) == [1.0] * 40 + [0.0] * 35 + [1.0] * 50


def test_the_last_frame_as_start_image_is_one_that_both_have():
    assert levels(Decoded(10, (0,)).join(before=in_memory(100)).video) == [1.0] * 100 + [0.0] * 36


def test_a_video_of_an_exact_length_is_joined_at_that_length():
    joined = Decoded(19, tuple(range(10)), length=Length(19, exact=60)).join(before=in_memory(100))

    assert levels(joined.video) == [1.0] * 100 + [0.0] * 23


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((), "none of its frames was given there"),
        (
            None,
            "the latent does not say which of its frames were given (it was saved and loaded, or changed): if some are there, "
            "up to 73 are shown twice; connect the sampler's own latent",
        ),
    ],
)
def test_what_nothing_was_given_for_is_cut_hard_and_the_node_says_so(given, why):
    joined = Decoded(9, given).join(in_memory(10), in_memory(20))

    assert levels(joined.video) == [1.0] * 10 + [0.0] * 33 + [1.0] * 20
    assert joined.notes == (f"before: a hard cut, since {why}", f"after: a hard cut, since {why}")


@pytest.mark.parametrize(("given", "hidden"), [((), 0), ((0,), 1), (tuple(range(9)), 9)])
def test_where_sections_are_clips_of_their_own_the_new_frames_follow_all_of_the_original_s(given, hidden):
    """What was given is not among the latent's frames, or not shown; 100 frames, and three tenths of a second of new sound."""
    decoded = Decoded(18 + hidden, given, length=Length(18 + hidden, exact=65, apart=9, hidden=hidden))
    new_sound = Audio(torch.full((1, RATE), 0.5), RATE)

    joined = decoded.join(before=in_memory(100, sound=0.1), crossfade=8, sound=new_sound)

    assert levels(joined.video) == [1.0] * 100 + [0.0] * 65
    assert loudness(joined.sound, 4.3)[:33] + loudness(joined.sound, 4.3)[34:] == [0.1] * 33 + [0.5] * 9
    assert len(joined.notes) == 1 and "no frame is in both, and crossfade has no effect" in joined.notes[0]


def test_a_redone_section_of_such_a_video_is_new_like_all_others():
    decoded = Decoded(18, tuple(range(9)), length=Length(18, apart=9))

    assert levels(decoded.join(before=in_memory(10)).video) == [1.0] * 10 + [0.0] * 66


def test_what_was_given_where_a_cancelled_video_was_cut_off_is_not_the_original_s():
    """A keyframe is the last of its frames, but not of the video's."""
    decoded = Decoded(10, (9,))
    decoded.latent[MADE] = replace(decoded.latent[MADE], ends=False)

    joined = decoded.join(after=in_memory(20))

    assert levels(joined.video) == [0.0] * 37 + [1.0] * 20
    assert "the finished part of a cancelled run, which does not reach there" in joined.notes[0]


def test_a_latent_that_was_cut_since_does_not_say_what_was_given():
    decoded = Decoded(28, tuple(range(19)))
    decoded.latent["samples"] = decoded.latent["samples"][:, :, :9]

    assert "does not say" in decoded.join(before=in_memory(10)).notes[0]


@pytest.mark.parametrize(
    ("decoded", "inputs", "message"),
    [
        (
            Decoded(28, tuple(range(19))),
            {"before": in_memory(72)},
            "before has 72 frames at 30 fps, but the latent begins with 73 of a clip; connect the video whose",
        ),
        (
            Decoded(27, tuple(range(9, 27))),
            {"after": in_memory(5)},
            "after has 5 frames at 30 fps, but the latent ends with 73 of a",
        ),
        (Decoded(10, (0,), fps=24.0), {"before": in_memory(9)}, "fps is 30, but the plan of the latent has 24; set fps to 24"),
        (Decoded(10, (0,), batch=2), {"after": in_memory(9)}, "latent holds 2 videos, .* pick one with LatentFromBatch"),
        (Decoded(10, length=Length(10, loop=True)), {"after": in_memory(9)}, "latent is a loop, which has no start and no end"),
        (Decoded(10, tuple(range(10))), {"before": in_memory(99)}, "latent was given as a whole"),
    ],
)
def test_what_does_not_fit_is_refused(decoded, inputs, message):
    with pytest.raises(ValueError, match=message):
        decoded.join(**inputs)


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_a_file_that_is_no_video_is_refused_by_the_name_of_the_input(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)

    for name in ("before", "after"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*\); connect a video that plays"):
            Decoded(10, (0,)).join(**{name: InputImpl.VideoFromFile(str(tmp_path / "x.mp4"))})


# Sound


def loudness(sound, seconds: float) -> list[float]:
    """The mean of each tenth of a second."""
    samples = torch.cat(list(sound.blocks()), dim=1)[0]
    samples = torch.nn.functional.pad(samples, (0, max(0, round(seconds * sound.rate) - len(samples))))
    return [round(float(part.mean()), 2) for part in samples.split(sound.rate // 10)][: round(seconds * 10)]


def test_each_sound_is_heard_with_its_own_video():
    """100 frames, 35 new ones, 50 frames: 3.3 s, 1.2 s and 1.7 s."""
    own = Audio(torch.full((1, 9 * RATE), 0.5), RATE)
    decoded = Decoded(28, (*range(10), *range(19, 28)))

    joined = decoded.join(in_memory(99, sound=0.1), in_memory(51, sound=0.2), sound=own)
    silent = decoded.join(in_memory(99, sound=0.1), in_memory(51, sound=0.2))

    assert joined.sound is not None and silent.sound is not None
    assert joined.video.count == 99 + 35 + 51
    heard, without = loudness(joined.sound, 6.1), loudness(silent.sound, 6.1)
    assert heard[:33] == without[:33] == [0.1] * 33
    assert heard[34:44] == [0.5] * 10 and without[34:44] == [0.0] * 10
    assert heard[45:] == without[45:] == [0.2] * 16


def test_without_any_sound_there_is_none():
    assert Decoded(10, (0,)).join(in_memory(9), in_memory(9)).sound is None


def test_nothing_is_joined_where_nothing_is_connected():
    own = Audio(torch.zeros(1, RATE), RATE)

    joined = Decoded(10, (0,), fps=24.0).join(sound=own)

    assert joined.sound is own and joined.video.count == 37
