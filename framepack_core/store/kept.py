"""Finished sections on disk, so that a stopped run can continue from where it was.

A run is a folder named after everything that decides its result except the plan; each section in it is a safetensors file
named after its integers, its sigmas and the sections before it. So a longer forward plan finds the files of a shorter one,
and no run finds files that do not belong to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..filling import Section
from ..media.files import make_folder, whole_file
from ..timeline import is_finite
from .digest import digest

FORMAT = 1
LATENTS = "latents"  # the one tensor of a file


class Damaged(ValueError):
    """A file's content is not what was written."""


@dataclass(frozen=True)
class Finished:
    """When a section was finished (seconds since 1970), and a digest of its latents, of everything that decides them, and of
    the sections before."""

    time: float
    link: str


class Run:
    """The finished sections of one run, in sampling order from the first.

        run = Run(folder, section_keys(identity, sections, sigmas))
        for latents in run.read():
            use(latents)
        run.add(latents)  # of section len(run.finished)

    A file is only valid together with those before it, which it identifies by their content.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder = folder
        self.keys = keys
        self.finished: list[Finished] = []

    def read(self) -> Iterator[Tensor]:
        """The latents `B C T H W` of the sections up to the first that is missing or was made after others than these; each is
        read when it is asked for.

        Raises Damaged, after the sections before, when it has removed the file, and OSError if something cannot be read.
        """
        if not self.folder.is_dir():
            return
        with suppress(OSError):
            os.utime(self.folder)  # pruning goes by the last use
        while (latents := self._read_next()) is not None:
            yield latents
            del latents  # before the next ones are read

    def add(self, latents: Tensor) -> None:
        """Write the next section, whole or not at all. Once this returns it survives a power cut. Raises OSError."""
        number = len(self.finished)
        section = write_section(self._path(number), self.keys[number], self._last_link(), latents)
        self.finished.append(section)

    def files(self) -> list[Path]:
        """The files from the first section to the one before the first that is missing, whatever is in them."""
        return list(takewhile(Path.exists, map(self._path, range(len(self.keys)))))

    def _read_next(self) -> Tensor | None:
        number = len(self.finished)
        if number == len(self.keys) or not self._path(number).exists():
            return None
        try:
            found = read_section(self._path(number), self.keys[number], self._last_link())
        except Damaged:
            with suppress(OSError):
                self._path(number).unlink()
            raise
        if found is None:
            return None
        section, latents = found
        self.finished.append(section)
        return latents

    def _path(self, number: int) -> Path:
        return self.folder / f"{number + 1:04d}-{self.keys[number][:16]}.safetensors"

    def _last_link(self) -> str:
        return self.finished[-1].link if self.finished else ""


def section_keys(
    identity: str, sections: Sequence[Section], sigmas: Sequence[Tensor], own: Mapping[int, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """What decides each section: `identity`, its integers, its sigmas, and everything that decides the one before.

    `own` are digests of what else decides single sections, by their numbers, and is no part of the identity.
    """
    keys, key = [], digest((FORMAT, identity))
    for section, schedule in zip(sections, sigmas, strict=True):
        key = digest((key, section, schedule, *(own or {}).get(section.number, ())))
        keys.append(key)
    return tuple(keys)


def write_section(path: Path, key: str, after: str, latents: Tensor) -> Finished:
    """`after` is the link of the section before. Raises OSError."""
    latents, now = latents.detach().cpu().contiguous(), time.time()
    section = Finished(now, digest((key, after, latents)))
    metadata = {"key": key, "after": after, "time": repr(now), "checksum": digest((section.link, now))}
    make_folder(path.parent)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(save({LATENTS: latents}, metadata))
    return section


def read_section(path: Path, key: str, after: str) -> tuple[Finished, Tensor] | None:
    """The section in a file and its latents; None if it was made after other sections than these. Raises Damaged, OSError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata, latents = file.metadata(), file.get_tensor(LATENTS)
        section = Finished(float(metadata["time"]), digest((key, metadata["after"], latents)))
        whole = metadata["checksum"] == digest((section.link, section.time))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read ({error})") from error
    if not whole:
        raise Damaged(f"{path.name} does not match its checksum")
    if not is_finite(latents):
        raise Damaged(f"{path.name} has values that are not finite")
    return (section, latents) if metadata["after"] == after else None
