"""Which frames of which videos become clips, with which caption, and what is said about files that cannot be used."""

import json
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from framepack_core.training.videos import (
    BadVideo,
    Cut,
    Video,
    caption_of,
    cuts,
    find_videos,
    probe,
    random_cuts,
    read,
    read_captions,
    whole,
)

SIZE = (32, 32)


def levels(pixels: np.ndarray) -> list[int]:
    """Which of the grey frames these are."""
    return [round(frame.mean() / 4) for frame in pixels]


def test_videos_are_found_in_subfolders_too_and_sorted(tmp_path):
    for name in ("b.mp4", "a/c.MKV", "a/notes.txt", ".hidden.mp4", "d.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path)] == ["a/c.MKV", "b.mp4", "d.webm"]


def test_a_folder_without_videos_is_said(tmp_path):
    with pytest.raises(BadVideo, match="holds no videos"):
        find_videos(tmp_path)
    with pytest.raises(BadVideo, match="nowhere is not a folder"):
        find_videos(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif"])
def test_every_format_gives_its_frames_in_order(tmp_path, write_video, suffix):
    video = probe(write_video(tmp_path / f"video{suffix}", 21))

    assert (video.height, video.width) == (48, 64)
    assert video.frames(30) == 21
    assert levels(read(video, Cut(0, 21), 30, SIZE)) == list(range(21))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif"])
def test_a_clip_may_start_anywhere(tmp_path, write_video, suffix):
    video = probe(write_video(tmp_path / f"video{suffix}", 60))

    for start in (1, 13, 14, 55):
        assert levels(read(video, Cut(start, 5), 30, SIZE)) == list(range(start, start + 5))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".mp4", {"x264-params": "open-gop=1:keyint=8:bframes=3"}), (".mov", {"bf": "2"}), (".avi", {"bf": "2"})],
)
def test_a_clip_may_start_where_seeking_goes_too_far(tmp_path, write_video, suffix, options):
    video = probe(write_video(tmp_path / f"video{suffix}", 60, **options))

    for start in (2, 13, 14, 30, 55):
        assert levels(read(video, Cut(start, 5), 30, SIZE)) == list(range(start, start + 5))


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (30, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (60, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (15, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (24, [0, 1, 2, 2, 3, 4, 5, 6, 6]),
    ],
)
def test_frame_rates_are_brought_to_one_by_the_nearest_frame(tmp_path, write_video, fps, expected):
    video = probe(write_video(tmp_path / "video.mkv", 40, fps=fps))

    assert levels(read(video, Cut(0, 9), 30, SIZE)) == expected
    assert video.frames(30) == round(40 / fps * 30)


def test_frames_are_scaled_and_cropped_in_the_middle(tmp_path, write_video):
    frame = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    video = probe(write_video(tmp_path / "video.mkv", [frame]))

    pixels = read(video, Cut(0, 1), 30, (32, 32))

    expected = ImageOps.fit(Image.fromarray(frame), (32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels[0], np.asarray(expected))
    assert np.array_equal(read(video, Cut(0, 1), 30, (48, 80))[0], frame)


def test_a_video_that_a_phone_turned_is_upright(tmp_path, write_video):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :32] = 255
    path = write_video(tmp_path / "phone.mp4", [stored] * 5)
    identity, clockwise = (struct.pack(">9i", *row) for row in (
        (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)))  # fmt: skip
    before, track = path.read_bytes().split(b"tkhd")
    path.write_bytes(before + b"tkhd" + track.replace(identity, clockwise, 1))

    video = probe(path)
    pixels = read(video, Cut(0, 1), 30, (64, 48))

    assert (video.height, video.width) == (64, 48)
    assert pixels[0, :30].mean() > 250 and pixels[0, 34:].mean() < 5


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    video = probe(tmp_path / "wide.mp4")

    assert (video.height, video.width) == (48, 96)


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 50)

    with pytest.raises(BadVideo, match=r"broken\.mp4 cannot be read as a video .*save it again"):
        probe(tmp_path / "broken.mp4")


def test_a_file_without_pictures_is_named(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))

    with pytest.raises(BadVideo, match=r"sound\.mkv has no video stream"):
        probe(tmp_path / "sound.mkv")


