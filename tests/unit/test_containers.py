"""Every container with every codec: either a file that opens as what it is called, or a refusal that says what to choose."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy
import pytest
import torch

from framepack_core.media.containers import CODECS, CONTAINERS, choose
from framepack_core.media.files import Numbered
from framepack_core.media.saving import save_video
from framepack_core.media.sound import Audio
from framepack_core.media.video import COLOURS, Encoding, Footage

FRAMES, HEIGHT, WIDTH, RATE = 12, 48, 64, 44100
PAIRS = [(container, codec) for container, held in CONTAINERS.items() for codec in held.codecs]
KINDS = [(*pair, pixel_format) for pair in PAIRS for pixel_format in CODECS[pair[1]].formats]
OTHERS = [(container, codec) for container, held in CONTAINERS.items() for codec in CODECS if codec not in held.codecs]
READ_AS = {"h264": "h264", "vp9": "vp9", "av1": "libdav1d", "prores": "prores"}
HEARD_AS = {"mp4": "aac", "mkv": "aac", "webm": "opus", "mov": "pcm_s16le"}
COLOUR = (255, 120, 180)


def saved(folder: Path, audio: Audio | None = None, **encoding) -> Path:
    video = Footage.of(torch.tensor(COLOUR).div(255).expand(FRAMES, HEIGHT, WIDTH, 3))
    return save_video(Numbered(folder, "x"), video, Encoding(crf=4, **encoding), audio, {"prompt": {"1": "é"}})


@pytest.mark.parametrize(("container", "codec", "pixel_format"), KINDS)
def test_what_goes_together_is_written_and_opens(tmp_path, container, codec, pixel_format):
    """Frames, rate, codec, colours, sound and graph."""
    tone = torch.sin(torch.arange(RATE) / 20).expand(2, -1) / 2

    path = saved(tmp_path, Audio(tone, RATE), container=container, codec=codec, pixel_format=pixel_format)

    assert path.name == f"x_00001_.{container}"
    with av.open(str(path)) as opened:
        tags = {name.lower(): text for name, text in opened.metadata.items()}
        video, sound = opened.streams.video[0], opened.streams.audio[0]
        frames = list(opened.decode(video))
        opened.seek(0)
        heard = numpy.concatenate([frame.to_ndarray().reshape(-1) for frame in opened.decode(sound)])
    assert video.codec_context.name == READ_AS[codec] and sound.codec_context.name.removeprefix("lib") == HEARD_AS[container]
    assert video.average_rate == 30 and len(frames) == FRAMES
    assert [getattr(frames[0], name) for name in COLOURS] == list(COLOURS.values())
    assert frames[-1].to_ndarray(format="rgb24")[20, 30].tolist() == pytest.approx(COLOUR, abs=3)
    assert abs(heard).max() > 0.3
    assert json.loads(tags["prompt"]) == {"1": "é"}


@pytest.mark.parametrize(
    ("container", "codec", "expected"),
    [
        ("auto", "auto", ("mp4", "h264")),
        ("auto", "h264", ("mp4", "h264")),
        ("auto", "vp9", ("webm", "libvpx-vp9")),
        ("auto", "av1", ("webm", "libsvtav1")),
        ("auto", "prores", ("mov", "prores_ks")),
        ("mp4", "auto", ("mp4", "h264")),
        ("webm", "auto", ("webm", "libvpx-vp9")),
        ("mkv", "auto", ("mkv", "h264")),
        ("mov", "auto", ("mov", "h264")),
    ],
)
def test_auto_is_the_usual_one(container, codec, expected):
    found = choose(container, codec, "yuv420p")

    assert (found.name, found.codec.encoder) == expected


@pytest.mark.parametrize(
    ("container", "codec"),
    [(container, codec) for container in CONTAINERS for codec in CODECS if (container, codec) not in PAIRS],
)
def test_what_does_not_go_together_is_refused_with_what_does(container, codec):
    with pytest.raises(ValueError, match=f"codec is {codec}, which container {container} cannot hold; choose") as refused:
        Encoding(container=container, codec=codec)

    others = re.search(r"choose container (.*), or codec (.*)$", str(refused.value))
    assert others is not None
    for name in others[1].split(" or "):
        assert Encoding(container=name, codec=codec).chosen.name == name
    for name in others[2].split(" or "):
        assert Encoding(container=container, codec=name).chosen.name == container


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"container": "avi"}, "container is 'avi'; choose one of auto, mp4, webm, mkv, mov"),
        ({"codec": "hevc"}, "codec is 'hevc'; choose one of auto, h264, vp9, av1, prores"),
        ({"codec": "av1", "pixel_format": "yuv444p"}, "pixel_format is yuv444p, but av1 is written in yuv420p or yuv420p10le"),
        (
            {"codec": "vp9", "pixel_format": "yuv420p10le"},
            "yuv420p10le, but vp9 is written in yuv420p or yuv444p",
        ),
    ],
)
def test_what_does_not_exist_is_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Encoding(**given)


def test_an_encoder_that_this_pyav_lacks_is_named_with_those_it_has(monkeypatch):
    monkeypatch.setitem(CODECS, "av1", replace(CODECS["av1"], encoder="libnone"))

    message = rf"codec is av1, but PyAV {av.__version__} has no encoder libnone; choose one that it has \(h264, vp9, prores\)"
    with pytest.raises(ValueError, match=message):
        Encoding(codec="av1")


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_of_any_number_of_channels_has_its_place(tmp_path, container, channels):
    path = saved(tmp_path, Audio(torch.rand(channels, RATE) - 0.5, RATE), container=container)

    with av.open(str(path)) as opened:
        assert opened.streams.audio[0].codec_context.channels == (channels if channels <= 6 else 1)


def test_what_is_not_chosen_is_not_new(tmp_path):
    """H.264 in MP4."""
    path = saved(tmp_path)

    assert path.read_bytes() == saved(tmp_path, container="mp4", codec="h264").read_bytes()
