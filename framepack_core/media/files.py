"""The one writer of whole files: each is complete under its name or not there at all, even after a power cut."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write to. It is renamed to `path` if the block succeeds and removed otherwise.

    Raises OSError, at once if the folder of `path` does not exist.

        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    """
    unfinished = beside(path)
    unfinished.touch()
    try:
        yield unfinished
        sync_file(unfinished)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def whole_folder(path: Path, mark: str | None = None) -> Iterator[Path]:
    """The same for a folder, which must not exist yet when the block ends.

    Processes that fill one folder together pass the same `mark` and all write to `beside(path, mark)`.
    """
    unfinished = beside(path, mark)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                sync_file(file)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def beside(path: Path, mark: str | None = None) -> Path:
    """The hidden name of an unfinished file or folder; each process has its own unless there is a `mark`."""
    return path.with_name(f".{path.name}.{mark or os.getpid()}.part")


def make_folder(folder: Path) -> None:
    """Make a folder for whole files that is still there after a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_file(file: Path) -> None:
    """Make sure that the file's content has reached the disk."""
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder have reached the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
