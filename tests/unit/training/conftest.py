"""Small videos to train on."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

LOSSLESS = "ffv1", "bgr0"
CODECS = {".mkv": LOSSLESS, ".mp4": ("libx264", "yuv420p"), ".mov": ("mpeg4", "yuv420p"), ".avi": ("mpeg4", "yuv420p"),
          ".webm": ("libvpx-vp9", "yuv420p"), ".gif": ("gif", "rgb8")}  # fmt: skip

WriteVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    return _write_video


def _write_video(path: Path, frames: Sequence[np.ndarray] | int = 20, fps: float = 30, height=48, width=64) -> Path:
    """Frames uint8 `H W 3`, or so many grey ones that count up by 4; .mkv is lossless."""
    if isinstance(frames, int):
        frames = [np.full((height, width, 3), 4 * index % 256, np.uint8) for index in range(frames)]
    codec, pixels = CODECS[path.suffix.lower()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pixels
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
    return path
