"""A video that grows: closed H.264 segments, joined in any order without re-encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from ..frames import frame_rate
from .files import Numbered, name_first_free, unfinished_file

# Without B-frames each packet is one frame; equal settings give the segments equal headers.
X264 = {"preset": "ultrafast", "crf": "23", "bf": "0"}
INDEX_IN_FRONT = {"movflags": "faststart"}


def write_segment(path: Path, frames: Iterable[np.ndarray], fps: float, width: int, height: int) -> None:
    """Frames `H W 3` uint8 as an MP4 of this size, which must be even."""
    with av.open(str(path), "w", format="mp4") as segment:
        stream = segment.add_stream("libx264", rate=frame_rate(fps), options=X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            segment.mux(stream.encode(frame.reformat(width, height, "yuv420p")))
        segment.mux(stream.encode(None))


def join_segments(segments: Sequence[Path], place: Numbered, fps: float) -> Path:
    """Write the segments, one after the other, to an MP4 that appears once it is complete, and return its path."""
    with unfinished_file(place.folder) as unfinished:
        _join(segments, unfinished, fps)
        return name_first_free([unfinished], ([path] for path in place.paths(".mp4")))[0]


def _join(segments: Sequence[Path], path: Path, fps: float) -> None:
    with (
        av.open(str(segments[0])) as first,
        av.open(str(path), "w", format="mp4", options=INDEX_IN_FRONT) as joined,
    ):
        stream = joined.add_stream_from_template(first.streams.video[0])
        for number, packet in enumerate(_packets(segments)):
            packet.stream, packet.time_base = stream, 1 / frame_rate(fps)
            packet.pts = packet.dts = number
            packet.duration = 1
            joined.mux(packet)


def _packets(segments: Iterable[Path]) -> Iterator[av.Packet]:
    for segment in segments:
        with av.open(str(segment)) as source:
            for packet in source.demux(video=0):
                if packet.size:  # the last one is empty and only marks the end
                    yield packet
