"""A video is saved under a number that is free when it is complete, and what can fail fails before a frame is made."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from framepack_core.media.files import Numbered
from framepack_core.media.saving import least_bytes, save_video
from framepack_core.media.video import Encoding, Footage

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 64, 48, 8


def footage(chunks: Iterable[Tensor] | None = None) -> Footage:
    return Footage(torch.zeros(FRAMES, HEIGHT, WIDTH, 3).split(4) if chunks is None else chunks, FRAMES, WIDTH, HEIGHT)


def while_decoding(do) -> Footage:
    """`do` is called before the last chunk."""

    def chunks() -> Iterator[Tensor]:
        yield torch.zeros(FRAMES // 2, HEIGHT, WIDTH, 3)
        do()
        yield torch.zeros(FRAMES // 2, HEIGHT, WIDTH, 3)

    return footage(chunks())


def unseen() -> Footage:
    def never():
        raise AssertionError("a frame was asked for")
        yield

    return footage(never())


@pytest.fixture
def place(tmp_path) -> Numbered:
    return Numbered(tmp_path, "x")


@pytest.fixture(params=["hard links", "no hard links"])
def links(request, monkeypatch) -> None:
    """FAT and some disks in a network have no hard links."""

    def refuse(*paths) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder by its path; None is a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def is_video(path: Path) -> bool:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0)) == FRAMES


# Nothing is replaced


def test_the_first_number_is_taken_if_it_is_free(place, links):
    path = save_video(place, footage(), Encoding(), pngs=True)

    assert path == place.folder / "x_00001_.mp4" and is_video(path)
    assert sorted(os.listdir(place.folder)) == ["x_00001_", "x_00001_.mp4"]
    assert len(os.listdir(place.folder / "x_00001_")) == FRAMES


@pytest.mark.parametrize("pngs", [False, True])
def test_a_file_that_appears_while_frames_are_decoded_stays(place, links, pngs):
    other = place.folder / "x_00001_.mp4"

    path = save_video(place, while_decoding(lambda: other.write_bytes(b"other")), Encoding(), pngs=pngs)

    assert other.read_bytes() == b"other"
    assert path == place.folder / "x_00002_.mp4" and is_video(path)
    expected = ["x_00001_.mp4", *["x_00002_"] * pngs, "x_00002_.mp4"]
    assert sorted(os.listdir(place.folder)) == expected, "video and pictures share a number"


@pytest.mark.parametrize("inside", [(), ("frame_00001.png",)])
def test_so_does_a_folder_even_an_empty_one(place, links, inside):
    other = place.folder / "x_00001_"

    def appear() -> None:
        other.mkdir()
        for name in inside:
            (other / name).write_bytes(b"other")

    path = save_video(place, while_decoding(appear), Encoding(), pngs=True)

    assert [file.read_bytes() for file in other.iterdir()] == [b"other"] * len(inside)
    assert path == place.folder / "x_00002_.mp4" and is_video(path)
    assert len(os.listdir(place.folder / "x_00002_")) == FRAMES


def test_so_does_a_link_that_leads_nowhere(place, links):
    link = place.folder / "x_00001_.mp4"
    link.symlink_to(place.folder / "gone")

    assert save_video(place, footage(), Encoding()).name == "x_00002_.mp4"
    assert link.is_symlink() and not link.exists()


def test_so_does_a_file_put_into_a_folder_just_made(place, monkeypatch):
    """Between making the folder and renaming ours to it, which replaces empty folders only."""
    make = Path.mkdir

    def busy(path: Path, *args, **options) -> None:
        make(path, *args, **options)
        if path.name == "x_00001_":
            (path / "note").write_bytes(b"other")

    monkeypatch.setattr(Path, "mkdir", busy)

    path = save_video(place, footage(), Encoding(), pngs=True)

    assert (place.folder / "x_00001_" / "note").read_bytes() == b"other"
    assert path.name == "x_00002_.mp4" and len(os.listdir(place.folder / "x_00002_")) == FRAMES


@pytest.mark.parametrize("pngs", [False, True])
def test_two_that_are_saved_at_once_get_a_number_each(place, links, pngs):
    together, saved = threading.Barrier(4), []

    def save() -> None:
        saved.append(save_video(place, while_decoding(together.wait), Encoding(), pngs=pngs))

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(saved)) == 4 and all(map(is_video, saved))
    assert len(os.listdir(place.folder)) == 4 * (1 + pngs)


NAMES = st.sampled_from([f"x_{number:05}_{end}" for number in range(1, 5) for end in ("", ".mp4", ".mp~", ".png")] + ["x"])
ENTRIES = st.dictionaries(NAMES, st.sampled_from([b"", b"other", None]), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ENTRIES, meanwhile=ENTRIES, pngs=st.booleans())
def test_whatever_is_in_the_folder_is_there_afterwards(tmp_path, links, before, meanwhile, pngs):
    folder = tmp_path / "folder"
    folder.mkdir()

    def appear(entries) -> None:
        for name, content in entries.items():
            path = folder / name
            if not path.exists():
                path.mkdir() if content is None else path.write_bytes(content)

    appear(before)
    found = {}

    def while_it_is_decoded() -> None:
        appear(meanwhile)
        found.update({name: content for name, content in contents(folder).items() if not name.startswith(".")})

    path = save_video(Numbered(folder, "x"), while_decoding(while_it_is_decoded), Encoding(), pngs=pngs)

    after = contents(folder)
    assert {name: after[name] for name in found} == found
    assert is_video(path) and path.name not in found
    made = {name.partition("/")[0] for name in after.keys() - found.keys()}
    assert made == ({path.name, path.stem} if pngs else {path.name})
    shutil.rmtree(folder)


def test_pictures_are_saved_where_no_folder_can_be_replaced_not_even_an_empty_one(place, monkeypatch):
    """Some disks in a network refuse."""
    rename = os.rename

    def refuse(old: Path, new: Path) -> None:
        if new.exists():
            raise FileExistsError(errno.EEXIST, "File exists")
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    other = place.folder / "x_00001_"

    path = save_video(place, while_decoding(other.mkdir), Encoding(), pngs=True)

    assert path.name == "x_00002_.mp4" and len(os.listdir(path.with_suffix(""))) == FRAMES
    assert os.listdir(other) == []


# Complete or not at all


def test_while_it_is_written_nothing_has_its_name(place):
    seen = []

    path = save_video(place, while_decoding(lambda: seen.extend(os.listdir(place.folder))), Encoding(), pngs=True)

    assert len(seen) == 2 and all(name.startswith(".") and name.endswith(".part") for name in seen)
    assert sorted(os.listdir(place.folder)) == [path.stem, path.name]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_video_that_failed(place, failure):
    def fail() -> None:
        raise failure

    with pytest.raises(failure):
        save_video(place, while_decoding(fail), Encoding(), pngs=True)

    assert os.listdir(place.folder) == []


@pytest.mark.parametrize("call", ["rename", "replace"])
def test_nor_of_one_that_could_not_be_renamed(place, monkeypatch, call):
    def refuse(*paths) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, call, refuse)

    with pytest.raises(OSError, match="was not written"):
        save_video(place, footage(), Encoding(), pngs=call == "rename")

    assert os.listdir(place.folder) == []


def test_no_folder_stays_without_its_video(place, monkeypatch):
    """The pictures have their name already when the video's cannot be given."""

    def refuse(*paths) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)

    with pytest.raises(OSError, match="Input/output error"):
        save_video(place, footage(), Encoding(), pngs=True)

    assert os.listdir(place.folder) == []


