"""Frames and seconds as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from .filling import Section, seconds_shown
from .frames import Length, runs


def spell(frames: Iterable[int | None]) -> str:
    """Frames as runs: `0..8`, `.` for frames that do not exist yet."""
    return ",".join(f"{start}..{stop - 1}" if stop > start + 1 else f"{start}" for start, stop in runs(frames)) or "."


def spell_seen(frames: Sequence[int | None], latents: int) -> str:
    """Context frames of a video of so many latent frames: those beyond the end image's are guides (`Plan.fill`)."""
    guides = [f"guide {frame - latents}" for frame in frames if frame is not None and frame > latents]
    return ",".join(guides) or spell(frames)


def spell_length(length: Length, fps: float) -> str:
    """How long a video is, in latent frames, frames and seconds."""
    frames = f"a loop of {length.frames}" if length.loop else f"{length.frames}"
    if length.exact is not None:
        frames += f" of {length.uncut.frames}"
    return f"{length.latents} latent frames = {frames} frames = {length.frames / fps:.2f} s at {fps:g} fps"


def spell_seconds(section: Section, length: Length, fps: float, separator: str = "-") -> str:
    return ", ".join(f"{begin:.2f}{separator}{end:.2f}" for begin, end in seconds_shown(section, length, fps))


def seconds_of(text: str, name: str, otherwise: str = "") -> list[float]:
    """Seconds that are separated by commas or spaces.

    Raises a ValueError that calls the text by this name, and says what may be written `otherwise`.
    """
    try:
        return [float(word.removesuffix("s")) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; write seconds of the video, like 2, 3.5{otherwise}") from None


def aligned(rows: Sequence[Sequence[str]], values: Literal["<", ">"] = "<") -> list[str]:
    """Rows of a table as lines. What follows the first column is on the left of its own column, or on the right."""
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    forms = [f"{side}{width}" for side, width in zip(["<", *values * len(widths)], widths, strict=False)]
    return ["".join(format(cell, form) for cell, form in zip(row, forms, strict=True)).rstrip() for row in rows]
