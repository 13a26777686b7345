"""The sound of a video: encoded as its frames are, of any rate and any samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import av.container
import torch
from torch import Tensor

# By the number of channels; others, for which PyAV makes no frames, are mixed to one.
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
OPUS_LAYOUTS = {"4.0": "quad"}  # of four channels, Opus knows only this layout
MAX_RATE = 1_000_000  # Hz
LOAD = "load it with Load Audio"


class Sound(Protocol):
    """`blocks` are its samples `C N` in -1..1, in their order; `rate` is in Hz."""

    @property
    def rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def blocks(self) -> Iterator[Tensor]: ...


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

    @property
    def channels(self) -> int:
        """As many as are heard."""
        return len(self.samples) if len(self.samples) in LAYOUTS else 1

    def blocks(self) -> Iterator[Tensor]:
        yield self.samples


def whole(rate: Any) -> int:
    try:
        return int(rate)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"audio has a sample rate of {rate}, expected 1 to {MAX_RATE} Hz; {LOAD}") from None


class AudioTrack:
    """At the sound's own rate or, if the encoder has none like it, at the next higher one, to which PyAV resamples."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound, encoder: str = "aac") -> None:
        self.container, self.sound, self.written = container, sound, 0
        self.samples = Samples(sound.blocks())
        self.layout = LAYOUTS[sound.channels]
        layout = OPUS_LAYOUTS.get(self.layout, self.layout) if encoder == "libopus" else self.layout
        rate = encoded_rate(sound.rate, encoder)
        self.stream = cast(av.AudioStream, container.add_stream(encoder, rate=rate, layout=layout))

    def write(self, until: Fraction) -> None:
        """Write the sound up to this time in seconds."""
        part = self.samples.read(round(until * self.sound.rate) - self.written)
        if part is None:
            return
        frame = audio_frame(part, self.sound.rate)
        frame.pts, frame.time_base = self.written, Fraction(1, self.sound.rate)
        self.container.mux(self.stream.encode(frame))
        self.written += part.shape[1]

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))


class Samples:
    """Blocks `C N` read in other lengths than they come in."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self.blocks, self.rest = iter(blocks), torch.zeros(1, 0)

    def read(self, count: int) -> Tensor | None:
        """The next `count` samples, or those that are left; None if that is nothing."""
        parts = []
        while count > 0:
            if not self.rest.shape[1]:
                following = next(self.blocks, None)
                if following is None:
                    break
                self.rest = following
            part, self.rest = self.rest[:, :count], self.rest[:, count:]
            count -= part.shape[1]
            parts.append(part)
        return torch.cat(parts, dim=1) if parts else None


def audio_frame(samples: Tensor, rate: int) -> av.AudioFrame:
    """Samples `C N` as they are heard. Channels for which PyAV makes no frames are mixed to one."""
    part = heard(samples)
    if len(part) not in LAYOUTS:
        part = part.mean(dim=0, keepdim=True)
    frame = av.AudioFrame.from_ndarray(part.contiguous().numpy(), format="fltp", layout=LAYOUTS[len(part)])
    frame.sample_rate = rate
    return frame


def silence(channels: int, count: int) -> Tensor:
    """As many samples as are wanted, in no memory."""
    return torch.zeros(channels, 1).expand(channels, count)


def encoded_rate(rate: int, encoder: str = "aac") -> int:
    """The lowest of the encoder's rates that keeps all of the sound, in Hz; the highest if none does."""
    rates = av.Codec(encoder, "w").audio_rates or [rate]
    return min((known for known in rates if known >= rate), default=max(rates))


def heard(samples: Tensor) -> Tensor:
    """In float32 on the CPU, as a player would play them: silent where they are no numbers, and cut off at -1 and 1."""
    return samples.detach().float().cpu().nan_to_num(0.0, 1.0, -1.0).clamp(-1, 1)
