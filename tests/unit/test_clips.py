"""A video file, read a frame at a time: the pictures, the sound and the part of it that ComfyUI's nodes would show."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy
import pytest
import torch

from framepack_core.frames import nearest_frames
from framepack_core.media.clips import VideoFile, chosen

RATE = 48000
FORMATS = ("yuv420p", "yuv420p10le", "yuva420p", "yuv444p", "bgra")
PARTS = [(0.5, 0, range(5, 20)), (0, 1, range(10)), (0.5, 0.5, range(5, 10))]


def write(path: Path, levels: list[int], times=range(1000), size=(64, 48), pixel_format="gray", sound_from=None) -> Path:
    """Grey pictures of these levels, shown at these tenths of a second; a tone from `sound_from` seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        sound = None if sound_from is None else container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for number, level in enumerate(levels):
            grey = numpy.full((size[1], size[0]), level, numpy.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=pixel_format)
            frame.pts, frame.time_base = times[number], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            wave = numpy.sin(numpy.arange(3 * RATE) / 20)[None] * 16000
            part = av.AudioFrame.from_ndarray(wave.astype(numpy.int16), format="s16", layout="mono")
            part.sample_rate, part.pts, part.time_base = RATE, round(sound_from * RATE), Fraction(1, RATE)
            container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


def levels(file: VideoFile) -> list[int]:
    """In tens, since other formats are a level off."""
    return [10 * round(float(picture[20, 30].mean()) * 25.5) for picture in file.pictures()]


def heard(file: VideoFile) -> torch.Tensor:
    sound = file.sound(file.length(file.frames()).begin)
    assert sound is not None
    return torch.cat(list(sound.blocks()), dim=1)[0]


def test_a_file_is_read_frame_by_frame(tmp_path):
    path = write(tmp_path / "x.mkv", list(range(0, 200, 10)))

    file = VideoFile(str(path))

    assert levels(file) == list(range(0, 200, 10))
    assert file.length(file.frames()).count == 20 and file.length(file.frames()).fps == 10
    assert levels(VideoFile(BytesIO(path.read_bytes()))) == levels(file)


@pytest.mark.parametrize(
    ("start", "duration", "expected"), [(0.5, 0, range(5, 20)), (0, 1, range(10)), (0.5, 0.5, range(5, 10))]
)
def test_of_a_trimmed_video_only_the_part_is_read(tmp_path, start, duration, expected):
    path = write(tmp_path / "x.mkv", list(range(0, 200, 10)), sound_from=0.0)

    file = VideoFile(str(path), start, duration)

    assert levels(file) == [10 * number for number in expected]
    assert file.length(file.frames()).begin == start
    wave = torch.sin((torch.arange(RATE) + start * RATE) / 20) * 16000 / 32768
    torch.testing.assert_close(heard(file)[:RATE], wave, atol=1e-3, rtol=0)


def test_frames_that_are_not_evenly_spaced_all_count(tmp_path):
    """As in Get Video Components, which FramePack Place is fed from."""
    path = write(tmp_path / "x.mkv", [0, 50, 100, 150], times=[0, 1, 5, 6])

    assert levels(VideoFile(str(path))) == [0, 50, 100, 150]


def test_sound_that_begins_later_than_the_pictures_stays_later(tmp_path):
    samples = heard(VideoFile(str(write(tmp_path / "x.mkv", [0] * 30, sound_from=1.0))))

    assert (samples[: RATE - 2000] == 0).all() and abs(samples[RATE + 2000 : RATE + 4000]).max() > 0.4
    assert len(samples) == pytest.approx(4 * RATE, abs=RATE // 100)


def test_a_video_may_be_silent(tmp_path):
    file = VideoFile(str(write(tmp_path / "x.mkv", [0] * 3)))

    assert file.sound(0.0) is None


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [*((name, (64, 48)) for name in FORMATS), *((name, (33, 47)) for name in FORMATS if name != "yuv420p10le")],
)
def test_pictures_of_any_format_and_size_are_colours_alone(tmp_path, pixel_format, size):
    path = write(tmp_path / "x.mkv", [40, 200], pixel_format=pixel_format, size=size)

    first, second = VideoFile(str(path)).pictures()

    assert first.shape == (size[1], size[0], 3) and first.dtype == torch.float32
    torch.testing.assert_close(first * 255, torch.full_like(first, 40), atol=1.5, rtol=0)
    torch.testing.assert_close(second * 255, torch.full_like(second, 200), atol=1.5, rtol=0)


def test_a_file_without_pictures_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 100), numpy.int16), format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))

    with pytest.raises(ValueError, match="it has no pictures"):
        next(VideoFile(str(path)).frames())


def test_a_part_without_pictures_is_refused(tmp_path):
    file = VideoFile(str(write(tmp_path / "x.mkv", [0] * 5)), start=100.0)

    with pytest.raises(ValueError, match="no picture can be decoded"):
        file.length(file.frames())


@pytest.mark.parametrize(("fps", "wanted"), [(24, 30), (60, 30), (29.97, 30), (75, 30), (30, 30), (10, 24)])
@pytest.mark.parametrize("count", [1, 11, 250])
def test_another_rate_shows_the_nearest_frames_in_the_same_time(fps, wanted, count):
    indices = nearest_frames(count, fps, wanted)

    assert abs(len(indices) / wanted - count / fps) <= 1 / wanted
    assert all(abs(index / fps - number / wanted) <= 0.5 / fps + 1e-9 for number, index in enumerate(indices[:-1]))
    assert list(chosen(iter(range(count)), indices)) == indices
