"""Finished sections on disk, so that a run that was stopped goes on where it was.

A run is a folder. It is named after all that decides its result except the plan; each section in it is a safetensors file
named after its integers, its sigmas and the sections before it. So a longer forward plan finds the files of a shorter one,
and nothing else finds what it should not.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .plan import Section

FORMAT = 1
LATENTS = "latents"  # the one tensor of a file
DAY, GIGABYTE = 86400, 10**9


class Damaged(ValueError):
    """A file that is not what was written."""


@dataclass(frozen=True)
class Finished:
    """A section's latents `B C T H W`, when they were finished (seconds since 1970), and a digest of them, of all that
    decides them and of the sections before."""

    latents: Tensor
    time: float
    link: str


class Run:
    """The finished sections of one run, from the first in sampling order on.

        run = Run(folder, section_keys(identity, sections, sigmas))
        run.read()
        run.add(latents)  # of section len(run.finished)

    A file counts only together with those before it, which it names by their content.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder = folder
        self.keys = keys
        self.finished: list[Finished] = []

    def read(self) -> None:
        """Take what is there, up to the first section that is missing or was made from other ones than these.

        Raises Damaged, with the sections before it taken and the file removed; OSError for what cannot be read.
        """
        if not self.folder.is_dir():
            return
        with suppress(OSError):
            os.utime(self.folder)  # pruning goes by the last use
        while len(self.finished) < len(self.keys):
            path = self._path()
            if not path.exists():
                return
            try:
                section = read_section(path, self.keys[len(self.finished)], self._last_link())
            except Damaged:
                with suppress(OSError):
                    path.unlink()
                raise
            if section is None:
                return
            self.finished.append(section)

    def add(self, latents: Tensor) -> None:
        """Write the next section, whole or not at all, safe against a power cut on return. Raises OSError."""
        section = write_section(self._path(), self.keys[len(self.finished)], self._last_link(), latents)
        self.finished.append(section)

    def _path(self) -> Path:
        """Where the next section is."""
        number = len(self.finished)
        return self.folder / f"{number + 1:04d}-{self.keys[number][:16]}.safetensors"

    def _last_link(self) -> str:
        return self.finished[-1].link if self.finished else ""


def section_keys(identity: str, sections: Sequence[Section], sigmas: Sequence[Tensor]) -> tuple[str, ...]:
    """What decides each section: `identity`, its integers, its sigmas, and everything that decides the one before."""
    keys, key = [], digest((FORMAT, identity))
    for section, schedule in zip(sections, sigmas, strict=True):
        key = digest((key, section, schedule))
        keys.append(key)
    return tuple(keys)


def write_section(path: Path, key: str, after: str, latents: Tensor) -> Finished:
    """`after` is the link of the section before. Raises OSError."""
    latents, now = latents.detach().cpu().contiguous(), time.time()
    section = Finished(latents, now, digest((key, after, latents)))
    metadata = {"key": key, "after": after, "time": repr(now), "checksum": digest((section.link, now))}
    try:
        write_whole(path, save({LATENTS: latents}, metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return section


def read_section(path: Path, key: str, after: str) -> Finished | None:
    """The section of a file; None when it was made after other sections than these. Raises Damaged, OSError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata, latents = file.metadata(), file.get_tensor(LATENTS)
        section = Finished(latents, float(metadata["time"]), digest((key, metadata["after"], latents)))
        whole = metadata["checksum"] == digest((section.link, section.time))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read ({error})") from error
    if not whole:
        raise Damaged(f"{path.name} does not match its checksum")
    return section if metadata["after"] == after else None


def write_whole(path: Path, content: bytes) -> None:
    """The file has all of the content or is not there, even if the power goes."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder's names. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Limits:
    """How much is kept, and how long after its last use; 0 gigabytes: nothing."""

    gigabytes: float = 10.0
    days: float = 30.0


def prune(runs: Path, limits: Limits, keep: Path | None = None) -> list[Path]:
    """Remove runs that are too old, then the oldest until the rest fits; never `keep`. Gives those that would not go."""
    folders = sorted(_folders(runs), key=_last_use)
    sizes = {folder: _size(folder) for folder in folders}
    total = sum(sizes.values())
    stayed = []
    for folder in folders:
        too_old = time.time() - _last_use(folder) > limits.days * DAY
        if folder != keep and (too_old or total > limits.gigabytes * GIGABYTE):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                stayed.append(folder)
            else:
                total -= sizes[folder]
    return stayed


def digest(value: object) -> str:
    """SHA-256 of plain data, the same in every process: numbers, strings, tensors, and lists, mappings and dataclasses of
    them. A function counts as its name and any other object as its class: which one it is must be said otherwise."""
    match value:
        case Tensor():
            return _sha256("tensor", str(value.dtype), str(tuple(value.shape)), _content(value))
        case None | bool() | int() | float() | str() | bytes():
            return _sha256(type(value).__name__, repr(value))
        case Mapping():
            return _sha256("mapping", *sorted(digest(key) + digest(item) for key, item in value.items()))
        case list() | tuple():
            return _sha256("sequence", *map(digest, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _sha256(_name(type(value)), *(digest((field.name, getattr(value, field.name))) for field in fields(value)))
    return _sha256("object", _name(value if hasattr(value, "__qualname__") else type(value)))


def _sha256(*parts: str | bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(content)}:".encode())
        sha.update(content)
    return sha.hexdigest()


def _content(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _name(thing: object) -> str:
    """Without the package: ComfyUI names that after the folder a pack lies in."""
    return f"{getattr(thing, '__module__', '').rpartition('.')[2]}.{thing.__qualname__}"


def _folders(runs: Path) -> Iterator[Path]:
    """Runs are named by a digest; whatever else lies there is not ours."""
    if runs.is_dir():
        yield from (folder for folder in runs.iterdir() if re.fullmatch("[0-9a-f]{64}", folder.name) and folder.is_dir())


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another ComfyUI has just removed it
        return 0.0


def _size(folder: Path) -> int:
    size = 0
    with suppress(OSError):
        for path in folder.iterdir():
            size += path.stat().st_size
    return size
