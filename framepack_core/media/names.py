"""What a saved file is called: dates and values of other nodes in its name, and what may not be in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from .remedies import remedy

TOKEN = re.compile(r"%([^%]+)%")
DATE = "date:"
PART_OF_A_DATE = re.compile("yyyy|yy|MM?|dd?|hh?|mm?|ss?")
UNSAFE = re.compile(r'[/\\<>:"|?*\x00-\x1f\x7f]')
DRIVE = re.compile(r"^[A-Za-z]:(?=[/\\])")
NUMBERED = "_00001_"  # what follows the prefix in the name of a file, before its suffix
REFUSED_BY_WINDOWS = '<>:"|?*'


def fill_in(prefix: str, prompt: Mapping[str, Any], now: datetime) -> str:
    """Replace %date:yyyy-MM-dd% and %Node.widget%, where a node of the API prompt is named by its type or its title.

    ComfyUI's front end does that too, but not for the widget of a subgraph, and the API has no front end. As there, a value has
    _ for what no file name may contain, and anything else between two % stays.
    """

    def replace(token: re.Match[str]) -> str:
        name = token[1]
        if name.startswith(DATE):
            return spell_date(name.removeprefix(DATE), now)
        value = _widget(prompt, *name.split(".")) if name.count(".") == 1 else None
        return token[0] if value is None else UNSAFE.sub("_", str(value))

    return TOKEN.sub(replace, prefix)


def spell_date(pattern: str, now: datetime) -> str:
    parts = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}

    def spell(part: re.Match[str]) -> str:
        letters = part[0]
        if letters[0] == "y":
            return str(now.year)[-len(letters) :]
        return str(parts[letters[0]]).zfill(len(letters))

    return PART_OF_A_DATE.sub(spell, pattern)


def check_prefix(prefix: str, output: Path, suffix: str = ".mp4", windows: bool = os.name == "nt") -> None:
    """Raise ValueError if no file in the folder `output` can be called so. Values of other nodes are taken to be fine."""
    name = TOKEN.sub("value", fill_in(prefix, {}, datetime.now()))
    refused = sorted(set(DRIVE.sub("", name)) & set(REFUSED_BY_WINDOWS)) if windows else []
    if refused:
        raise ValueError(
            f"filename_prefix is {prefix!r}, but Windows has no file names with {' '.join(refused)}; write e.g. - instead"
        )
    folder = Path(os.path.abspath(output / os.path.dirname(os.path.normpath(name))))
    if not folder.is_relative_to(os.path.abspath(output)):
        raise ValueError(f"filename_prefix is {prefix!r}, which leads out of the output folder; write a path within it")
    try:
        _require_possible(output, f"{os.path.normpath(name)}{NUMBERED}{suffix}")
    except OSError as error:
        raise ValueError(f"filename_prefix is {prefix!r} ({error.strerror}); {remedy(error)}") from error
    except ValueError as error:
        raise ValueError(f"filename_prefix is {prefix!r}, with a character that no file name has; remove it") from error


def _require_possible(folder: Path, name: str) -> None:
    """Raises OSError or ValueError for a path in `folder` that the system does not take, whether its folders exist or not."""
    for path in (folder / name, *map(folder.joinpath, Path(name).parts)):
        with suppress(FileNotFoundError):
            path.lstat()


def _widget(prompt: Mapping[str, Any], node: str, widget: str) -> Any:
    """The value of a widget, or None if there is none or it is linked."""
    by_type = [entry for entry in prompt.values() if entry["class_type"] == node]
    by_title = [entry for entry in prompt.values() if entry.get("_meta", {}).get("title") == node]
    values = [entry["inputs"].get(widget) for entry in (by_type or by_title)[:1]]
    return next((value for value in values if not isinstance(value, list)), None)
