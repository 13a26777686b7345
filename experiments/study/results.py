"""Results on disk: one JSON object per line, appended as they arrive, so that a killed run can continue."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

DIGITS = 5  # significant digits that are kept


class Results:
    """The records for one set of weights, by key: a dict of plain values that says what was made."""

    def __init__(self, path: Path, weights: str) -> None:
        self.path, self.weights = path, weights
        self._records = {_key(record["made"]): record["found"] for record in self._read() if record["weights"] == weights}

    def __contains__(self, made: dict) -> bool:
        return _key(made) in self._records

    def __getitem__(self, made: dict) -> dict:
        return self._records[_key(made)]

    def items(self) -> Iterator[tuple[dict, dict]]:
        return ((json.loads(key), found) for key, found in self._records.items())

    def add(self, pairs: Iterable[tuple[dict, dict]]) -> None:
        """Append (made, found) pairs; they are on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rounded = [(made, rounded_values(found)) for made, found in pairs]
        with self.path.open("a", encoding="utf-8") as file:
            for made, found in rounded:
                file.write(json.dumps({"weights": self.weights, "made": made, "found": found}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._records |= {_key(made): found for made, found in rounded}

    def _read(self) -> Iterator[dict]:
        """The complete lines; a killed run may have left half a line at the end, which is cut off."""
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        whole = text.rfind("\n") + 1
        if whole < len(text):
            os.truncate(self.path, len(text[:whole].encode()))
        for number, line in enumerate(text[:whole].splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number} is not a result ({error}); delete the line") from error


def rounded_values(value):
    """Floats rounded to `DIGITS` significant digits, with None for NaN and infinity, also within lists and dicts."""
    if isinstance(value, dict):
        return {name: rounded_values(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded_values(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _key(made: dict) -> str:
    return json.dumps(made, sort_keys=True)
