"""Conditions for a part of the picture. ComfyUI's areas and masks are those of pictures; a section needs those of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layout import BASE_KERNEL

PERCENTAGE = "percentage"  # in front of an area that is given in fractions
EVERYWHERE = (1.0, 0.0)  # the fraction of a video's length, and where it begins


def require_region(name: str, cond: dict[str, Any], height: int, width: int) -> None:
    """Raises a ValueError for an area or a mask that a section cannot have. Sizes are in latent pixels."""
    if cond.get("set_area_to_bounds"):
        raise ValueError(f"{name} has a mask with set_cond_area 'mask bounds', which ComfyUI knows for pictures only; "
                         "choose 'default'")  # fmt: skip
    if (area := cond.get("area")) is None:
        return
    sizes, places = _halves(area)
    if len(sizes) == 3 and area[0] == PERCENTAGE and (sizes[0], places[0]) != EVERYWHERE:
        raise ValueError(f"{name} has an area in time (temporal {sizes[0]:g}, z {places[0]:g}), but each section is a video of "
                         "its own; set temporal to 1 and z to 0")  # fmt: skip
    y, x = _pixels(area, places, height, width)
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"{name} has an area that begins at {8 * x}, {8 * y}, outside the picture of {8 * width}x{8 * height} "
                         "pixels; move it")  # fmt: skip


def for_video(cond: dict[str, Any], frames: int, height: int, width: int) -> dict[str, Any]:
    """The condition with its area as ComfyUI has it for a video, in whole tokens, and a mask for each latent frame."""
    changed = dict(cond)
    if cond.get("area") is not None:
        h, w, y, x = _area(cond["area"], height, width)
        changed["area"] = (frames, h, w, 0, y, x)
    mask: Tensor | None = cond.get("mask")
    if mask is not None and mask.ndim == 3:
        changed["mask"] = mask[:, None].expand(-1, frames, -1, -1)
    return changed


def _area(area: Sequence, height: int, width: int) -> tuple[int, int, int, int]:
    """Height, width, top and left in latent pixels, within the picture and multiples of a token's sides."""
    sizes, places = (_pixels(area, half, height, width) for half in _halves(area))
    found = []
    for size, place, side, step in zip(sizes, places, (height, width), BASE_KERNEL[1:], strict=True):
        start = place // step * step
        stop = min(side, max(start + step, round((place + size) / step) * step))
        found.append((stop - start, start))
    (h, y), (w, x) = found
    return h, w, y, x


def _pixels(area: Sequence, values: Sequence, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a half of an area."""
    rows, columns = values[-2:]
    return (round(rows * height), round(columns * width)) if area[0] == PERCENTAGE else (rows, columns)


def _halves(area: Sequence) -> tuple[Sequence, Sequence]:
    """The sizes and the places of an area, both [time,] height, width."""
    values = area[1:] if area[0] == PERCENTAGE else area
    return values[: len(values) // 2], values[len(values) // 2 :]
