"""What a plan will make, read from a prompt that has not run: for the drawing in the plan's own node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from .layout import chosen_layout
from .orders import PADDINGS
from .placing import SEEN, Arrangement, At, Frames, Placed, Use, spelled_places
from .plan import Plan

Node = Mapping[str, Any]  # as in an API prompt: `class_type`, and `inputs` with values and [node, slot] links
Prompt = Mapping[str, Node]

SAMPLERS = ("FramePack_Sampler", "FramePack_SamplerCustom")
PLACE = "FramePack_Place"
CLIPS = ("LoadVideo", "GetVideoComponents", "RepeatImageBatch")  # what gives images of which several are used


@dataclass(frozen=True)
class Foreseen:
    """A plan, and what will be given of its video: `known` latent frames, and the stretches of `guides`."""

    plan: Plan
    known: frozenset[int] = frozenset({0})
    guides: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, prompt: Prompt, node: str) -> Foreseen:
        """From the FramePack_Plan with this id, and the sampler behind it. Raises ValueError for values that do not fit."""
        plan = plan_of(prompt, node)
        sampler = sampler_behind(prompt, node)
        if sampler is None:
            return cls(plan)
        arrangement = Arrangement.of(plan, given_to(prompt, sampler, plan))
        return cls(plan, frozenset(arrangement.known), tuple(arrangement.guides))


def plan_of(prompt: Prompt, node: str) -> Plan:
    """The plan that a FramePack_Plan node will make."""
    value = Values(prompt, node)
    return Plan.of(
        seconds=float(value("seconds", 5.0)),
        order=value("order", "inverted"),
        window=int(value("window", 9)),
        layout=chosen_layout(value("layout", "auto"), value("custom_layout", "")),
        fps=float(value("fps", Plan.fps)),
        paddings=value("paddings", PADDINGS[0]),
        exact_length=value("exact_length", False),
        loop=int(value("loop", 0)),
    )


def sampler_behind(prompt: Prompt, node: str) -> str | None:
    """The first sampler that is given this node's plan."""
    for name, other in prompt.items():
        if other["class_type"] in SAMPLERS and other["inputs"].get("plan") == [node, 0]:
            return name
    return None


def given_to(prompt: Prompt, sampler: str, plan: Plan) -> Frames:
    """What a sampler is given, with empty latents of the right length."""
    inputs = prompt[sampler]["inputs"]
    frames = placed_before(prompt, inputs.get("frames"), plan)
    if is_link(inputs.get("start_latent")):
        frames = frames.with_placed(still("start"))
    if is_link(inputs.get("end_latent")) and plan.order.end == "last":
        frames = frames.with_placed(still("end"))
    return frames


def placed_before(prompt: Prompt, link: Any, plan: Plan) -> Frames:
    """What a chain of FramePack_Place gives, from its first to its last."""
    if not is_link(link) or prompt.get(link[0], {}).get("class_type") != PLACE:
        return Frames(fps=plan.fps)
    name = link[0]
    frames = placed_before(prompt, prompt[name]["inputs"].get("frames"), plan)
    for placed in placed_by(prompt, name):
        frames = frames.with_placed(placed)
    return frames


def placed_by(prompt: Prompt, name: str) -> list[Placed]:
    """What one FramePack_Place gives. How long a clip is, is unknown before it is loaded: it counts as long as it may be."""
    value = Values(prompt, name)
    use = cast(Use, value("use", "fixed"))
    times = value("times", "").strip()
    if times:
        return [still(at, use, seconds) for at, seconds in spelled_places(times, times.count(",") + 1)]
    at, seconds = cast(At, value("at", "start")), float(value("seconds", 0.0))
    images = prompt[name]["inputs"].get("images")
    if not is_link(images) or prompt.get(images[0], {}).get("class_type") not in CLIPS:
        return [still(at, use, seconds)]
    return [Placed(empty(SEEN + (at == "start")), empty(1), at, use, seconds)]


def still(at: At, use: Use = "fixed", seconds: float = 0.0) -> Placed:
    return Placed(empty(1), empty(1), at, use, seconds)


def empty(frames: int) -> torch.Tensor:
    return torch.empty(1, 0, frames, 0, 0)


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


@dataclass(frozen=True)
class Values:
    """The values of a node's inputs. One that another node gives is that node's own `value`, as core's primitives have it."""

    prompt: Prompt
    node: str

    def __call__(self, name: str, default: Any) -> Any:
        """Raises ValueError for a value that is known only when the graph runs."""
        found = self.prompt[self.node]["inputs"].get(name, default)
        if is_link(found):
            found = self.prompt.get(found[0], {}).get("inputs", {}).get("value")
            if found is None or is_link(found):
                raise ValueError(f"{name} comes from another node and is known when the graph runs")
        return found
