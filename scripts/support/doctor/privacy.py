"""Takes out of a text what says whose computer it comes from."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping
from pathlib import Path

# A path in quotation marks, as in most error messages, may have spaces; any other ends at one.
QUOTED = re.compile(r"(['\"])(?:[A-Za-z]:[\\/]|\\\\|/)[^'\"\n]*[\\/]([^'\"\\/\n]+)[\\/]*\1")
ABSOLUTE = re.compile(r"(?<![\w./:~\\-])(?:[A-Za-z]:[\\/]+|\\\\|/)(?:[^\s\\/|'\"<>:,;()]+[\\/]+)+([^\s\\/|'\"<>:,;()]*)")
SHORTEST_NAME = 3  # a shorter user or computer name would be found within ordinary text

# Names of users and computers that say nothing of anyone, and may be words of the report.
COMMON = {"admin", "administrator", "comfy", "comfyui", "framepack", "linux", "localhost", "root", "runner", "ubuntu", "user"}


def known_places(comfyui: Path, pack: Path) -> dict[str, str]:
    """Folders, and what stands for them in a report: deeper ones first, because they are replaced first."""
    places = {comfyui.parent: "ComfyUI/..", Path.cwd(): ".", Path.home(): "~", comfyui: "ComfyUI"}
    if comfyui not in pack.parents:
        places[pack] = "framepack"
    both = {str(form): name for place, name in places.items() for form in (place, place.resolve())}
    return dict(sorted(both.items(), key=lambda item: len(item[0]), reverse=True))


def owner() -> dict[str, str]:
    """The user's and the computer's name, and what stands for them."""
    found = {}
    for name, stands in ((user_name(), "<user>"), (Path.home().name, "<user>"), (socket.gethostname(), "<computer>")):
        for part in (name, name.partition(".")[0]):
            if len(part) >= SHORTEST_NAME and part.lower() not in COMMON:
                found[part] = stands
    return found


def user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an id without an entry, as in containers
        return ""


def without_personal_paths(text: str, places: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The text with paths relative to known places. Of any other absolute path only the last part stays."""
    for place, stands in places.items():
        if len(Path(place).parts) > 1:  # not the root of a disk
            for form in {place, place.replace("\\", "\\\\"), place.replace("\\", "/")}:
                text = re.sub(rf"{re.escape(form)}(?=[\\/]|\W|$)", lambda _, stands=stands: stands, text)
    text = QUOTED.sub(lambda found: f"{found[1]}.../{found[2]}{found[1]}", text)
    text = ABSOLUTE.sub(lambda found: f".../{found[1]}", text)
    for name, stands in sorted(names.items(), key=lambda item: len(item[0]), reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stands, text, flags=re.IGNORECASE)
    return text
