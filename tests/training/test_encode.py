"""A folder of videos becomes a cache: each clip once, whole, and every problem with its file's name.

Long because each of the many things that can be wrong with a folder of videos has its own test.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from framepack_core.training import encode
from framepack_core.training.cache import ClipCache
from framepack_core.training.encode import Settings, cache_folder
from framepack_core.training.encoders import Demo, Hunyuan
from framepack_core.training.videos import BadVideo, Cut, probe, read

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(size=(48, 64), latents=3, shortest=2, encoders="fake")


class Fake:
    """Encoders whose results show what they were given; they count their calls and may stop after some."""

    name = "fake"

    def __init__(self, stop_after: int = 10**9) -> None:
        self.captions: list[str] = []
        self.clips = 0
        self.loaded: list[str] = []
        self.stop_after = stop_after

    def text(self) -> "Fake":
        self.loaded.append("text")
        return self

    def pictures(self) -> "Fake":
        self.loaded.append("pictures")
        return self

    def encode(self, caption: str) -> tuple[Tensor, Tensor]:
        self.captions.append(caption)
        return torch.full((1 + len(caption), 8), len(caption)), torch.full((12,), len(caption))

    def latents(self, pixels: np.ndarray) -> Tensor:
        if self.clips == self.stop_after:
            raise KeyboardInterrupt
        self.clips += 1
        F, H, W, _ = pixels.shape
        level = torch.from_numpy(pixels[::4, 0, 0, 0] / 4).round()
        return level[None, :, None, None].expand(16, (F + 3) // 4, H // 8, W // 8)

    def image(self, pixels: np.ndarray) -> Tensor:
        return torch.full((9, 8), pixels[0, 0, 0] / 4).round()


@pytest.fixture
def folder(tmp_path, write_video) -> Path:
    """Two videos: one of 20 frames, for two clips of 9, and one of 14, for a clip of 9 and one of 5."""
    videos = tmp_path / "videos"
    for name, frames in (("a.mkv", 20), ("sub/b.mkv", 14)):
        write_video(videos / name, frames)
        (videos / name).with_suffix(".txt").write_text(f"caption of {name}")
    return videos


def contents(cache: Path) -> dict[str, bytes]:
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def shown(cache: Path) -> dict[str, list[int]]:
    """The frames that each clip's latents were encoded from."""
    clips = ClipCache(cache)
    return {name: clip.latents[0, :, 0, 0].int().tolist() for name, clip in zip(clips.names, clips, strict=True)}


def test_every_video_is_cut_and_encoded_with_its_caption(folder, tmp_path):
    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert (report.written, report.found, report.problems) == (4, 0, [])
    assert shown(tmp_path / "cache") == {
        "a.mkv-000000": [0, 4, 8],
        "a.mkv-000009": [9, 13, 17],
        "sub__b.mkv-000000": [0, 4, 8],
        "sub__b.mkv-000009": [9, 13],
    }
    clips = ClipCache(tmp_path / "cache")
    assert [clip.caption for clip in clips] == ["caption of a.mkv"] * 2 + ["caption of sub/b.mkv"] * 2
    assert clips.shapes == ((3, 6, 8), (3, 6, 8), (3, 6, 8), (2, 6, 8))
    for clip in clips:
        assert clip.text.shape == (1 + len(clip.caption), 8) and clip.pooled.shape == (12,)
        assert clip.image.shape == (9, 8) and clip.image[0, 0] == clip.latents[0, 0, 0, 0]


def test_a_caption_may_change_within_a_video(folder, tmp_path):
    """After 12 frames, which lie in the second clip."""
    (folder / "a.txt").write_text("it sits [0.4s: it jumps up]")
    fake = Fake()

    report = cache_folder(folder, tmp_path / "cache", fake, SETTINGS)

    first, second, *_ = ClipCache(tmp_path / "cache")
    assert (first.caption, first.later) == ("it sits", {})
    assert second.caption == "it sits [0.167s: it jumps up]" and list(second.later) == [2]
    assert (second.text.shape[0], second.later[2][0].shape[0]) == (1 + len("it sits"), 1 + len("it jumps up"))
    assert sorted(fake.captions) == ["", "caption of sub/b.mkv", "it jumps up", "it sits"]
    assert (report.written, cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS).found) == (4, 4)


def test_the_empty_prompt_is_cached_too(folder, tmp_path):
    cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    text, pooled = ClipCache(tmp_path / "cache").empty
    assert text.shape == (1, 8) and torch.equal(pooled, torch.zeros(12, dtype=torch.bfloat16))