FULL = """
import resource, sys
from pathlib import Path
import torch
from framepack_core.media.saving import Numbered, save_video
from framepack_core.media.video import Encoding, Footage
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
frames = torch.rand(40, 64, 64, 3)
try:
    save_video(Numbered(Path(sys.argv[1]), "x"), Footage.of(frames), Encoding(crf=0))
except OSError as error:
    sys.exit(str(error))
"""


def test_a_file_that_may_not_grow_further_is_an_error_and_not_a_video(tmp_path):
    """A limit on file sizes stands in for a full disk."""
    process = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)

    assert f"{tmp_path / 'x_00001_.mp4'} was not written (File too large)" in process.stderr
    assert os.listdir(tmp_path) == []


# What can be known is known before the first frame


@pytest.mark.parametrize("name", [244 * "a", 81 * "写" + "a"], ids=["letters", "Chinese"])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    """255 bytes with `_00001_.mp4`."""
    path = save_video(Numbered(tmp_path, name), footage(), Encoding(), pngs=True)

    assert len(os.fsencode(path.name)) == 255
    assert is_video(path) and path.with_suffix("").is_dir()


@pytest.mark.parametrize("name", [245 * "a", 82 * "写", 1000 * "a"], ids=["letters", "Chinese", "far too long"])
def test_a_longer_one_is_refused(tmp_path, name):
    with pytest.raises(OSError, match=r"was not written \(File name too long\); choose a shorter name .*filename_prefix"):
        save_video(Numbered(tmp_path, name), unseen(), Encoding())

    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match=r"gone.x_00001_\.mp4 was not written \(No such file or directory\); .*make it"):
        save_video(Numbered(tmp_path / "gone", "x"), unseen(), Encoding())


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="a file has the name of that folder"):
        save_video(Numbered(tmp_path / "file", "x"), unseen(), Encoding())


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("pngs", "enough"), [(False, 20_000), (True, 210_000)])
def test_a_disk_that_is_certainly_too_small(place, monkeypatch, pngs, enough):
    """The workflow is in every picture."""
    free = enough // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - free, free))
    workflow = {"prompt": 19_000 * "x"}

    with pytest.raises(OSError, match=r"MB are needed, .* MB are free\); free disk space"):
        save_video(place, unseen(), Encoding(), metadata=workflow, pngs=pngs)
    assert os.listdir(place.folder) == []

    free = enough
    assert is_video(save_video(place, footage(), Encoding(), metadata=workflow, pngs=pngs))


