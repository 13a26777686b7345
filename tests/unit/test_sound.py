"""The sound of a video: what the encoder does not take is resampled, cleaned, or refused before a frame is made."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy
import pytest
import torch
from torch import Tensor

from framepack_core.media.sound import Audio, encoded_rate
from framepack_core.media.video import Encoding, Footage, write_video

FPS, FRAMES = 20, 20
SECONDS = FRAMES / FPS


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "video.mp4"


def tone(rate: int, seconds: float = SECONDS, channels: int = 1, hertz: int = 440) -> Tensor:
    times = torch.arange(round(seconds * rate)) / rate
    return 0.5 * torch.sin(2 * torch.pi * hertz * times).expand(channels, -1)


def write(path: Path, audio: Audio | None) -> None:
    chunks = torch.zeros(FRAMES, 48, 64, 3).split(7)
    write_video(path, Footage(chunks, FRAMES, 64, 48), Encoding(fps=FPS), audio)


def heard(path: Path) -> tuple[numpy.ndarray, int]:
    """Samples `C N` and their rate."""
    with av.open(str(path)) as container:
        samples = [part.to_ndarray() for part in container.decode(audio=0)]
        return numpy.concatenate(samples, axis=1), container.streams.audio[0].rate


def pitch(samples: numpy.ndarray, rate: int) -> float:
    """Hz, of the middle."""
    middle = samples[0, samples.shape[1] // 3 : 2 * samples.shape[1] // 3]
    return numpy.argmax(numpy.abs(numpy.fft.rfft(middle))) * rate / len(middle)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_sound_ends_with_the_video_or_before(path, channels, seconds):
    write(path, Audio(tone(16000, seconds, channels), 16000))

    samples, rate = heard(path)
    assert len(samples) == channels and rate == 16000
    assert abs(samples.shape[1] / rate - min(seconds, SECONDS)) < 0.15
    assert pitch(samples, rate) == pytest.approx(440, abs=10)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("rate", "expected"), [(4000, 7350), (8000, 8000), (40000, 44100), (96000, 96000), (176400, 96000), (192000, 96000)]
)
def test_a_rate_that_aac_lacks_is_resampled(path, rate, expected, channels):
    write(path, Audio(tone(rate, channels=channels), rate))

    samples, found = heard(path)
    assert found == expected == encoded_rate(rate)
    assert abs(samples.shape[1] / found - SECONDS) < 0.15
    assert pitch(samples, found) == pytest.approx(440, abs=10)


@pytest.mark.parametrize("channels", [7, 8, 16])
def test_more_channels_are_mixed_to_one(path, channels):
    write(path, Audio(tone(16000, channels=channels), 16000))

    samples, rate = heard(path)
    assert len(samples) == 1 and pitch(samples, rate) == pytest.approx(440, abs=10)


@pytest.mark.parametrize("rate", [1, 100, 7351, 44099, 1_000_000])
def test_no_rate_fails(path, rate):
    write(path, Audio(tone(rate), rate))

    assert path.stat().st_size > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 7.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_samples_that_no_player_could_play_do_not_stop_the_video(path, value, kind):
    samples = tone(44100).clone().to(kind)
    samples[:, ::1000] = value

    write(path, Audio(samples, 44100))

    found, rate = heard(path)
    assert numpy.isfinite(found).all() and abs(found).max() < 2
    assert pitch(found, rate) == pytest.approx(440, abs=10)


def test_sound_of_no_length_is_no_sound():
    assert Audio.of({"waveform": torch.zeros(1, 2, 0), "sample_rate": 44100}) is None


def test_of_a_batch_the_first_is_heard():
    audio = Audio.of({"waveform": torch.stack([tone(8000), -tone(8000)]), "sample_rate": 8000})

    assert audio is not None and torch.equal(audio.samples, tone(8000))


def test_sound_that_needs_a_gradient_is_heard(path):
    write(path, Audio(tone(8000).clone().requires_grad_(), 8000))

    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (torch.zeros(1, 0, 10), 44100, "audio has no channels; load it with Load Audio"),
        (torch.zeros(0, 2, 10), 44100, r"audio has a waveform of shape \(0, 2, 10\), expected \(batch, channels, samples\)"),
        (torch.zeros(2, 10), 44100, r"audio has a waveform of shape \(2, 10\)"),
        (torch.zeros(1, 1, 2, 10), 44100, r"audio has a waveform of shape \(1, 1, 2, 10\)"),
        (None, 44100, "audio has a waveform of shape None"),
        (torch.zeros(1, 2, 10, dtype=torch.int16), 44100, "audio has samples of .*torch.int16, expected .*floats"),
        (torch.zeros(1, 2, 10), 0, "audio has a sample rate of 0, expected 1 to 1000000 Hz; load it with Load Audio"),
        (torch.zeros(1, 2, 10), -44100, "audio has a sample rate of -44100"),
        (torch.zeros(1, 2, 10), 2**40, "audio has a sample rate of 1099511627776"),
        (torch.zeros(1, 2, 10), math.nan, "audio has a sample rate of nan"),
        (torch.zeros(1, 2, 10), None, "audio has a sample rate of None"),
    ],
)
def test_what_is_no_sound_is_refused(waveform, rate, message):
    with pytest.raises(ValueError, match=message):
        Audio.of({"waveform": waveform, "sample_rate": rate})
