"""Tables for MagCache that were measured here: a file for each checkpoint, found again by what is in the checkpoint.

write(folder, checkpoint, ratios)
ratios = read(folder, checkpoint)  # None if nothing was measured
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

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


def read(folder: Path, checkpoint: Path) -> tuple[float, ...] | None:
    """The ratios of each step's magnitude to the step before. Raises ValueError for a file that does not hold them."""
    weights = fingerprint(checkpoint)
    path = _file(folder, weights)
    if not path.is_file():
        return None
    remedy = "delete the file and measure the checkpoint again"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        found, ratios = table["weights"], tuple(map(float, table["ratios"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no table of magnitudes ({type(error).__name__}: {error}); {remedy}") from error
    if found != weights:
        raise ValueError(f"{path} was measured with {table.get('checkpoint')}, not with {checkpoint.name}; {remedy}")
    if not ratios or not all(0 < ratio < math.inf for ratio in ratios):
        raise ValueError(f"{path} has ratios that are no positive numbers; {remedy}")
    return ratios


def write(folder: Path, checkpoint: Path, ratios: Sequence[float]) -> None:
    """Keep a checkpoint's ratios, in place of those it has."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = fingerprint(checkpoint)
    table = {"checkpoint": checkpoint.name, "weights": weights, "ratios": [round(ratio, 5) for ratio in ratios]}
    with whole_file(_file(folder, weights)) as unfinished:
        unfinished.write_text(json.dumps(table), encoding="utf-8")


def state(folder: Path) -> list[tuple[str, int]]:
    """Something that changes whenever a table does."""
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob("*.json"))


def _file(folder: Path, weights: str) -> Path:
    return folder / f"{weights[:16]}.json"
