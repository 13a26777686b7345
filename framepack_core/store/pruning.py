"""Removes old kept sections, so that they do not fill the disk."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DAY, GIGABYTE = 86400, 10**9


@dataclass(frozen=True)
class Limits:
    """How much is kept, and for how many days after its last use; 0 gigabytes keeps nothing."""

    gigabytes: float = 10.0
    days: float = 30.0


def prune(runs: Path, limits: Limits, keep: Path | None = None) -> list[Path]:
    """Remove runs that are too old, then the oldest until the rest fits; never `keep`. Returns those that cannot be removed."""
    folders = oldest_first(runs)
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


def oldest_first(runs: Path) -> list[Path]:
    """The folders of runs by their last use."""
    return sorted(_folders(runs), key=_last_use)


def _folders(runs: Path) -> Iterator[Path]:
    """Runs are named by a digest; any other folder is not ours."""
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