def test_a_file_that_changed_after_it_was_looked_at_is_named(tmp_path, write_video):
    path = write_video(tmp_path / "video.mkv", 40)
    video = probe(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(BadVideo, match=r"video\.mkv: the frame at \d\.\d\d s of 1\.33 s cannot be decoded"):
        read(video, Cut(0, 37), 30, SIZE)


def test_a_still_picture_is_a_video_of_one_frame(tmp_path, write_video):
    video = probe(write_video(tmp_path / "still.gif", 1))

    assert video.frames(30) == 1
    assert read(video, Cut(0, 1), 30, SIZE).shape == (1, 32, 32, 3)


@given(frames=st.integers(1, 400), T=st.integers(1, 20), shorter=st.integers(0, 19), stride=st.integers(1, 120))
def test_regular_cuts(frames, T, shorter, stride):
    length, shortest = 4 * T - 3, 4 * max(1, T - shorter) - 3

    found = cuts(frames, length, shortest, stride)

    assert all((cut.frames + 3) % 4 == 0 and shortest <= cut.frames <= length for cut in found)
    assert all(cut.start >= 0 and cut.start + cut.frames <= frames for cut in found)
    assert [cut.start for cut in found] == [stride * index for index in range(len(found))]
    assert all(cut.frames == length for cut in found[:-1])
    assert bool(found) == (whole(frames) >= shortest)


def test_what_is_left_at_the_end_is_a_shorter_clip():
    assert cuts(100, length=37, shortest=9, stride=37) == [Cut(0, 37), Cut(37, 37), Cut(74, 25)]
    assert cuts(100, length=37, shortest=29, stride=37) == [Cut(0, 37), Cut(37, 37)]
    assert cuts(36, length=37, shortest=9, stride=37) == [Cut(0, 33)]
    assert cuts(8, length=37, shortest=9, stride=37) == []
    assert cuts(12, length=9, shortest=5, stride=4) == [Cut(0, 9)]  # what is left, 4..8, has been shown already


@settings(max_examples=100)
@given(frames=st.integers(1, 400), T=st.integers(1, 20), count=st.integers(1, 30), seed=st.text(max_size=3))
def test_random_cuts(frames, T, count, seed):
    length = 4 * T - 3

    found = random_cuts(frames, length, 1, count, seed)

    assert found == random_cuts(frames, length, 1, count, seed)
    assert all(cut.frames == min(length, whole(frames)) and cut.start + cut.frames <= frames for cut in found)
    assert len(set(found)) == len(found) == min(count, frames - found[0].frames + 1)


def test_random_cuts_reach_every_place_and_depend_on_the_seed():
    starts = {cut.start for seed in range(200) for cut in random_cuts(13, 9, 9, 2, str(seed))}

    assert starts == {0, 1, 2, 3, 4}
    assert random_cuts(400, 9, 9, 5, "a") != random_cuts(400, 9, 9, 5, "b")
    assert random_cuts(8, 9, 9, 5, "a") == []


def test_captions_stand_beside_the_video_or_in_a_list(tmp_path):
    for name in ("a.mp4", "b.mp4", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("a cat\n jumps\n", encoding="utf-8")
    (tmp_path / "b.mp4.txt").write_text("ein Hund läuft", encoding="utf-8")
    lines = [{"file": "sub/c.mp4", "caption": "a bird"}, {"file_name": "a.mp4", "text": "not this"}]
    (tmp_path / "captions.jsonl").write_text("\n\n".join(map(json.dumps, lines)), encoding="utf-8")

    listed = read_captions(tmp_path)

    assert caption_of(tmp_path / "a.mp4", listed) == "a cat jumps"
    assert caption_of(tmp_path / "b.mp4", listed) == "ein Hund läuft"
    assert caption_of(tmp_path / "sub" / "c.mp4", listed) == "a bird"


def test_another_list_may_be_given(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "metadata.jsonl").write_text('{"file": "a.mp4", "caption": "default"}')
    (tmp_path / "other.jsonl").write_text('{"file": "a.mp4", "caption": "other"}')

    assert read_captions(tmp_path)[tmp_path / "a.mp4"] == "default"
    assert read_captions(tmp_path, tmp_path / "other.jsonl")[tmp_path / "a.mp4"] == "other"


def test_no_list_is_no_error_but_no_caption_is(tmp_path):
    assert read_captions(tmp_path) == {}
    with pytest.raises(BadVideo, match=r"a\.mp4 has no caption; write it to a\.txt beside it, or to captions\.jsonl"):
        caption_of(tmp_path / "a.mp4", {})


def test_an_empty_caption_is_said_with_its_file(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")

    with pytest.raises(BadVideo, match=r"a\.txt: the caption is empty"):
        caption_of(tmp_path / "a.mp4", {})


def test_a_caption_that_is_no_text_is_said_with_its_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00caf\xe9")

    with pytest.raises(BadVideo, match=r"a\.txt cannot be read .*UTF-8"):
        caption_of(tmp_path / "a.mp4", {})


@pytest.mark.parametrize("line", ["no json", "[]", "3", '{"file": "a.mp4"}', '{"caption": "x"}', '{"file": 3, "caption": "x"}'])
def test_a_line_that_cannot_be_read_is_named(tmp_path, line):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "captions.jsonl").write_text('{"file": "a.mp4", "caption": "x"}\n' + line)

    with pytest.raises(BadVideo, match=r"captions\.jsonl, line 2: expected"):
        read_captions(tmp_path)


def test_a_list_that_names_no_file_there_is_said(tmp_path):
    (tmp_path / "captions.jsonl").write_text('{"file": "gone.mp4", "caption": "x"}')

    with pytest.raises(BadVideo, match=r"captions\.jsonl, line 1: there is no .*gone\.mp4"):
        read_captions(tmp_path)


def test_seconds_count_the_last_frame_too(tmp_path):
    assert Video(tmp_path, (0.0, 0.5, 1.0), 1, 1).seconds == 1.5
    assert Video(tmp_path, (7.0, 7.5), 1, 1).frames(30) == 30
    assert Video(tmp_path, tuple(frame / 24 for frame in range(39)), 1, 1).frames(30) == 49  # of 48.75
