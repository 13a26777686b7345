"""Where finished sections are kept, for how long, and what the user is told about it. No failure here ends a run."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ...plan import Section
from ...store.kept import Damaged, Run
from ...store.pruning import Limits, prune

log = logging.getLogger("framepack")

SETTINGS = {"gigabytes": "FramePack.CheckpointGB", "days": "FramePack.CheckpointDays"}  # web/settings.js has the same
VARIABLES = {"gigabytes": "FRAMEPACK_CHECKPOINT_GB", "days": "FRAMEPACK_CHECKPOINT_DAYS"}


class KeptSections:
    """Finished sections of one run: reads those of an earlier run, and writes each new one.

    `note` receives lines for the user. A failed read or write is reported once, and sampling continues without it.
    """

    def __init__(self, identity: str, keys: Sequence[str], note: Callable[[str], None]) -> None:
        self.note = note
        self.run = Run(folder() / identity, keys)
        self.limits = limits()
        self.writing = self.limits.gigabytes > 0
        self._prune()
        if self.writing:
            self._read()

    @property
    def latents(self) -> list[Tensor]:
        return [section.latents for section in self.run.finished]

    def add(self, section: Section, latents: Tensor) -> None:
        """Write a section, unless it is on disk already."""
        if not self.writing or section.number < len(self.run.finished):
            return
        try:
            self.run.add(latents)
        except OSError as error:
            self.writing = False
            self._warn(f"finished sections are no longer kept in {folder()}: {error.strerror or error}; sampling continues")

    def _read(self) -> None:
        try:
            self.run.read()
        except Damaged as error:
            self._warn(f"a finished section was damaged and is made again: {error}")
        except OSError as error:
            self._warn(f"finished sections cannot be read: {error}; they are made again")
        if self.run.finished:
            last = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.run.finished[-1].time))
            self.note(f"resumed: {len(self.run.finished)} of {len(self.run.keys)} sections from {last}")

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


def folder() -> Path:
    """ComfyUI's place for the data of extensions: it survives a restart and, unlike results, is neither listed nor served."""
    return Path(folder_paths.get_system_user_directory("framepack")) / "sections"


def limits() -> Limits:
    """Environment variables come first, then the front end's settings, then the defaults."""
    settings = front_end_settings()
    given = {name: os.environ.get(VARIABLES[name], settings.get(SETTINGS[name])) for name in SETTINGS}
    return Limits(**{name: _amount(name, value) for name, value in given.items() if value is not None})


def front_end_settings() -> dict[str, Any]:
    """Those of the default user. With --multi-user each user has their own, and only environment variables count."""
    path = Path(folder_paths.get_public_user_directory("default")) / "comfy.settings.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


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
