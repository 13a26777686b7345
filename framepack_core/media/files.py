"""The one writer of whole files: each is complete under its name or not there at all, even after a power cut."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

WAITS = tuple(0.02 * 2**number for number in range(8))  # seconds between attempts, five in all


@contextmanager
def whole_file(path: Path, replace: bool = True) -> Iterator[Path]:
    """A hidden path beside `path` to write to. It is renamed to `path` if the block succeeds and removed otherwise.

    Raises OSError, at once if the folder of `path` does not exist. Without `replace`, FileExistsError if the name is taken.

        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    """
    with unfinished_file(path.parent) as unfinished:
        yield unfinished
        sync_files(unfinished)
        when_unlocked(lambda: (os.replace if replace else rename_new)(unfinished, path))
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """The same for a folder, which must not exist yet when the block ends.

    Processes that fill one folder together pass the same `mark` and all write to `beside(path, mark)`.
    """
    shutil.rmtree(beside(path, mark), ignore_errors=True)
    with _made_folder(beside(path, mark)) as unfinished:
        yield unfinished
        sync_files(unfinished)
        when_unlocked(lambda: os.replace(unfinished, path))
        sync_folder(path.parent)


def beside(path: Path, mark: str) -> Path:
    """The hidden name of an unfinished folder that several processes fill; short, however long the name of `path` is."""
    return path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:12]}.{mark}.part")


@contextmanager
def unfinished_file(folder: Path) -> Iterator[Path]:
    """An empty file in `folder` with a short hidden name that no other has. What still has that name at the end is removed."""
    file = folder / _hidden_name()
    file.touch(exist_ok=False)
    try:
        yield file
    finally:
        with suppress(OSError):
            file.unlink()


def unfinished_folder(folder: Path) -> AbstractContextManager[Path]:
    """The same for a folder in `folder`."""
    return _made_folder(folder / _hidden_name())


@contextmanager
def _made_folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _hidden_name() -> str:
    return f".{secrets.token_hex(6)}.part"


@dataclass(frozen=True)
class Numbered:
    """Where a result goes: `NAME_00001_` in `folder`, or the first number after it that is free when it is complete."""

    folder: Path
    name: str
    first: int = 1

    def paths(self, suffix: str = "") -> Iterator[Path]:
        return (self.folder / f"{self.name}_{number:05}_{suffix}" for number in itertools.count(self.first))


def name_first_free(unfinished: Sequence[Path], names: Iterable[Sequence[Path]]) -> Sequence[Path]:
    """Rename finished files and folders to the first of `names` that are all free, and return these.

    Whatever has a name keeps it, whoever made it and when: nothing is replaced. Raises OSError.

        name_first_free([video, pictures], ([Path(f"{number}.mp4"), Path(f"{number}")] for number in count(1)))
    """
    for path in unfinished:
        sync_files(path)
    for paths in names:
        with suppress(FileExistsError):
            _rename_all(unfinished, paths)
            sync_folder(paths[0].parent)
            return paths
    raise FileExistsError(errno.EEXIST, "all names are taken")


def _rename_all(unfinished: Sequence[Path], paths: Sequence[Path]) -> None:
    """All or none. Raises FileExistsError if one of the names is taken."""
    with ExitStack() as undo:
        for old, new in zip(unfinished, paths, strict=True):
            when_unlocked(partial(rename_new, old, new))
            undo.callback(when_unlocked, partial(os.rename, new, old))
        undo.pop_all()


def rename_new(old: Path, new: Path) -> None:
    """Rename a file or folder of ours. Raises FileExistsError, and changes nothing, if there is something of the new name."""
    if os.name == "nt":
        os.rename(old, new)  # Windows itself refuses to replace
    elif old.is_dir():
        _claim_folder(old, new)
    else:
        _claim_file(old, new)


def _claim_file(old: Path, new: Path) -> None:
    """Without hard links, an empty file has the name for a moment."""
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system; if anything else is wrong, it shows again
        new.touch(exist_ok=False)
        try:
            os.replace(old, new)
        except BaseException:
            new.unlink()
            raise
    else:
        old.unlink()


def _claim_folder(old: Path, new: Path) -> None:
    new.mkdir()
    try:
        os.rename(old, new)  # which replaces empty folders only
    except OSError:  # somebody has put something there, or the file system does not replace empty folders either
        _remove_empty(new)
        os.rename(old, new)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error


def require_name(path: Path) -> None:
    """Raises OSError if no file of this name can be made here, because it is too long for instance.

    It is tried with a name of the same length, so that nothing has the name itself before it is complete.
    """
    probe = path.with_name(path.name[:-1] + "~")
    with suppress(FileExistsError):
        probe.touch(exist_ok=False)
        when_unlocked(probe.unlink)


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


def sync_files(path: Path) -> None:
    """The same for a file, or for all files in a folder, as soon as nobody else has them open."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            when_unlocked(partial(sync_file, file))


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder have reached the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
