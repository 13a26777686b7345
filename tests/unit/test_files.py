"""A file or folder is complete under its name or not there at all, and what was there before stays."""

import os

import pytest

from framepack_core.media.files import beside, make_folder, whole_file, whole_folder


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "video.mp4"

    with whole_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        assert not path.exists() and unfinished.name.startswith(".")
        unfinished.write_bytes(b"whole")

    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["video.mp4"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"before")

    with pytest.raises(type(error)), whole_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise error

    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["video.mp4"]


def test_a_folder_that_is_missing_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "gone" / "video.mp4"):
        raise AssertionError("the block ran")


def test_file_and_folder_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """A power cut after the rename must not leave an empty file under the name."""
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("sync"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), rename(*paths)))

    with whole_file(tmp_path / "a") as unfinished:
        unfinished.write_bytes(b"content")

    assert calls == (["sync", "rename"] if os.name == "nt" else ["sync", "rename", "sync"])


def test_a_folder_appears_with_all_its_files(tmp_path):
    with whole_folder(tmp_path / "frames") as unfinished:
        (unfinished / "1.png").write_bytes(b"1")
        assert names(tmp_path) == [unfinished.name]

    assert names(tmp_path) == ["frames"] and names(tmp_path / "frames") == ["1.png"]


def test_a_folder_that_fails_is_removed(tmp_path):
    with pytest.raises(ValueError), whole_folder(tmp_path / "frames") as unfinished:
        (unfinished / "1.png").write_bytes(b"1")
        raise ValueError("no more")

    assert names(tmp_path) == []


def test_processes_that_share_a_mark_write_to_one_folder(tmp_path):
    """And what a killed run has left there is not taken for part of it."""
    shared = beside(tmp_path / "state", "run")
    shared.mkdir()
    (shared / "old").touch()

    with whole_folder(tmp_path / "state", "run") as unfinished:
        assert unfinished == shared
        (beside(tmp_path / "state", "run") / "new").touch()

    assert names(tmp_path / "state") == ["new"]


def test_a_new_folder_is_made_with_those_above_it(tmp_path):
    make_folder(tmp_path / "runs" / "one")
    make_folder(tmp_path / "runs" / "one")

    assert (tmp_path / "runs" / "one").is_dir()
