"""Frames of a few videos, kept with the results for the report to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from experiments.study.videos import Video

COLUMNS = 10  # frames of a video, evenly spread
SHOWN_SECTIONS, SHOWN_SCENES = 6, (0, 5)
SIDE = 72  # pixels of a shown frame


def is_shown(video: Video) -> bool:
    changed = video.colour_anchor or video.cache or video.error or video.sees != "own"
    return video.source != "vae" and not changed and video.sections == SHOWN_SECTIONS and video.scene in SHOWN_SCENES


def save_strip(folder: Path, video: Video, frames: np.ndarray) -> None:
    chosen = frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(chosen), axis=1)).save(strip_path(folder, video))


def strip_path(folder: Path, video: Video) -> Path:
    name = "-".join(
        str(part) for part in (video.source, video.order, video.layout, video.paddings, video.steps, video.shift, video.scene)
    )
    return folder / f"strip-{name}.png"


def sheet(folder: Path, videos: list[Video]) -> Image.Image | None:
    """The strips one below the other; None if one is missing."""
    paths = [strip_path(folder, video) for video in videos]
    if not all(path.exists() for path in paths):
        return None
    strips = [Image.open(path).convert("RGB").resize((SIDE * COLUMNS, SIDE)) for path in paths]
    page = Image.new("RGB", (SIDE * COLUMNS, (SIDE + 3) * len(strips) - 3), "white")
    for row, strip in enumerate(strips):
        page.paste(strip, (0, row * (SIDE + 3)))
    return page
