"""Which of the three released Helios checkpoints a file is: nothing in the weights tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

VARIANTS = ("base", "mid", "distilled")
AUTO = "auto"
KEY = "helios.variant"  # safetensors header entry, one of VARIANTS

_WORD = re.compile(r"(?<![a-z])(base|mid|distill(?:ed)?)(?![a-z])", re.IGNORECASE)
_FOLDERS = 2  # above a file or a sharded folder, as in Helios-Mid/transformer


def variant_of(chosen: str, metadata: Mapping[str, str], path: Path) -> str | None:
    """The variant that is chosen, or else what the header or the file's name says; None if nothing tells.

    Of the folders above the file, only names with `helios` in them count. Raises ValueError for another choice.
    """
    if chosen != AUTO:
        if chosen not in VARIANTS:
            raise ValueError(f"variant is {chosen!r}; choose one of {', '.join((AUTO, *VARIANTS))}")
        return chosen
    if metadata.get(KEY) in VARIANTS:
        return metadata[KEY]
    folders = [folder.name for folder in list(path.parents)[:_FOLDERS] if "helios" in folder.name.lower()]
    for name in (path.name, *folders):
        if words := _WORD.findall(name):
            return "distilled" if words[-1].lower().startswith("distill") else words[-1].lower()
    return None
