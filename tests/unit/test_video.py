"""A video file written as its frames arrive: what is in it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from framepack_core.media import video
from framepack_core.media.containers import CODECS
from framepack_core.media.video import COLOURS, PIXEL_FORMATS, Encoding, Footage, write_video

WIDTH, HEIGHT, FRAMES = 64, 48, 20


@pytest.fixture
def frames() -> Tensor:
    """A smooth gradient that moves."""
    x = torch.linspace(0, 1, WIDTH).expand(HEIGHT, WIDTH)
    return torch.stack([torch.stack([(x + t / FRAMES) / 2, x, 1 - x], dim=-1) for t in range(FRAMES)])


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "video.mp4"


def streamed(*chunks: Tensor) -> Footage:
    return Footage(chunks, sum(map(len, chunks)), WIDTH, HEIGHT)


def pictures(path: Path, pixel_format: str = "rgb24") -> numpy.ndarray:
    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format=pixel_format) for frame in container.decode(video=0)])


def psnr(found: numpy.ndarray, expected: Tensor, largest: int = 255) -> float:
    """dB."""
    return -10 * numpy.log10(numpy.mean((found / largest - expected.numpy()) ** 2))


def test_frames_come_back_in_order_and_at_their_rate(frames, path):
    write_video(path, streamed(*frames.split(3)), Encoding(fps=24.5))

    found = pictures(path)
    assert len(found) == FRAMES and found.shape[1:3] == (HEIGHT, WIDTH)
    assert psnr(found, frames) > 35
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(49, 2)
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_the_file_says_what_its_colours_mean(frames, path, pixel_format):
    write_video(path, Footage.of(frames), Encoding(pixel_format=pixel_format))

    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert {name: getattr(codec, name) for name in COLOURS} == COLOURS


def test_a_lower_crf_is_nearer_and_larger(frames, path, tmp_path):
    grain = torch.randn(*frames.shape[:3], 1, generator=torch.Generator().manual_seed(0))
    noisy = (frames.mean(dim=-1, keepdim=True) + 0.1 * grain).clamp(0, 1).expand_as(frames)
    rough = tmp_path / "rough.mp4"
    write_video(path, Footage.of(noisy), Encoding(crf=10))
    write_video(rough, Footage.of(noisy), Encoding(crf=40))

    assert path.stat().st_size > 2 * rough.stat().st_size
    assert psnr(pictures(path), noisy) > psnr(pictures(rough), noisy) + 3


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_the_file_has_the_pixel_format(frames, path, pixel_format):
    write_video(path, Footage.of(frames), Encoding(pixel_format=pixel_format))

    with av.open(str(path)) as container:
        assert container.streams.video[0].format.name == pixel_format


def test_ten_bits_hold_levels_between_those_of_eight(path):
    ramp = torch.linspace(0.4, 0.42, WIDTH)[:, None].expand(4, HEIGHT, WIDTH, 3)

    write_video(path, Footage.of(ramp), Encoding(crf=0, pixel_format="yuv420p10le"))

    assert len(numpy.unique(pictures(path, "gray16le")[0])) > len(numpy.unique((ramp * 255).round()))


def test_odd_sizes_need_all_colours(frames, path):
    odd = frames[:, :-1, :-1]
    with pytest.raises(ValueError, match="frames are 63x47 but yuv420p needs even sizes; use yuv444p"):
        write_video(path, Footage.of(odd), Encoding())

    write_video(path, Footage.of(odd), Encoding(pixel_format="yuv444p"))

    assert pictures(path).shape == (FRAMES, HEIGHT - 1, WIDTH - 1, 3)


def test_every_frame_can_be_a_png_without_loss(frames, path, tmp_path):
    write_video(path, streamed(*frames.split(6)), Encoding(), texts={"prompt": "{}", "名前": "{}"}, png_folder=tmp_path)

    files = sorted(tmp_path.glob("*.png"))
    assert [file.name for file in files] == [f"frame_{number:05}.png" for number in range(1, FRAMES + 1)]
    found = numpy.stack([numpy.asarray(Image.open(file)) for file in files])
    assert numpy.array_equal(found, (frames * 255).round().byte().numpy())
    assert Image.open(files[-1]).text == {"prompt": "{}"}, "a PNG holds no such name"


def test_frames_of_another_size_than_was_said_are_refused(frames, path):
    with pytest.raises(ValueError, match="frames are 64x40, expected 64x48"):
        write_video(path, streamed(frames[:, :40]), Encoding())


@pytest.mark.parametrize("fps", [1, 7.3, 23.976, 24000 / 1001, 59.94, 119.88, 239.76, 1 / 3])
def test_the_rate_may_be_any_fraction(frames, path, fps):
    write_video(path, Footage.of(frames), Encoding(fps=fps))

    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-3)


# What cannot be encoded is refused before a frame is made


def unseen(count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> Footage:
    def never():
        raise AssertionError("a frame was asked for")
        yield

    return Footage(never(), count, width, height)


@pytest.mark.parametrize(
    ("footage", "pixel_format", "message"),
    [
        (unseen(width=63), "yuv420p", "frames are 63x48 but yuv420p needs even sizes; use yuv444p"),
        (unseen(height=47), "yuv420p10le", "frames are 64x47 but yuv420p10le needs even sizes; use yuv444p"),
        (unseen(width=16400), "yuv420p", "cannot encode frames of 16400x48 in yuv420p at 30 fps .*a smaller video"),
    ],
)
def test_sizes_that_the_encoder_does_not_take(path, footage, pixel_format, message):
    with pytest.raises(ValueError, match=message):
        write_video(path, footage, Encoding(pixel_format=pixel_format))


def test_a_pixel_format_that_this_encoder_lacks(path, monkeypatch):
    """Some builds of x264 know 8 bits only; no build knows grey in 16."""
    monkeypatch.setattr(video, "PIXEL_FORMATS", (*PIXEL_FORMATS, "gray16le"))
    monkeypatch.setitem(CODECS, "h264", replace(CODECS["h264"], formats={"gray16le": "gray16le"}))

    with pytest.raises(ValueError, match=r"cannot encode frames of 64x48 in gray16le at 30 fps .*choose yuv420p"):
        write_video(path, unseen(), Encoding(pixel_format="gray16le"))


@pytest.mark.parametrize("size", [(0, 64, 48), (20, 0, 48), (20, 64, 0)])
def test_no_frames(size):
    with pytest.raises(ValueError, match="there are no frames to write"):
        Footage([], *size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "fps is 0; choose a value above 0"),
        ({"fps": float("nan")}, "fps is nan; choose a value above 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": 0.0001}, "fps is 0.0001"),
        ({"crf": 52}, "crf is 52; choose a value from 0"),
        ({"pixel_format": "rgb24"}, "pixel_format is rgb24; choose one of yuv420p, yuv444p, yuv420p10le"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoding(**settings)
