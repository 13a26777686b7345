"""The one writer of whole files: each is complete under its name or not there at all, even after a power cut."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

WAITS = tuple(0.02 * 2**number for number in range(8))  # seconds between attempts, five in all


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
        when_unlocked(lambda: sync_file(unfinished))
        when_unlocked(lambda: os.replace(unfinished, path))
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
                when_unlocked(partial(sync_file, file))
        when_unlocked(lambda: os.replace(unfinished, path))
        sync_folder(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def beside(path: Path, mark: str | None = None) -> Path:
    """The hidden name of an unfinished file or folder; each process has its own unless there is a `mark`."""
    return path.with_name(f".{path.name}.{mark or os.getpid()}.part")


def when_unlocked(attempt: Callable[[], None]) -> None:
    """Try again for a few seconds while the file is locked: on Windows, virus scanners and indexers open each new file for a
    moment, in which nobody may write to it or rename it. Raises PermissionError if it stays so.

    Whoever may not write there at all has learnt it before, when the file was made, and does not wait.
    """
    for wait in WAITS:
        try:
            return attempt()
        except PermissionError:
            time.sleep(wait)
    return attempt()


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