def test_a_disk_that_says_nothing_of_itself_is_tried(place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 0))

    assert is_video(save_video(place, footage(), Encoding()))


def test_no_video_takes_less_than_is_asked_for(place):
    """Black pictures are the smallest."""
    save_video(place, footage(), Encoding(crf=51), pngs=True)

    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) > least_bytes(footage(), {}, pngs=True)


# The graph in the tags


def test_the_graph_is_in_the_file_and_in_every_picture(place):
    graph = {"prompt": {"1": {"class_type": "Größe"}}, "workflow": {"nodes": []}}

    path = save_video(place, footage(), Encoding(), metadata=graph, pngs=True)

    with av.open(str(path)) as container:
        assert {name: json.loads(container.metadata[name]) for name in graph} == graph
    for picture in path.with_suffix("").iterdir():
        assert {name: json.loads(text) for name, text in Image.open(picture).text.items()} == graph


def test_what_json_does_not_know_stops_nothing(place):
    graph = {"prompt": {"1": {"inputs": {"a": {1, 2}, "b": torch.float32, (1, 2): "left out"}}}}

    path = save_video(place, footage(), Encoding(), metadata=graph)

    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"]) == {"1": {"inputs": {"a": "{1, 2}", "b": "torch.float32"}}}


def test_a_graph_that_contains_itself_is_refused(place):
    graph: dict = {}
    graph["prompt"] = graph

    with pytest.raises(ValueError, match=r"the workflow cannot be stored .*--disable-metadata"):
        save_video(place, unseen(), Encoding(), metadata=graph)
