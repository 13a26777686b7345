"""What the user has set in ComfyUI's front end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths

THEME = "Comfy.ColorPalette"


def front_end_settings() -> dict[str, Any]:
    """Those of the default user. With --multi-user each user has their own, and these are not used."""
    path = Path(folder_paths.get_public_user_directory("default")) / "comfy.settings.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def is_light() -> bool:
    """Whether ComfyUI's theme is light; its others are dark."""
    return front_end_settings().get(THEME) == "light"