def test_texts_come_first_and_each_caption_once(folder, tmp_path):
    fake = Fake()

    cache_folder(folder, tmp_path / "cache", fake, SETTINGS)

    assert fake.loaded == ["text", "pictures"]
    assert sorted(fake.captions) == ["", "caption of a.mkv", "caption of sub/b.mkv"]
    assert not (tmp_path / "cache" / "texts").exists()


def test_latents_are_the_vaes_of_the_clips_frames(hunyuan_folder, write_video, tmp_path):
    """The whole way with real classes: the cache holds the frames that were read, encoded by the VAE and scaled."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 40, 50, 3), dtype=np.uint8)
    path = write_video(tmp_path / "videos" / "noise.mkv", list(noise))
    path.with_suffix(".txt").write_text("a cat")
    encoders = Hunyuan(hunyuan_folder, hunyuan_folder)

    cache_folder(path.parent, tmp_path / "cache", encoders, Settings(base=64, latents=2, shortest=2, stride=8))

    clips = ClipCache(tmp_path / "cache")
    assert clips.names == ("noise.mkv-000000", "noise.mkv-000008")
    text, pooled = encoders.text().encode("a cat")
    for start, clip in zip((0, 8), clips, strict=True):
        pixels = read(probe(path), Cut(start, 5), 30, (64, 64))
        assert torch.equal(clip.latents, encoders.pictures().latents(pixels).bfloat16())
        assert torch.equal(clip.image, encoders.pictures().image(pixels[0]).bfloat16())
        assert torch.equal(clip.text, text.bfloat16()) and torch.equal(clip.pooled, pooled.bfloat16())


def test_sizes_are_the_nearest_buckets(folder, write_video, tmp_path):
    write_video(folder / "tall.mkv", 9, height=96, width=48).with_suffix(".txt").write_text("tall")

    cache_folder(folder, tmp_path / "cache", Fake(), replace(SETTINGS, size=None, base=320))

    clips = ClipCache(tmp_path / "cache")
    sizes = {name.split("-")[0]: shape[1:] for name, shape in zip(clips.names, clips.shapes, strict=True)}
    assert sizes == {"a.mkv": (32, 44), "sub__b.mkv": (32, 44), "tall.mkv": (56, 28)}


def test_random_places_depend_on_the_seed_and_the_file_only(folder, write_video, tmp_path):
    def starts(cache: str, seed: int) -> dict[str, list[int]]:
        cache_folder(folder, tmp_path / cache, Fake(), replace(SETTINGS, latents=2, random=2, seed=seed))
        return {name: frames for name, frames in shown(tmp_path / cache).items() if name.startswith("a.mkv")}

    before = starts("first", seed=0)
    write_video(folder / "0.mkv", 20).with_suffix(".txt").write_text("one more")

    assert len(before) == 2
    assert starts("second", seed=0) == before
    assert any(starts(f"seed {seed}", seed) != before for seed in (1, 2, 3))


def test_a_second_run_encodes_nothing(folder, tmp_path):
    cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)
    before, fake = contents(tmp_path / "cache"), Fake()

    report = cache_folder(folder, tmp_path / "cache", fake, SETTINGS)

    assert (report.written, report.found) == (0, 4)
    assert fake.loaded == []
    assert contents(tmp_path / "cache") == before


def test_a_video_that_was_added_is_encoded_alone(folder, write_video, tmp_path):
    cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)
    write_video(folder / "c.mkv", 9).with_suffix(".txt").write_text("new")
    fake = Fake()

    report = cache_folder(folder, tmp_path / "cache", fake, SETTINGS)

    assert (report.written, report.found, fake.clips) == (1, 4, 1)


def test_a_new_caption_or_a_damaged_clip_is_encoded_again(folder, tmp_path):
    cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)
    before = contents(tmp_path / "cache")
    (folder / "a.txt").write_text("another caption")
    damaged = tmp_path / "cache" / "sub__b.mkv-000009.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])

    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert (report.written, report.found) == (3, 1)
    assert ClipCache(tmp_path / "cache")[0].caption == "another caption"
    assert contents(tmp_path / "cache")[damaged.name] == before[damaged.name]


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_run_that_was_interrupted_goes_on(folder, tmp_path, stop_after):
    cache_folder(folder, tmp_path / "whole", Fake(), SETTINGS)

    with pytest.raises(KeyboardInterrupt):
        cache_folder(folder, tmp_path / "cache", Fake(stop_after), SETTINGS)
    fake = Fake()
    report = cache_folder(folder, tmp_path / "cache", fake, SETTINGS)

    assert (report.found, report.written) == (stop_after, 4 - stop_after)
    assert "text" not in fake.loaded  # they had been encoded
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


SLOW_RUN = """
import sys, time
sys.path.append({root!r})
import torch
from pathlib import Path
from framepack_core.training.encode import Settings, cache_folder
from framepack_core.training.encoders import Demo

