"""The one writer of whole files: complete under their name or not there at all, even if the power goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write to. It takes that name when the block ends well and is removed otherwise.

    Raises OSError, at once where `path` has no folder.

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
    """The same for a folder, which must not be there when the block ends.

    Processes that fill one folder together give the same `mark`: then `beside(path, mark)` is where each of them writes.
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
    """The hidden name of an unfinished file or folder; a process has its own unless there is a `mark`."""
    return path.with_name(f".{path.name}.{mark or os.getpid()}.part")


def make_folder(folder: Path) -> None:
    """A folder for whole files that is still there after a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_file(file: Path) -> None:
    """Have the disk hold what was written."""
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder's names. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
