"""Sections of a finished video that are made again while everything else stays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .filling import Section
from .frames import Length, runs
from .made import Made
from .placing import Frames, Placed
from .plan import Plan


def sections_again(
    text: str, plan: Plan, latents: Tensor, length: Length, made: Made | None, before: Placed | None = None
) -> tuple[Plan, Frames, list[str]]:
    """`redo` for the sections that a text names (see `section_numbers`), and lines for the user.

    `latents` `B 16 T H W` of this length are a finished video, `made` says how it was made if that is known, and `before` is
    what it begins after. Raises ValueError for a loop, for sections that do not exist, and for another plan than the video's.
    """
    require_no_loop(plan, length)
    notes = unsaid(plan, latents, made)
    plan = as_made(plan, length, made.plan.parts if made else ())
    if made is None:
        made = Made(plan, tuple(sorted(given_frames(plan, latents.shape[2]))), latents.shape[2])
    else:
        require_same(plan, made)
        made = replace(made if made.fits(latents) else made.without_pictures(), plan=plan)
    latents, made = whole(latents, made, before)
    planned = plan.fill(made.frames, made.given)
    numbers = section_numbers(text, planned)
    if unseen_after(plan, planned, numbers):
        notes.append(f"the {plan.order} order does not see what comes after: to avoid a jump, make up to {len(planned)} again")
    return *redo(made, latents, numbers, before), notes


def redo(made: Made, latents: Tensor, numbers: Collection[int], before: Placed | None = None) -> tuple[Plan, Frames]:
    """The plan that makes these sections (0 is the first that was made) again, and the frames that stay.

    `latents` `B 16 T H W` are the finished video. `before` is what it begins after, whose frames are the first of them.
    """
    plan, known = made.plan, made.given
    sections = plan.fill(made.frames, known)
    again = {frame for section in sections if section.number in numbers for frame in section.target}
    stays = runs(frame for frame in range(made.frames) if frame not in again)
    video = plan.length(made.frames, len(known)).uncut
    placed = tuple(_stretch(latents, start, stop, video.begins(start) / plan.fps) for start, stop in stays)
    if before is not None:
        placed = (replace(placed[0], picture=before.picture), *placed[1:])
    begun = plan.begun(made.frames, known)
    shorter = replace(begun, sections=len(again) // plan.window, seconds=None, anchor=plan.anchor_of(sections))
    return shorter, Frames(placed, plan.fps, made)


def whole(latents: Tensor, made: Made, before: Placed | None) -> tuple[Tensor, Made]:
    """A finished video with what it begins after, which was given."""
    if before is None:
        return latents, made
    latents = torch.cat([before.latents.expand(len(latents), -1, -1, -1, -1), latents], dim=2)
    return latents, replace(made, given=tuple(range(before.length)), frames=latents.shape[2])


def as_made(plan: Plan, length: Length, parts: tuple[int, ...]) -> Plan:
    """The plan as the model made it whose video has this length, and these parts if they were those of prompts."""
    made = plan.in_clips(length.apart is not None)
    return replace(made, parts=parts, prompted=False) if plan.prompted else made


def unsaid(plan: Plan, latents: Tensor, made: Made | None) -> list[str]:
    """Lines for the user about what these latents `B 16 T H W` no longer say of how they were made."""
    found = []
    if made is not None and not made.fits(latents):
        found.append(
            "latent was resized, so its guides and its end_latent do not fit: place guides again, on these frames, and "
            "connect end_latent"
        )
    if made is None and not plan.apart:
        found.append(
            "latent does not say which guides and image embeddings its sections had (it was saved and loaded, or changed): "
            "connect clip_vision_output, and place guides again, on these frames"
            + (", and connect end_latent if it had one" if plan.order.end == "beyond" else "")
        )
    if made is None and plan.prompted:
        found.append("nothing says whether latent was made in parts: its sections count as if not")
    return found


def require_same(plan: Plan, made: Made) -> None:
    """Raises ValueError for another plan than that of a video: its sections would be other ones, or see something else."""
    given = len(made.given)
    for found, expected in zip(_deciding(plan, given), _deciding(made.plan, given), strict=True):
        if found != expected:
            raise ValueError(
                f"the plan has {found}, but latent was made with {expected}; connect the FramePack_Plan with which the whole "
                "video was sampled, or one as long as latent if that was cancelled"
            )


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


def _deciding(plan: Plan, given: int) -> Iterator[str]:
    """What of a plan decides where sections are and what they see, in words, if so many latent frames are given."""
    yield f"order {plan.order}"
    yield f"{plan.fps:g} fps"
    yield f"window {plan.window}"
    yield f"layout {plan.layout}"
    yield f"paddings {plan.paddings}"
    yield f"reanchor {'on' if plan.reanchored else 'off'}"
    yield "no exact length" if plan.exact is None else f"an exact length of {plan.exact} frames"
    sections = plan.beside(given).sections
    yield f"{sections} section{'s' if sections > 1 else ''}"
    yield f"parts at {', '.join(f'{frame / plan.fps:g}' for frame in plan.parts)} s" if plan.parts else "no parts"


def _stretch(latents: Tensor, start: int, stop: int, seconds: float) -> Placed:
    return Placed(latents[:, :, start:stop], latents[:, :, start : start + 1], "time" if start else "start", seconds=seconds)
