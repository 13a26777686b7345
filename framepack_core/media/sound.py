"""The sound of a video: AAC of what ComfyUI calls AUDIO, whatever its rate and its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.container
from torch import Tensor

# By the number of channels; others, for which PyAV makes no frames, are mixed to one.
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
MAX_RATE = 1_000_000  # Hz
LOAD = "load it with Load Audio"


@dataclass(frozen=True)
class Audio:
    """`samples` of shape `C N` in -1..1, `rate` in Hz."""

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or not self.samples.is_floating_point():
            raise ValueError(f"audio has samples of shape {tuple(self.samples.shape)} and type {self.samples.dtype}, expected "
                             f"(channels, samples) of floats in -1..1; {LOAD}")  # fmt: skip
        if len(self.samples) == 0:
            raise ValueError(f"audio has no channels; {LOAD}")
        if not 1 <= self.rate <= MAX_RATE:
            raise ValueError(f"audio has a sample rate of {self.rate}, expected 1 to {MAX_RATE} Hz; {LOAD}")

    @classmethod
    def of(cls, audio: Mapping[str, Any]) -> Audio | None:
        """ComfyUI's AUDIO: a waveform `B C N`, of which the first is taken, and its rate. None if it lasts no time at all."""
        waveform = audio.get("waveform")
        if not isinstance(waveform, Tensor) or waveform.ndim != 3 or len(waveform) == 0:
            shape = tuple(waveform.shape) if isinstance(waveform, Tensor) else waveform
            raise ValueError(f"audio has a waveform of shape {shape}, expected (batch, channels, samples); {LOAD}")
        sound = cls(waveform[0], whole(audio.get("sample_rate")))
        return sound if sound.samples.shape[1] else None


def whole(rate: Any) -> int:
    try:
        return int(rate)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"audio has a sample rate of {rate}, expected 1 to {MAX_RATE} Hz; {LOAD}") from None


class AudioTrack:
    """AAC at the audio's own rate or, if AAC has none like it, at the next higher one, to which PyAV resamples."""

    def __init__(self, container: av.container.OutputContainer, audio: Audio) -> None:
        self.container, self.audio, self.written = container, audio, 0
        self.layout = LAYOUTS.get(len(audio.samples), "mono")
        self.stream = container.add_stream("aac", rate=encoded_rate(audio.rate), layout=self.layout)

    def write(self, until: Fraction) -> None:
        """Write the audio up to this time in seconds."""
        end = min(round(until * self.audio.rate), self.audio.samples.shape[1])
        if end <= self.written:
            return
        part = heard(self.audio.samples[:, self.written : end])
        if len(part) not in LAYOUTS:
            part = part.mean(dim=0, keepdim=True)
        frame = av.AudioFrame.from_ndarray(part.contiguous().numpy(), format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.audio.rate, self.written, Fraction(1, self.audio.rate)
        self.container.mux(self.stream.encode(frame))
        self.written = end

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))


def encoded_rate(rate: int) -> int:
    """The lowest of AAC's rates that keeps all of the sound, in Hz; the highest if none does."""
    rates = av.Codec("aac", "w").audio_rates or [rate]
    return min((known for known in rates if known >= rate), default=max(rates))


def heard(samples: Tensor) -> Tensor:
    """In float32 on the CPU, as a player would play them: silent where they are no numbers, and cut off at -1 and 1."""
    return samples.detach().float().cpu().nan_to_num(0.0, 1.0, -1.0).clamp(-1, 1)
