"""Conditions for a part of the picture or of the steps. ComfyUI's areas and masks are those of pictures; a section needs those
of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...layout import BASE_KERNEL

Percent = Callable[[float], float]  # a part of the schedule, 0..1, as a sigma

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


def require_prompt_everywhere(
    name: str, conds: Sequence[dict[str, Any]], schedules: Iterable[Tensor], percent_to_sigma: Percent, height: int, width: int
) -> None:
    """Raises a ValueError if there is a step in which some of the picture has no condition: it would stay grey, or noise."""
    covered = [_covered(cond, height, width) for cond in conds]
    for counting, sigma in _counting(conds, schedules, percent_to_sigma).items():
        if not counting:
            raise ValueError(
                f"{name} has no prompt for the step at sigma {sigma:.3g}, because of a timestep range; combine it with a "
                "prompt for the other steps"
            )
        if bool(torch.stack([covered[number] for number in counting]).any(dim=0).logical_not().any()):
            raise ValueError(
                f"{name} leaves part of the picture without a prompt in the step at sigma {sigma:.3g}, because of areas, masks "
                "or strengths of 0; combine it with a prompt for the whole picture"
            )


def _counting(
    conds: Sequence[dict[str, Any]], schedules: Iterable[Tensor], percent_to_sigma: Percent
) -> dict[tuple[int, ...], float]:
    """The numbers of the conditions that count together, and the first sigma at which they do."""
    found: dict[tuple[int, ...], float] = {}
    for sigma in (sigma for sigmas in schedules if conds for sigma in sigmas[:-1].tolist()):
        numbers = tuple(number for number, cond in enumerate(conds) if _counts(cond, sigma, percent_to_sigma))
        found.setdefault(numbers, sigma)
    return found


def _counts(cond: dict[str, Any], sigma: float, percent_to_sigma: Percent) -> bool:
    """As ComfyUI's sampler decides it."""
    first, last = cond.get("start_percent"), cond.get("end_percent")
    return (first is None or sigma <= percent_to_sigma(first)) and (last is None or sigma >= percent_to_sigma(last))


def _covered(cond: dict[str, Any], height: int, width: int) -> Tensor:
    """The latent pixels `H W` for which a condition counts. A default one fills what others leave."""
    if "default" in cond:
        return torch.ones(height, width, dtype=torch.bool)
    covered = torch.zeros(height, width, dtype=torch.bool)
    if 0 in (cond.get("strength"), cond.get("mask_strength")):
        return covered
    h, w, y, x = (height, width, 0, 0) if cond.get("area") is None else _area(cond["area"], height, width)
    covered[y : y + h, x : x + w] = True
    if cond.get("mask") is not None:
        masks = cond["mask"].float().cpu().reshape(-1, 1, *cond["mask"].shape[-2:])
        covered &= (functional.interpolate(masks, (height, width), mode="bilinear") > 0).any(dim=0)[0]
    return covered


def for_video(cond: dict[str, Any], frames: int, height: int, width: int, scale: float = 1.0) -> dict[str, Any]:
    """The condition with its area as ComfyUI has it for a video, in whole tokens, and a mask for each latent frame.

    The height and width are `scale` times those of which the area is given.
    """
    changed = dict(cond)
    if cond.get("area") is not None:
        h, w, y, x = _area(cond["area"], height, width, scale)
        changed["area"] = (frames, h, w, 0, y, x)
    mask: Tensor | None = cond.get("mask")
    if mask is not None and mask.ndim == 3:
        changed["mask"] = mask[:, None].expand(-1, frames, -1, -1)
    return changed


def _area(area: Sequence, height: int, width: int, scale: float = 1.0) -> tuple[int, int, int, int]:
    """Height, width, top and left in latent pixels, within the picture and multiples of a token's sides."""
    sizes, places = (_pixels(area, half, height, width, scale) for half in _halves(area))
    found = []
    for size, place, side, step in zip(sizes, places, (height, width), BASE_KERNEL[1:], strict=True):
        start = place // step * step
        stop = min(side, max(start + step, round((place + size) / step) * step))
        found.append((stop - start, start))
    (h, y), (w, x) = found
    return h, w, y, x


def _pixels(area: Sequence, values: Sequence, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
    """Rows and columns of a half of an area."""
    rows, columns = values[-2:]
    if area[0] == PERCENTAGE:
        return round(rows * height), round(columns * width)
    return round(rows * scale), round(columns * scale)


def _halves(area: Sequence) -> tuple[Sequence, Sequence]:
    """The sizes and the places of an area, both [time,] height, width."""
    values = area[1:] if area[0] == PERCENTAGE else area
    return values[: len(values) // 2], values[len(values) // 2 :]
