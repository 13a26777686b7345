"""A video file written as its frames arrive: what is in it, and what is left if writing fails."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from framepack_core.media.video import COLOURS, PIXEL_FORMATS, Audio, Encoding, write_video

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 64, 48, 20


@pytest.fixture
def frames() -> Tensor:
    """A smooth gradient that moves."""
    x = torch.linspace(0, 1, WIDTH).expand(HEIGHT, WIDTH)
    return torch.stack([torch.stack([(x + t / FRAMES) / 2, x, 1 - x], dim=-1) for t in range(FRAMES)])


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "video.mp4"


def pictures(path: Path, pixel_format: str = "rgb24") -> numpy.ndarray:
    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format=pixel_format) for frame in container.decode(video=0)])


def psnr(found: numpy.ndarray, expected: Tensor, largest: int = 255) -> float:
    """dB."""
    return -10 * numpy.log10(numpy.mean((found / largest - expected.numpy()) ** 2))


def test_frames_come_back_in_order_and_at_their_rate(frames, path):
    count = write_video(path, frames.split(3), Encoding(fps=24.5))

    found = pictures(path)
    assert count == len(found) == FRAMES and found.shape[1:3] == (HEIGHT, WIDTH)
    assert psnr(found, frames) > 35
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(49, 2)
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_the_file_says_what_its_colours_mean(frames, path, pixel_format):
    write_video(path, [frames], Encoding(pixel_format=pixel_format))

    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert {name: getattr(codec, name) for name in COLOURS} == COLOURS


def test_a_lower_crf_is_nearer_and_larger(frames, path, tmp_path):
    grain = torch.randn(*frames.shape[:3], 1, generator=torch.Generator().manual_seed(0))
    noisy = (frames.mean(dim=-1, keepdim=True) + 0.1 * grain).clamp(0, 1).expand_as(frames)
    rough = tmp_path / "rough.mp4"
    write_video(path, [noisy], Encoding(crf=10))
    write_video(rough, [noisy], Encoding(crf=40))

    assert path.stat().st_size > 2 * rough.stat().st_size
    assert psnr(pictures(path), noisy) > psnr(pictures(rough), noisy) + 3


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_the_file_has_the_pixel_format(frames, path, pixel_format):
    write_video(path, [frames], Encoding(pixel_format=pixel_format))

    with av.open(str(path)) as container:
        assert container.streams.video[0].format.name == pixel_format


def test_ten_bits_hold_levels_between_those_of_eight(path):
    ramp = torch.linspace(0.4, 0.42, WIDTH)[:, None].expand(4, HEIGHT, WIDTH, 3)

    write_video(path, [ramp], Encoding(crf=0, pixel_format="yuv420p10le"))

    assert len(numpy.unique(pictures(path, "gray16le")[0])) > len(numpy.unique((ramp * 255).round()))


def test_odd_sizes_need_all_colours(frames, path):
    odd = frames[:, :-1, :-1]
    with pytest.raises(ValueError, match="frames are 63x47 but yuv420p needs even sizes; use yuv444p"):
        write_video(path, [odd], Encoding())

    write_video(path, [odd], Encoding(pixel_format="yuv444p"))

    assert pictures(path).shape == (FRAMES, HEIGHT - 1, WIDTH - 1, 3)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_sound_ends_with_the_video_or_before(frames, path, channels, seconds):
    rate = 16000
    times = torch.arange(round(seconds * rate)) / rate
    tone = torch.sin(2 * torch.pi * 440 * times).expand(channels, -1)

    write_video(path, frames.split(7), Encoding(fps=20), Audio(tone, rate))

    with av.open(str(path)) as container:
        heard = numpy.concatenate([part.to_ndarray() for part in container.decode(audio=0)], axis=1)
    assert len(heard) == channels
    assert abs(heard.shape[1] / rate - min(seconds, FRAMES / 20)) < 0.15
    middle = heard[0, 2048:4096]
    assert numpy.argmax(numpy.abs(numpy.fft.rfft(middle))) == round(440 * len(middle) / rate)


def test_the_graph_is_in_the_tags(frames, path):
    graph = {"prompt": {"1": {"class_type": "Größe"}}, "workflow": {"nodes": []}}

    write_video(path, [frames], Encoding(), metadata=graph)

    with av.open(str(path)) as container:
        assert {name: json.loads(container.metadata[name]) for name in graph} == graph


def test_every_frame_can_be_a_png_without_loss(frames, path, tmp_path):
    write_video(path, frames.split(6), Encoding(), metadata={"prompt": {"1": {}}}, png_folder=tmp_path / "pngs")

    files = sorted((tmp_path / "pngs").iterdir())
    assert [file.name for file in files] == [f"frame_{number:05}.png" for number in range(1, FRAMES + 1)]
    found = numpy.stack([numpy.asarray(Image.open(file)) for file in files])
    assert numpy.array_equal(found, (frames * 255).round().byte().numpy())
    assert json.loads(Image.open(files[-1]).text["prompt"]) == {"1": {}}


# Complete or not at all


def test_while_it_is_written_nothing_has_its_name(frames, path, tmp_path):
    seen = []

    def watched():
        for chunk in frames.split(5):
            seen.append([file.name for file in tmp_path.iterdir() if not file.name.startswith(".")])
            yield chunk

    write_video(path, watched(), Encoding(), png_folder=tmp_path / "pngs")

    assert seen == [[]] * 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pngs", "video.mp4"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_video_that_failed(frames, path, tmp_path, failure):
    def interrupted():
        yield frames
        raise failure

    with pytest.raises(failure):
        write_video(path, interrupted(), Encoding(), png_folder=tmp_path / "pngs")

    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_older_file_of_the_name_as_it_was(frames, path):
    path.write_bytes(b"older")

    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], Encoding())

    assert path.read_bytes() == b"older"


def test_a_folder_that_is_not_there_is_said_before_a_frame_is_made(tmp_path):
    path = tmp_path / "gone" / "video.mp4"

    def never():
        raise AssertionError("a frame was asked for")
        yield

    with pytest.raises(OSError, match=r"gone.video\.mp4 was not written \(No such file or directory\)"):
        write_video(path, never(), Encoding())


FULL = """
import resource, sys
from pathlib import Path
import torch
from framepack_core.media.video import Encoding, write_video
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
frames = torch.rand(40, 64, 64, 3)
try:
    write_video(Path(sys.argv[1]), frames.split(4), Encoding(crf=0))
except OSError as error:
    sys.exit(error.strerror)
"""


def test_a_file_that_may_not_grow_further_is_an_error_and_not_a_video(path, tmp_path):
    """A limit on file sizes stands in for a full disk."""
    process = subprocess.run([sys.executable, "-c", FULL, str(path)], cwd=ROOT, capture_output=True, text=True)

    assert f"{path} was not written (File too large)" in process.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "fps is 0; choose a value above 0"),
        ({"crf": 52}, "crf is 52; choose a value from 0"),
        ({"pixel_format": "rgb24"}, "pixel_format is rgb24; choose one of yuv420p, yuv444p, yuv420p10le"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoding(**settings)


def test_sound_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="audio has 3 channels, expected 1, 2 or 6"):
        Audio(torch.zeros(3, 10), 16000)