class Slow(Demo):
    def pictures(self):
        pictures = super().pictures()
        encode, pictures.latents = pictures.latents, lambda pixels: (time.sleep(0.2), encode(pixels))[1]
        return pictures

torch.set_num_threads(1)
cache_folder(Path({videos!r}), Path({cache!r}), Slow(Path({demo!r})), Settings(**{settings!r}))
"""


def test_a_run_that_was_killed_goes_on_with_the_same_result(write_video, demo_folder, tmp_path):
    write_video(tmp_path / "videos" / "a.mkv", 40).with_suffix(".txt").write_text("a red circle moves left")
    settings = {"size": (32, 32), "latents": 2, "shortest": 2, "encoders": "demo"}

    values = {"videos": str(tmp_path / "videos"), "cache": str(tmp_path / "cache"), "demo": str(demo_folder)}
    script = SLOW_RUN.format(root=str(ROOT), settings=settings, **values)
    process = subprocess.Popen([sys.executable, "-P", "-c", script], stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list((tmp_path / "cache").glob("a.mkv-*.safetensors"))) >= 2, process)
    process.kill()
    process.wait()
    begun = {name: data for name, data in contents(tmp_path / "cache").items() if name.startswith("a.mkv")}
    assert 2 <= len(begun) < 8
    report = cache_folder(tmp_path / "videos", tmp_path / "cache", Demo(demo_folder), Settings(**settings))
    cache_folder(tmp_path / "videos", tmp_path / "whole", Demo(demo_folder), Settings(**settings))

    after = contents(tmp_path / "cache")
    assert (report.found, report.written) == (len(begun), 8 - len(begun))
    assert begun.items() <= after.items()
    assert after == contents(tmp_path / "whole")


def wait_for(condition, process: subprocess.Popen) -> None:
    """Wait while the process runs, which ends by itself."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)


def break_folder(folder: Path, write_video) -> dict[str, str]:
    """Add a video of each kind that cannot be used; returns what is said about each."""
    (folder / "broken.mp4").write_bytes(b"nothing" * 100)
    (folder / "broken.txt").write_text("broken")
    write_video(folder / "short.mkv", 4).with_suffix(".txt").write_text("short")
    write_video(folder / "silent.mkv", 9)
    write_video(folder / "blank.mkv", 9).with_suffix(".txt").write_text("  ")
    write_video(folder / "fading.mkv", 9).with_suffix(".txt").write_text("it sits [0.1s ~0.1s: it jumps]")
    return {
        "broken.mp4": "cannot be read as a video",
        "short.mkv": "is too short: it has 4 frames at 30 fps, 1 latent frames, but a clip has at least 2",
        "silent.mkv": "has no caption; write it to silent.txt",
        "blank.txt": "the caption is empty",
        "fading.mkv": "fades, but a clip's caption changes at once",
    }


def test_what_cannot_be_used_is_reported_and_the_rest_encoded(folder, write_video, tmp_path):
    expected = break_folder(folder, write_video)

    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert report.written == 4
    assert len(report.problems) == len(expected)
    for file, message in expected.items():
        assert any(file in problem and message in problem for problem in report.problems), file


@pytest.mark.parametrize("file", ["broken.mp4", "short.mkv", "silent.mkv", "blank.mkv", "fading.mkv"])
def test_strict_stops_at_once(folder, write_video, tmp_path, file):
    break_folder(folder, write_video)
    for other in folder.glob("*.m*"):
        if other.name not in (file, "a.mkv"):
            other.unlink()

    with pytest.raises(BadVideo, match=file.split(".")[0]):
        cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS, strict=True)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_a_video_that_breaks_while_it_is_read_loses_itself_only(folder, tmp_path, monkeypatch):
    broken = BadVideo(f"{folder / 'a.mkv'}: the frame at 0.1 s of 0.7 s cannot be decoded")

    def read_or_fail(video, cut, fps, size):
        if video.path.name == "a.mkv" and cut.start == 0:
            raise broken
        return read(video, cut, fps, size)

    monkeypatch.setattr(encode, "read", read_or_fail)
    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert report.problems == [str(broken)] and report.written == 3


def test_values_that_are_not_finite_are_reported_with_the_clip(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "latents", lambda self, pixels: torch.full((16, 3, 6, 8), float("nan")))

    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert report.written == 0
    assert "a.mkv-000000: latents has values that are not finite" in report.problems[0]


