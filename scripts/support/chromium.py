"""Finds a Chromium-like browser for the browser tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def find_chromium() -> Path | None:
    """CHROME_PATH, or the first browser on the PATH, or one in the usual places of macOS and Windows."""
    chosen = os.environ.get("CHROME_PATH")
    if chosen:
        return Path(chosen)
    on_path = map(shutil.which, COMMANDS)
    return next((Path(found) for found in (*on_path, *PLACES) if found and Path(found).is_file()), None)
