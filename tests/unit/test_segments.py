"""Segments of a video, joined without re-encoding."""

from pathlib import Path

import av
import numpy as np
import pytest

from framepack_core.media.files import Numbered
from framepack_core.media.segments import join_segments, write_segment

SIZE = (96, 64)  # width, height


def segment(folder: Path, level: int, frames: int, fps: float = 30.0) -> Path:
    """Grey frames of one level."""
    path = folder / f"{level}.mp4"
    write_segment(path, [np.full((64, 96, 3), level, np.uint8)] * frames, fps, *SIZE)
    return path


def decoded(path: Path) -> tuple[list[float], list[int]]:
    """When each frame is shown, in seconds, and its grey level."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
    return [frame.time for frame in frames], [round(frame.to_ndarray(format="gray").mean()) for frame in frames]


def test_segments_follow_each_other_in_the_given_order_at_an_even_pace(tmp_path):
    first, second, single = (segment(tmp_path, *shape) for shape in ((60, 37), (120, 36), (180, 1)))

    joined = join_segments([single, second, first], Numbered(tmp_path, "joined"), 30.0)

    times, levels = decoded(joined)
    assert times == pytest.approx([number / 30 for number in range(74)])
    assert [levels[0], levels[1], levels[36], levels[37], levels[73]] == pytest.approx([180, 120, 120, 60, 60], abs=2)


@pytest.mark.parametrize("fps", [8.0, 23.976, 24.0])
def test_the_rate_is_kept(tmp_path, fps):
    parts = [segment(tmp_path, level, 4, fps) for level in (60, 120)]

    joined = join_segments(parts, Numbered(tmp_path, "joined"), fps)

    with av.open(str(joined)) as video:
        assert float(video.streams.video[0].average_rate) == pytest.approx(fps, abs=1e-3)


def test_frames_are_scaled_to_the_segments_size(tmp_path):
    write_segment(tmp_path / "a.mp4", [np.zeros((608, 640, 3), np.uint8)], 30.0, 512, 486)

    with av.open(str(tmp_path / "a.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (512, 486)


def test_a_join_replaces_nothing(tmp_path):
    other = tmp_path / "joined_00001_.mp4"
    other.write_bytes(b"other")

    joined = join_segments([segment(tmp_path, 60, 4)], Numbered(tmp_path, "joined"), 30.0)

    assert other.read_bytes() == b"other" and len(decoded(joined)[0]) == 4


def test_a_join_that_fails_leaves_nothing(tmp_path):
    good, broken = segment(tmp_path, 60, 4), tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")

    with pytest.raises(av.error.InvalidDataError):
        join_segments([good, broken], Numbered(tmp_path, "joined"), 30.0)

    assert {path.name for path in tmp_path.iterdir()} == {"60.mp4", "broken.mp4"}
