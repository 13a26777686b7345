"""Sections of a finished video that are made again while everything else stays."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .filling import Section
from .frames import Length, runs
from .placing import Frames, Placed
from .plan import Plan


def redo(
    plan: Plan, latents: Tensor, known: Collection[int], numbers: Collection[int], before: Placed | None = None
) -> tuple[Plan, Frames]:
    """The plan that makes these sections (0 is the first that was made) again, and the frames that stay.

    `latents` `B 16 T H W` are the finished video, of which `known` frames were given. `before` is what it begins after, whose
    frames are the first of them.
    """
    sections = plan.fill(latents.shape[2], known)
    again = {frame for section in sections if section.number in numbers for frame in section.target}
    stays = runs(frame for frame in range(latents.shape[2]) if frame not in again)
    video = plan.length(latents.shape[2], len(known)).uncut
    placed = tuple(_stretch(latents, start, stop, video.begins(start) / plan.fps) for start, stop in stays)
    if before is not None:
        placed = (replace(placed[0], picture=before.picture), *placed[1:])
    begun = plan.begun(latents.shape[2], known)
    shorter = replace(begun, sections=len(again) // plan.window, seconds=None, anchor=plan.anchor_of(sections))
    return shorter, Frames(placed, plan.fps, tuple(sorted(known)))


def whole(latents: Tensor, known: Collection[int], before: Placed | None) -> tuple[Tensor, Collection[int]]:
    """A finished video with what it begins after, and which of its frames were given."""
    if before is None:
        return latents, known
    return torch.cat([before.latents.expand(len(latents), -1, -1, -1, -1), latents], dim=2), range(before.length)


def as_made(plan: Plan, length: Length, parts: tuple[int, ...]) -> Plan:
    """The plan as the model made it whose video has this length, and these parts if they were those of prompts."""
    made = plan.in_clips(length.apart is not None)
    return replace(made, parts=parts, prompted=False) if plan.prompted else made


def require_no_loop(plan: Plan, length: Length) -> None:
    """Raises ValueError for a plan or a video that is a loop: what connects it would no longer fit."""
    if plan.loop or length.loop:
        which = f"the plan is of a loop (loop is {plan.loop})" if plan.loop else "latent is a loop"
        raise ValueError(f"{which}, whose sections lead into each other; set the plan's loop to 0 for the latent too, or "
                         "sample it with another seed")  # fmt: skip


def given_frames(plan: Plan, frames: int) -> set[int]:
    """Which latent frames of a video of this length the plan does not make, if there is no doubt. Raises ValueError."""
    given = next((count for count in (1, 0, 2) if frames == count + plan.beside(count).generated), None)
    if given in (0, 1):
        return set(range(given))
    if given == 2 and plan.order.end == "last":
        return {0, frames - 1}
    raise ValueError(
        f"latent holds {frames} latent frames, of which the plan makes {plan.generated}, and nothing says which others were "
        "given; connect the plan that it was sampled with, and the sampler's own latent"
    )


def section_numbers(text: str, sections: Sequence[Section]) -> set[int]:
    """Numbers of sections, from 0, from a text like `3` or `2,4-5`, whose sections count from 1 as in the plan's table.

    Raises ValueError for another text, and for sections that do not exist.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if match is None:
            raise ValueError(f"sections is {text!r}; write numbers from the plan's table, like 3 or 2,4-5")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= len(sections):
            raise ValueError(f"sections names {part}, but the video has the sections 1 to {len(sections)}")
        found |= set(range(first - 1, last))
    if not found:
        raise ValueError("sections is empty; write numbers from the plan's table, like 3 or 2,4-5")
    return found


def unseen_after(plan: Plan, sections: Sequence[Section], numbers: Collection[int]) -> bool:
    """Whether what stays after a section that is made again is not seen by it."""
    return plan.order.end is None and max(numbers) < len(sections) - 1


def _stretch(latents: Tensor, start: int, stop: int, seconds: float) -> Placed:
    return Placed(latents[:, :, start:stop], latents[:, :, start : start + 1], "time" if start else "start", seconds=seconds)