def test_mixed_sizes_are_refused_where_one_is_asked_for(folder, write_video, tmp_path):
    write_video(folder / "tall.mkv", 9, height=96, width=48).with_suffix(".txt").write_text("tall")
    settings = replace(SETTINGS, size=None, base=320)

    report = cache_folder(folder, tmp_path / "cache", Fake(), settings, same_size=True)

    assert report.written == 4
    assert "tall.mkv would be 224x448, but the videos before are 352x256" in report.problems[0]


def test_two_videos_of_one_name_are_refused(folder, write_video, tmp_path):
    write_video(folder / "sub__b.mkv", 9).with_suffix(".txt").write_text("b")

    report = cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)

    assert "would be the same clip sub__b.mkv; rename one" in report.problems[0]


def test_other_settings_are_refused_before_anything_is_encoded(folder, tmp_path):
    cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)
    before = contents(tmp_path / "cache")

    with pytest.raises(ValueError, match=r"cache\.json: the cache was begun with other settings \(fps 30\.0 is now 24\.0\)"):
        cache_folder(folder, tmp_path / "cache", Fake(), replace(SETTINGS, fps=24.0))
    assert contents(tmp_path / "cache") == before


def test_a_full_disk_stops_with_the_files_name_and_leaves_what_there_is(folder, tmp_path, monkeypatch):
    from framepack_core.training import cache

    save, saved = cache.save_file, []

    def full(tensors, path, metadata):
        if len(saved) == 5:  # three texts, the empty prompt, one clip
            raise OSError(28, "No space left on device")
        saved.append(path)
        save(tensors, path, metadata)

    monkeypatch.setattr(cache, "save_file", full)
    with pytest.raises(OSError, match=r"a\.mkv-000009\.safetensors was not written .*No space left"):
        cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS)
    monkeypatch.undo()

    assert ClipCache(tmp_path / "cache").names == ("a.mkv-000000",)
    assert cache_folder(folder, tmp_path / "cache", Fake(), SETTINGS).written == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0.0}, "fps 0.0"),
        ({"latents": 0}, "latents 0"),
        ({"latents": 3, "shortest": 4}, "latents 3, shortest 4: choose 1 <= shortest <= latents"),
        ({"size": (100, 64)}, "size 100x64: choose multiples of 16"),
        ({"random": -1}, "random -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    encode.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def short_clips(folder: Path, cache: Path, models: Path) -> list[object]:
    return [folder, "--out", cache, "--models", models, "--size", "32x32", "--latents", 2, "--shortest", 2]


def test_the_command_caches_and_says_what_it_did(folder, hunyuan_folder, tmp_path, capsys):
    words = short_clips(folder, tmp_path / "cache", hunyuan_folder)

    assert encode.run(arguments(*words)) == 0
    assert "6 clips written, 0 already there, 0 problems" in capsys.readouterr().err
    assert encode.run(arguments(*words)) == 0
    assert "0 clips written, 6 already there, 0 problems" in capsys.readouterr().err
    assert all(clip.image is None for clip in ClipCache(tmp_path / "cache"))
    settings = json.loads((tmp_path / "cache" / "cache.json").read_text())
    assert settings["encoders"] == "hunyuan" and not settings["image"] and settings["size"] == [32, 32]


def test_the_command_ends_with_1_when_a_video_is_missing(folder, hunyuan_folder, write_video, tmp_path, capsys):
    break_folder(folder, write_video)
    words = short_clips(folder, tmp_path / "cache", hunyuan_folder)

    assert encode.run(arguments(*words)) == 1
    summary, *problems = capsys.readouterr().err.splitlines()[-6:]
    assert summary == "6 clips written, 0 already there, 5 problems"
    assert any("broken.mp4 cannot be read as a video" in problem for problem in problems)
    assert len(ClipCache(tmp_path / "cache")) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--captions", "nowhere.jsonl"], r"nowhere\.jsonl cannot be read"),
        (["--vision", "nowhere"], "nowhere lacks image_encoder"),
        (["--latents", "0"], "latents 0"),
    ],
)
def test_the_command_ends_with_1_when_an_option_is_wrong(
    folder, hunyuan_folder, tmp_path, caplog, change: Sequence[str], message
):
    assert encode.run(arguments(folder, "--out", tmp_path / "cache", "--models", hunyuan_folder, *change)) == 1

    assert re.search(message, caplog.text)
    assert not list((tmp_path / "cache").glob("*.safetensors"))


@pytest.mark.parametrize("words", [["v"], ["v", "--out", "c"], ["v", "--out", "c", "--demo", "--size", "big"],
                                   ["v", "--out", "c", "--demo", "--stride", "3", "--random", "4"]])  # fmt: skip
def test_the_command_refuses_what_contradicts_itself(words, capsys):
    with pytest.raises(SystemExit):
        arguments(*words)
    assert "error" in capsys.readouterr().err
