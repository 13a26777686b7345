"""Where finished sections are kept, for how long, and what the user is told about it. No failure here ends a run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ...filling import Section
from ...store.identity import Identity
from ...store.kept import Damaged, Run
from ...store.pruning import Limits, oldest_first, prune
from ..settings import front_end_settings

log = logging.getLogger("framepack")

SETTINGS = {"gigabytes": "FramePack.CheckpointGB", "days": "FramePack.CheckpointDays"}  # web/settings.js has the same
VARIABLES = {"gigabytes": "FRAMEPACK_CHECKPOINT_GB", "days": "FRAMEPACK_CHECKPOINT_DAYS"}


class KeptSections:
    """Finished sections of one run: gives those of an earlier run, and writes each new one.

    `keys(name)` are the keys of the sections in a run of this name, `latents(number)` those of a section that is finished, and
    `note` receives lines for the user. A failed read or write is reported once, and sampling continues without it.

        kept = KeptSections(identity, keys, latents, note)
        for section, latents in generate(sections, timeline, denoise, seed, kept.restored()):
            kept.add(section)
    """

    def __init__(
        self,
        identity: Identity,
        keys: Callable[[str], Sequence[str]],
        latents: Callable[[int], Tensor],
        note: Callable[[str], None],
    ) -> None:
        self.identity = identity
        self.keys = keys
        self.latents = latents
        self.note = note
        self.run = Run(folder() / identity.name, keys(identity.name))
        self.limits = limits()
        self.writing = self.limits.gigabytes > 0
        self.failed = False  # the last write
        self._prune()

    def restored(self) -> Iterator[Tensor]:
        """The latents of the sections that an earlier run has finished, each read when it is asked for."""
        if not self.writing:
            return
        try:
            yield from self.run.read()
        except Damaged as error:
            self._warn(f"a finished section was damaged and is made again: {error}")
        except OSError as error:
            self._warn(f"finished sections cannot be read: {error}; they are made again")
        if self.run.finished:
            last = spelled_time(self.run.finished[-1].time)
            self.note(f"resumed: {len(self.run.finished)} of {len(self.run.keys)} sections from {last}")
        else:
            self._explain()

    def add(self, section: Section) -> None:
        """A section is finished: write it, and those before it whose writing has failed, unless they are on disk already."""
        if not self.writing:
            return
        try:
            for number in range(len(self.run.finished), section.number + 1):
                self.run.add(self.latents(number))
        except OSError as error:
            if not self.failed:
                self._warn(f"finished sections cannot be kept in {folder()}: {error.strerror or error}; sampling continues, "
                           "and the next section tries again")  # fmt: skip
            self.failed = True
            return
        if self.failed:
            self._warn("finished sections are kept again, with those that were missing")
        self.failed = False
        with suppress(OSError):
            self.identity.write(self.run.folder)

    def _explain(self) -> None:
        """Say so if there are sections of a run that differs only in what the user has not chosen."""
        with suppress(OSError):
            for run in reversed(oldest_first(folder())):
                if line := self._difference(run):
                    return self.note(line)

    def _difference(self, run: Path) -> str | None:
        try:
            differences = self.identity.differences(Identity.read(run))
        except Exception as error:  # whatever a damaged file may lead to: an explanation is not worth a run
            log.debug("FramePack: %s does not say what it is made of (%s)", run, error)
            return None
        files = Run(run, self.keys(run.name)).files() if differences else []
        if not files:
            return None
        found = f"{len(files)} finished section{'s' * (len(files) > 1)} from {spelled_time(files[-1].stat().st_mtime)}"
        return f"{found} cannot be used, because {'; '.join(differences)}"

    def _prune(self) -> None:
        try:
            stayed = prune(folder(), self.limits, keep=self.run.folder if self.writing else None)
        except OSError as error:
            self._warn(f"old finished sections cannot be removed: {error}")
        else:
            if stayed:
                self._warn(f"old finished sections cannot be removed: {stayed[0]}")

    def _warn(self, line: str) -> None:
        log.warning("FramePack: %s", line)
        self.note(line)


def spelled_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def folder() -> Path:
    """ComfyUI's place for the data of extensions: it survives a restart and, unlike results, is neither listed nor served."""
    return Path(folder_paths.get_system_user_directory("framepack")) / "sections"


def limits() -> Limits:
    """Environment variables come first, then the front end's settings, then the defaults."""
    settings = front_end_settings()
    given = {name: os.environ.get(VARIABLES[name], settings.get(SETTINGS[name])) for name in SETTINGS}
    return Limits(**{name: _amount(name, value) for name, value in given.items() if value is not None})


def _amount(name: str, value: Any) -> float:
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = -1.0
    if amount >= 0:
        return amount
    default = getattr(Limits(), name)
    log.warning("FramePack: %s is %r, expected a number of 0 or more; using %g", VARIABLES[name], value, default)
    return default
