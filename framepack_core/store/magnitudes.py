"""Tables for MagCache that were measured here: a file for each checkpoint, found again by what is in the checkpoint.

write(folder, checkpoint, table)
table = read(folder, checkpoint)  # None if nothing was measured
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from itertools import pairwise
from pathlib import Path

from ..caching import Table
from ..media.files import whole_file

PIECES, PIECE = 64, 4096  # of a file, spread evenly, and how many bytes of each count


def fingerprint(checkpoint: Path) -> str:
    """A digest of a file, or of the files in a folder: their sizes and pieces from all over them, so that little is read."""
    sha = hashlib.sha256()
    for file in sorted(path for path in checkpoint.iterdir() if path.is_file()) if checkpoint.is_dir() else [checkpoint]:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            sha.update(f"{size}:".encode())
            for number in range(PIECES):
                opened.seek(max(size - PIECE, 0) * number // (PIECES - 1))
                sha.update(opened.read(PIECE))
    return sha.hexdigest()


def read(folder: Path, checkpoint: Path) -> Table | None:
    """A checkpoint's table. Raises ValueError for a file that does not hold it."""
    weights = fingerprint(checkpoint)
    path = _file(folder, weights)
    if not path.is_file():
        return None
    remedy = "delete the file and measure the checkpoint again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, table = content["weights"], Table(*(tuple(map(float, content[name])) for name in ("levels", "ratios")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no table of magnitudes ({type(error).__name__}: {error}); {remedy}") from error
    if found != weights:
        raise ValueError(f"{path} was measured with {content.get('checkpoint')}, not with {checkpoint.name}; {remedy}")
    if not table.ratios or not all(0 < ratio < math.inf for ratio in table.ratios):
        raise ValueError(f"{path} has ratios that are no positive numbers; {remedy}")
    if len(table.levels) != len(table.ratios) or not all(before > after > 0 for before, after in pairwise(table.levels)):
        raise ValueError(f"{path} has noise levels that do not go down, or not one for each ratio; {remedy}")
    return table


def write(folder: Path, checkpoint: Path, table: Table) -> None:
    """Keep a checkpoint's table, in place of the one it has."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = fingerprint(checkpoint)
    content = {
        "checkpoint": checkpoint.name,
        "weights": weights,
        "levels": table.levels,
        "ratios": [round(ratio, 5) for ratio in table.ratios],
    }
    with whole_file(_file(folder, weights)) as unfinished:
        unfinished.write_text(json.dumps(content), encoding="utf-8")


def state(folder: Path) -> list[tuple[str, int]]:
    """Something that changes whenever a table does."""
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob("*.json"))


def _file(folder: Path, weights: str) -> Path:
    return folder / f"{weights[:16]}.json"
