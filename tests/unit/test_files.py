"""A file or folder is complete under its name or not there at all, and what was there before stays."""

import errno
import os
from functools import partial

import pytest

from framepack_core.media import files
from framepack_core.media.files import beside, make_folder, require_name, whole_file, whole_folder


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


def test_a_file_that_must_not_replace_another_does_not(tmp_path):
    path = tmp_path / "model.safetensors"

    with pytest.raises(FileExistsError), whole_file(path, replace=False) as unfinished:
        unfinished.write_bytes(b"ours")
        path.write_bytes(b"came meanwhile")

    assert path.read_bytes() == b"came meanwhile"
    assert names(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("name", [255 * "a", 85 * "写"])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    with whole_file(tmp_path / name) as unfinished:
        assert len(unfinished.name) < 30
    (tmp_path / name).unlink()
    with whole_folder(tmp_path / name, "run") as unfinished:
        assert len(unfinished.name) < 30

    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_is_told_without_a_trace(tmp_path):
    require_name(tmp_path / (255 * "a"))
    require_name(tmp_path / (85 * "写"))
    with pytest.raises(OSError) as refused:
        require_name(tmp_path / (256 * "a"))

    assert refused.value.errno == errno.ENAMETOOLONG and names(tmp_path) == []


def test_two_that_write_the_same_file_at_once_do_not_write_into_each_other(tmp_path):
    path = tmp_path / "video.mp4"

    with whole_file(path) as first, whole_file(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")

    assert path.read_bytes() == b"first", "the last to end"
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
    with whole_folder(tmp_path / "frames", "run") as unfinished:
        (unfinished / "1.png").write_bytes(b"1")
        assert names(tmp_path) == [unfinished.name]

    assert names(tmp_path) == ["frames"] and names(tmp_path / "frames") == ["1.png"]


def test_a_folder_that_fails_is_removed(tmp_path):
    with pytest.raises(ValueError), whole_folder(tmp_path / "frames", "run") as unfinished:
        (unfinished / "1.png").write_bytes(b"1")
        raise ValueError("no more")

    assert names(tmp_path) == []


def test_processes_that_share_a_mark_write_to_one_folder(tmp_path):
    """And what a killed run left there does not become part of it."""
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


# Virus scanners, which open each new file for a moment


class Locked:
    """A call that is refused `times` times, as Windows refuses to touch what another process has opened."""

    def __init__(self, call, times: int) -> None:
        self.call, self.left = call, times

    def __call__(self, *args):
        self.left -= 1
        if self.left >= 0:
            raise PermissionError(errno.EACCES, "being used by another process")
        return self.call(*args)


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """The seconds that were waited, in none at all."""
    waited: list[float] = []
    monkeypatch.setattr(files.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("times", [1, 5, 8])
def test_a_lock_that_goes_away_costs_a_moment(tmp_path, monkeypatch, waited, call, times):
    monkeypatch.setattr(os, call, Locked(getattr(os, call), times))

    with whole_file(tmp_path / "section") as unfinished:
        unfinished.write_bytes(b"content")
    with whole_folder(tmp_path / "frames", "run") as unfinished:
        (unfinished / "1.png").write_bytes(b"1")

    assert names(tmp_path) == ["frames", "section"] and names(tmp_path / "frames") == ["1.png"]
    assert len(waited) == times and waited == sorted(waited) and sum(waited) < 6


@pytest.mark.parametrize("whole", [whole_file, partial(whole_folder, mark="run")])
def test_a_lock_that_stays_is_an_error_after_a_few_seconds(tmp_path, monkeypatch, waited, whole):
    monkeypatch.setattr(os, "replace", Locked(os.replace, 1000))

    with pytest.raises(PermissionError, match="another process"), whole(tmp_path / "name"):
        pass

    assert 3 < sum(waited) < 6
    assert names(tmp_path) == []


def test_other_errors_do_not_wait(tmp_path, monkeypatch, waited):
    def full(*paths) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)

    with pytest.raises(OSError, match="No space left"), whole_file(tmp_path / "name"):
        pass

    assert waited == []
