"""Finished sections on disk, so that a stopped run can continue from where it was.

A run is a folder named after everything that decides its result except the plan; each section in it is a safetensors file
named after its integers, its sigmas and the sections before it. So a longer forward plan finds the files of a shorter one,
and no run finds files that do not belong to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..media.files import make_folder, whole_file
from ..plan import Section
from .digest import digest

FORMAT = 1
LATENTS = "latents"  # the one tensor of a file


class Damaged(ValueError):
    """A file's content is not what was written."""


@dataclass(frozen=True)
class Finished:
    """A section's latents `B C T H W`, when they were finished (seconds since 1970), and a digest of them, of everything that
    decides them, and of the sections before."""

    latents: Tensor
    time: float
    link: str


class Run:
    """The finished sections of one run, in sampling order from the first.

        run = Run(folder, section_keys(identity, sections, sigmas))
        run.read()
        run.add(latents)  # of section len(run.finished)

    A file is only valid together with those before it, which it identifies by their content.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder = folder
        self.keys = keys
        self.finished: list[Finished] = []

    def read(self) -> None:
        """Read the sections up to the first that is missing or was made after others than these.

        Raises Damaged, keeping the sections before and removing the file, and OSError if something cannot be read.
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
        """Write the next section, whole or not at all. Once this returns it survives a power cut. Raises OSError."""
        section = write_section(self._path(), self.keys[len(self.finished)], self._last_link(), latents)
        self.finished.append(section)

    def _path(self) -> Path:
        """The next section's file."""
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
    make_folder(path.parent)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(save({LATENTS: latents}, metadata))
    return section


def read_section(path: Path, key: str, after: str) -> Finished | None:
    """The section in a file; None if it was made after other sections than these. Raises Damaged, OSError."""
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
