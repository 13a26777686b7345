"""Clips on disk: what is written is read back, nothing is half written, and a bad file is named."""

import errno
import mmap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framepack_core.training import cache
from framepack_core.training.cache import Clip, ClipCache, save_whole, write_clip, write_empty


def clip(T: int = 5, H: int = 4, W: int = 6, image: bool = True, caption: str = "a red circle moves left") -> Clip:
    torch.manual_seed(T)
    bf16 = torch.bfloat16
    return Clip(
        latents=torch.randn(16, T, H, W).to(bf16),
        text=torch.randn(7, 8).to(bf16),
        pooled=torch.randn(12).to(bf16),
        image=torch.randn(9, 8).to(bf16) if image else None,
        caption=caption,
    )


def assert_equal(a: Clip, b: Clip) -> None:
    assert a.caption == b.caption
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert tensor.dtype == b.tensors[name].dtype == torch.bfloat16
        assert torch.equal(tensor, b.tensors[name]), name


def test_a_clip_is_read_back_as_it_was_written(tmp_path):
    written = {"b": clip(5), "a": clip(9, H=8, image=False, caption="two lines\nund Umlaute: ü")}
    for name, each in written.items():
        write_clip(tmp_path, name, each)

    clips = ClipCache(tmp_path)

    assert clips.names == ("a", "b") and len(clips) == 2
    assert clips.shapes == ((9, 8, 6), (5, 4, 6))
    for name, read in zip(clips.names, clips, strict=True):
        assert_equal(read, written[name])


def test_a_section_is_told_what_counts_for_most_of_it(tmp_path):
    first, second, third = ((torch.full((7, 8), value), torch.full((12,), value)) for value in (0.0, 1.0, 2.0))
    written = Clip(torch.randn(16, 28, 4, 4), *first, None, "it moves, then stops", {10: second, 19: third})
    write_clip(tmp_path, "a", written)
    read = ClipCache(tmp_path)[0]

    def told(frames) -> float:
        text, pooled = read.told(frames)
        assert text.shape == (7, 8) and pooled.shape == (12,) and text.unique() == pooled.unique()
        return text.unique().item()

    assert [told(range(start, start + 9)) for start in (1, 5, 6, 10, 14, 15, 19)] == [0, 0, 1, 1, 1, 2, 2]
    assert told((*range(1, 10), *range(19, 28))) == 0, "of a section that makes both ends, the beginning counts"


def test_whatever_precision_comes_bfloat16_is_stored(tmp_path):
    latents = torch.randn(16, 1, 2, 2)
    write_clip(tmp_path, "a", Clip(latents, torch.randn(3, 8), torch.randn(12), None, ""))

    assert torch.equal(ClipCache(tmp_path)[0].latents, latents.to(torch.bfloat16))


def test_tensors_are_mapped_and_outlive_the_cache(tmp_path):
    write_clip(tmp_path, "a", clip(65, 64, 64))
    read = ClipCache(tmp_path)[0].latents

    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "a.safetensors") in maps.read_text()
        assert read.nbytes > mmap.PAGESIZE
    assert torch.equal(read, clip(65, 64, 64).latents)


def test_the_empty_prompt_is_no_clip(tmp_path):
    write_clip(tmp_path, "a", clip())
    text, pooled = torch.randn(3, 8).bfloat16(), torch.randn(12).bfloat16()
    write_empty(tmp_path, text, pooled)

    clips = ClipCache(tmp_path)

    assert clips.names == ("a",)
    assert torch.equal(clips.empty[0], text) and torch.equal(clips.empty[1], pooled)


def test_an_empty_prompt_that_is_missing_is_said_with_its_file(tmp_path):
    write_clip(tmp_path, "a", clip())

    with pytest.raises(FileNotFoundError, match=r"empty\.safetensors is missing"):
        _ = ClipCache(tmp_path).empty


def test_a_folder_without_clips_is_refused(tmp_path):
    write_empty(tmp_path, torch.randn(3, 8), torch.randn(12))

    with pytest.raises(FileNotFoundError, match="holds no clips"):
        ClipCache(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no clips"):
        ClipCache(tmp_path / "nowhere")


def test_a_file_that_was_cut_short_is_named(tmp_path):
    write_clip(tmp_path, "a", clip())
    path = write_clip(tmp_path, "broken", clip())
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(ValueError, match=r"broken\.safetensors cannot be read"):
        ClipCache(tmp_path)


def test_a_file_that_is_no_clip_is_named(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match=r"model\.safetensors lacks latents, text, pooled"):
        ClipCache(tmp_path)


def test_a_file_of_other_dimensions_is_named(tmp_path):
    tensors = clip().tensors
    save_file({**tensors, "latents": tensors["latents"][None]}, tmp_path / "batched.safetensors")

    with pytest.raises(ValueError, match=r"batched\.safetensors: latents is \(1, 16, 5, 4, 6\), but a clip's is C T H W"):
        ClipCache(tmp_path)


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("latents", torch.zeros(1, 16, 1, 2, 2), r"name: latents is \(1, 16, 1, 2, 2\), but a clip's is C T H W"),
        ("text", torch.zeros(0, 8), r"name: text is \(0, 8\)"),
        ("pooled", torch.full((12,), float("nan")), "name: pooled has values that are not finite"),
    ],
)
def test_wrong_tensors_are_not_written(tmp_path, part, tensor, message):
    wrong = Clip(**{**clip().tensors, part: tensor}, caption="")

    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path, "name", wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["empty", "codebook", "folder/name", "..", ""])
def test_a_name_that_is_no_clips_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a clip cannot be called"):
        write_clip(tmp_path, name, clip())


def test_a_file_gets_its_name_only_when_it_is_complete(tmp_path, monkeypatch):
    path = write_clip(tmp_path, "a", clip(5))
    before, written_to = path.read_bytes(), []

    def spy(tensors, unfinished, metadata):
        save_file(tensors, unfinished, metadata)
        written_to.append(unfinished)
        assert path.read_bytes() == before

    monkeypatch.setattr(cache, "save_file", spy)
    write_clip(tmp_path, "a", clip(9))

    assert len(written_to) == 1 and path not in written_to
    assert ClipCache(tmp_path).shapes == ((9, 4, 6),)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = write_clip(tmp_path, "a", clip())

    def fail(tensors, unfinished, metadata):
        Path(unfinished).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "save_file", fail)
    with pytest.raises(OSError, match=r"a\.safetensors was not written .*No space left on device.*free disk space"):
        write_clip(tmp_path, "a", clip(9))

    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert_equal(ClipCache(tmp_path)[0], clip())


def test_a_folder_that_cannot_be_made_is_said_with_the_files_name(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match=r"file/a\.safetensors was not written"):
        save_whole(tmp_path / "file" / "a.safetensors", {"x": torch.zeros(3)}, {})
